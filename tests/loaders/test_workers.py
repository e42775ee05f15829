"""Worker processes: killed, failing, interrupted, started where they cannot be."""

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from multiprocessing.popen_fork import Popen
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders.batches import BatchMaker
from loaders.memory import BatchMemory
from shards_spec.errors import RefitShardError, StorageError, UsageError
from tests.loaders.remains import children, remains
from tests.loaders.streams import Batch, all_items, items, stream

ROOT = Path(__file__).resolve().parents[2]


def kill_a_worker_at(monkeypatch: pytest.MonkeyPatch, task: int) -> None:
    """Have a worker killed while the loop waits for a batch, when that task is handed out."""
    take, taken = BatchMemory.take, 0
    others = set(children())

    def take_and_kill(memory: BatchMemory) -> int | None:
        nonlocal taken
        taken += 1
        if taken == task:
            pid = next(pid for pid in children() if pid not in others)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return take(memory)

    monkeypatch.setattr(BatchMemory, "take", take_and_kill)


def receive(batches: Iterable[Batch], found: list[str]) -> None:
    """Add the items of all batches, up to an error."""
    for batch in batches:
        found += items(batch)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_killed_worker_is_an_error_and_the_state_goes_on(
    shards: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """One line that says so; nothing stays, though the error is kept; no sample is lost."""
    expected = all_items(stream(shards, num_workers=2, epoch_samples=360))
    before = remains()
    with monkeypatch.context() as patched:
        kill_a_worker_at(patched, 12)
        loader = stream(shards, num_workers=num_workers, epoch_samples=360)
        found: list[str] = []
        with pytest.raises(RefitShardError, match=r"process died .*killed by signal") as caught:
            receive(loader, found)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert remains() == before
    assert 0 < len(found) < 360
    assert found == expected[: len(found)]
    following = stream(shards, num_workers=num_workers, epoch_samples=360)
    following.load_state_dict(loader.state_dict())
    assert found + all_items(following) == expected
    again = all_items(loader)
    assert len(again) == 360, "the loader itself can be used again"
    assert again[: 360 - len(found)] == expected[len(found) :], "from its last batch on"


FAILURES = [
    StorageError("tar: no such device"),
    UsageError("told in the worker"),
    ZeroDivisionError("a fault of ours"),
    RuntimeError("a fault of ours in a worker"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_is_that_error_here(
    shards: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, num_workers: int
) -> None:
    """In its place in the stream, of its kind; ours say what they said and no more."""
    make = BatchMaker.make

    def make_or_fail(maker: BatchMaker, begin: int, end: int, pixels: Any) -> Any:
        if begin >= 48:
            raise failure
        return make(maker, begin, end, pixels)

    all_items(stream(shards, num_workers=2))
    before = remains()
    with monkeypatch.context() as patched:
        patched.setattr(BatchMaker, "make", make_or_fail)
        loader = stream(shards, num_workers=num_workers, epoch_samples=360)
        found: list[str] = []
        with pytest.raises(type(failure)) as caught:
            receive(loader, found)
    assert type(caught.value) is type(failure)
    assert str(failure) in str(caught.value)
    if isinstance(failure, RefitShardError):
        assert str(caught.value) == str(failure)
        found_then = remains()
        assert found_then.children == before.children
        assert found_then.threads <= before.threads or not num_workers
        assert found_then.files <= before.files or not num_workers
    traceback.clear_frames(caught.tb)  # or the error would hold its workers
    assert remains().children == before.children
    assert found == all_items(stream(shards, epoch_samples=48))


def test_as_many_processes_as_asked_for(shards: Path) -> None:
    """From the first batch to the last."""
    before = children()
    for num_workers in (0, 1, 3):
        for _ in stream(shards, num_workers=num_workers, epoch_samples=96):
            assert len(children()) - len(before) == num_workers
        assert children() == before


def test_an_iterator_in_a_cycle_ends_its_workers_by_itself(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer may hold one and itself: when it is collected the workers are asked to end, and
    none must be killed.
    """
    gc.collect()
    before = remains()
    killed: list[object] = []
    monkeypatch.setattr(Popen, "terminate", killed.append)
    trainer: dict[str, Any] = {"batches": iter(stream(shards, num_workers=2))}
    trainer["itself"] = trainer
    next(trainer["batches"])
    assert len(children()) - len(before.children) == 2
    del trainer
    gc.collect()
    assert not killed
    assert remains() == before


def test_two_loaders_at_once(shards: Path) -> None:
    """Their batches, states and processes have nothing to do with each other."""
    alone = all_items(stream(shards, epoch_samples=120))
    other = all_items(stream(shards, seed=5, epoch_samples=120))
    before = remains()
    pairs = zip(
        stream(shards, num_workers=2, epoch_samples=120),
        stream(shards, num_workers=2, seed=5, epoch_samples=120),
        strict=True,
    )
    both = [(items(one), items(two)) for one, two in pairs]
    assert [item for one, _ in both for item in one] == alone
    assert [item for _, two in both for item in two] == other
    assert remains().children == before.children


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loops_random_numbers_are_its_own(shards: Path, num_workers: int) -> None:
    """Iterating draws from no global generator, so it changes no model's initialisation."""
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    all_items(stream(shards, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state()) == str(state[1])
    assert random.getstate() == state[2]


def try_in_a_daemon(queue: "Queue[list[str]]", shards: Path) -> None:
    """In a daemonic process: what the loader says, and what it gives without workers."""
    try:
        all_items(stream(shards, num_workers=2))
    except UsageError as error:
        queue.put([str(error)])
    queue.put(all_items(stream(shards, num_workers=0)))


def test_a_daemonic_process_can_have_no_workers(shards: Path) -> None:
    """Such as a worker of another loader: it says what to do instead."""
    context = multiprocessing.get_context("fork")
    queue: Queue[list[str]] = context.Queue()
    child = context.Process(target=try_in_a_daemon, args=(queue, shards), daemon=True)
    child.start()
    (said,) = queue.get(timeout=60)
    assert "num_workers=0" in said
    assert "\n" not in said
    assert queue.get(timeout=60) == all_items(stream(shards))
    child.join(60)
    assert child.exitcode == 0


LOOP = """
import sys
from pathlib import Path
from tests.loaders.streams import stream
loader = stream(Path(sys.argv[1]), num_workers=3, epoch_samples=10**9, batch_size=48, prefetch=8)
for step, batch in enumerate(loader):
    if step == 3:
        print("running", flush=True)
"""


def wait_until_gone(pids: list[int]) -> None:
    """Workers look for their parent every few seconds."""
    end = time.monotonic() + 40
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "a worker outlived its loop"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "group"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGKILL, False)]
)
def test_a_run_that_is_ended_leaves_no_process(
    shards: Path, how: signal.Signals, group: bool
) -> None:
    """By a signal to it alone, or to all of its group, as Ctrl-C in a terminal does; that ends with
    KeyboardInterrupt, and nothing else is said.
    """
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(shards)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        workers = children(process.pid)
        assert len(workers) == 3
        if group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    wait_until_gone(workers)
    if how == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1


OPENCV = """
import sys
from pathlib import Path
import cv2
import numpy as np
from tests.loaders.streams import all_items, stream
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)  # starts its threads
expected = all_items(stream(Path(sys.argv[1])))
for _ in range(3):
    assert all_items(stream(Path(sys.argv[1]), num_workers=2)) == expected
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
assert cv2.getNumThreads() == 4
"""


def test_opencvs_threads_in_the_loop_do_not_stop_the_workers(shards: Path) -> None:
    """A program that has used OpenCV in parallel gets its batches, and keeps its threads."""
    command = [sys.executable, "-c", OPENCV, str(shards)]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=True, timeout=60)
