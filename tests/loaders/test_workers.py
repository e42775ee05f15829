"""Workers, which are threads: failing, interrupted, left early, in any kind of process."""

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refit_shard.loaders.stream.batches import BatchMaker
from refit_shard.loaders.stream.transform import BatchTransform
from refit_shard.shards_spec.errors import RefitShardError, StorageError, UsageError
from tests.loaders.remains import children, remains
from tests.loaders.streams import Batch, all_items, items, stream

ROOT = Path(__file__).resolve().parents[2]


def receive(batches: Iterable[Batch], found: list[str]) -> None:
    """Add the items of all batches, up to an error."""
    for batch in batches:
        found += items(batch)


FAILURES = [
    StorageError("tar: no such device"),
    UsageError("told in the worker"),
    ZeroDivisionError("a fault of ours"),
    RuntimeError("a fault of ours in a worker"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize(("num_workers", "stage"), [(0, "make"), (2, "make"), (2, "read")])
def test_an_error_in_a_worker_is_that_error_here(
    shards: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, num_workers: int, stage: str
) -> None:
    """In its place in the stream, of its kind; ours say what they said and no more."""
    work = getattr(BatchMaker, stage)

    def work_or_fail(maker: BatchMaker, what: Any, *rest: Any) -> Any:
        if (what if stage == "read" else what.begin) >= 48:
            raise failure
        return work(maker, what, *rest)

    all_items(stream(shards, num_workers=2))
    before = remains()
    with monkeypatch.context() as patched:
        patched.setattr(BatchMaker, stage, work_or_fail)
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
        assert found_then.threads <= before.threads
    traceback.clear_frames(caught.tb)  # or the error would hold its workers
    assert remains().children == before.children
    assert found == all_items(stream(shards, epoch_samples=48))


def workers(kind: str = "draw") -> int:
    """Threads that draw batches, or that read them."""
    return sum(one.name.startswith(f"refit-shard-{kind}") for one in threading.enumerate())


def test_as_many_threads_as_asked_for(shards: Path) -> None:
    """So many that read and so many that draw, from the first batch to the last; no process."""
    before = children()
    for num_workers in (0, 1, 3):
        for _ in stream(shards, num_workers=num_workers, epoch_samples=96):
            assert workers("draw") == workers("read") == num_workers
            assert children() == before
        assert workers("") == 0
    for num_workers, prefetch, readers in ((1, 1, 1), (1, 4, 3), (2, 100, 16), (20, 2, 20)):
        iterator = iter(stream(shards, num_workers=num_workers, prefetch=prefetch))
        next(iterator)
        assert (workers("draw"), workers("read")) == (num_workers, readers)
        iterator.close()


def test_what_comes_next_is_read_while_a_batch_is_drawn(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each but the last is drawn only once the next one is read; in time, or this would hang."""
    read, make = BatchMaker.read, BatchMaker.make
    done = {begin: threading.Event() for begin in range(0, 96, 12)}

    def read_and_say(maker: BatchMaker, begin: int, end: int) -> Any:
        found = read(maker, begin, end)
        done[begin].set()
        return found

    def make_after(maker: BatchMaker, samples: Any, images: Any) -> Any:
        if samples.begin + 12 in done:
            assert done[samples.begin + 12].wait(60)
        return make(maker, samples, images)

    expected = all_items(stream(shards, epoch_samples=96))
    monkeypatch.setattr(BatchMaker, "read", read_and_say)
    monkeypatch.setattr(BatchMaker, "make", make_after)
    for num_workers in (1, 3):
        assert all_items(stream(shards, num_workers=num_workers, epoch_samples=96)) == expected
        for event in done.values():
            event.clear()


def test_an_iterator_in_a_cycle_ends_its_workers_by_itself(shards: Path) -> None:
    """A trainer may hold one and itself: when it is collected the workers end."""
    gc.collect()
    before = remains()
    trainer: dict[str, Any] = {"batches": iter(stream(shards, num_workers=2))}
    trainer["itself"] = trainer
    next(trainer["batches"])
    assert workers() == 2
    del trainer
    gc.collect()
    assert remains().adds_nothing_to(before)


def test_a_cycle_may_be_collected_by_a_worker_itself(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector runs in whatever thread it likes; a thread cannot wait for its own end."""
    make = BatchMaker.make
    gone = threading.Event()

    def make_and_collect(maker: BatchMaker, *given: Any) -> Any:
        gone.wait(10)
        gc.collect()
        return make(maker, *given)

    iterator = iter(stream(shards, num_workers=1, prefetch=2))
    next(iterator)
    monkeypatch.setattr(BatchMaker, "make", make_and_collect)
    trainer: dict[str, Any] = {"batches": iterator}
    trainer["itself"] = trainer
    next(iterator)
    gc.disable()
    try:
        del trainer, iterator
        gone.set()
        end = time.monotonic() + 30
        while workers(""):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.parametrize("stage", ["read", "make"])
def test_an_iterator_that_is_left_ends_while_its_batches_are_made(
    shards: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """What was given and not begun is not made."""
    work, begun = getattr(BatchMaker, stage), []

    def work_slowly(maker: BatchMaker, *given: Any) -> Any:
        begun.append(given)
        time.sleep(0.05)
        return work(maker, *given)

    monkeypatch.setattr(BatchMaker, stage, work_slowly)
    before = remains()
    iterator = iter(stream(shards, num_workers=2, prefetch=60, epoch_samples=10**6))
    next(iterator)
    iterator.close()
    assert remains().adds_nothing_to(before)
    assert len(begun) < 90


def test_validation_inside_of_training(shards: Path) -> None:
    """Two loaders nested: the outer one's threads go on, and each has its own batches."""
    alone = all_items(stream(shards, epoch_samples=96))
    other = all_items(stream(shards, seed=5, epoch_samples=48))
    found: list[str] = []
    for batch in stream(shards, num_workers=2, epoch_samples=96):
        found += items(batch)
        assert all_items(stream(shards, num_workers=2, seed=5, epoch_samples=48)) == other
    assert found == alone


def test_several_threads_have_loops_of_their_own(shards: Path) -> None:
    """A loop need not be in the main thread."""
    with ThreadPoolExecutor(3) as pool:
        loops = [pool.submit(lambda: all_items(stream(shards, num_workers=2))) for _ in range(3)]
    expected = all_items(stream(shards))
    assert all(loop.result() == expected for loop in loops)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_threads_may_share_an_iterator(shards: Path, num_workers: int) -> None:
    """Each batch goes to one of them, and all of them see the end."""
    loader = stream(shards, num_workers=num_workers, epoch_samples=240)
    iterator = iter(loader)
    with ThreadPoolExecutor(3) as pool:
        loops = [pool.submit(lambda: all_items(iterator)) for _ in range(3)]
    found = [item for loop in loops for item in loop.result()]
    assert sorted(found) == sorted(all_items(stream(shards, epoch_samples=240)))
    assert loader.state_dict()["position"] == 240


@pytest.mark.parametrize("what", ["a newer one", "load_state_dict", "set_epoch"])
def test_a_loader_goes_elsewhere_while_a_thread_waits_for_a_batch(shards: Path, what: str) -> None:
    """As one does that sends batches to a GPU in the background. The batch that it waited for is
    counted before, and not after.
    """
    waiting, waited = threading.Event(), threading.Event()

    def hold(batch: Batch, draws: Any) -> Batch:
        del draws
        waiting.set()
        waited.wait(0.2)
        return batch

    transform = BatchTransform(name="hold", function=hold)
    loader = stream(shards, num_workers=1, epoch_samples=48, transform=transform)
    state, old = loader.state_dict(), iter(loader)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(next, old)
        assert waiting.wait(60)
        go: dict[str, Callable[[], Any]] = {
            "a newer one": lambda: iter(loader),
            "load_state_dict": lambda: loader.load_state_dict(state),
            "set_epoch": lambda: loader.set_epoch(3),
        }
        begun = go[what]()
        assert received.result()["img"].shape[0] == 12
    waited.set()
    with pytest.raises(UsageError, match=f"ended by {what}"):
        next(old)
    first = {"a newer one": 12, "load_state_dict": 0, "set_epoch": 12 + 2 * 48}[what]
    rest = all_items(begun or loader)
    assert rest == all_items(stream(shards, epoch_samples=first + 48))[first:]
    assert loader.state_dict()["position"] == first + 48


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


def send_all(queue: "Queue[list[str]]", shards: Path) -> None:
    """In another process: what the loader gives."""
    queue.put(all_items(stream(shards, num_workers=2)))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("daemon", [False, True])
def test_any_process_can_have_workers(shards: Path, method: Any, daemon: bool) -> None:
    """Daemonic ones too, such as a worker of another loader."""
    context: Any = multiprocessing.get_context(method)
    queue: Queue[list[str]] = context.Queue()
    child = context.Process(target=send_all, args=(queue, shards), daemon=daemon)
    child.start()
    assert queue.get(timeout=60) == all_items(stream(shards))
    child.join(60)
    assert child.exitcode == 0


def test_an_iterator_of_a_parent_says_that_it_cannot_go_on(shards: Path) -> None:
    """Its threads are not in the child; a new one is, and the parent's goes on."""
    expected = all_items(stream(shards, epoch_samples=240))
    iterator = iter(stream(shards, num_workers=2, epoch_samples=240))
    found = items(next(iterator))
    context = multiprocessing.get_context("fork")
    queue: Queue[Any] = context.Queue()

    def work() -> None:
        try:
            next(iterator)
        except UsageError as error:
            queue.put(str(error))
        queue.put(all_items(stream(shards, num_workers=2, epoch_samples=240)))

    child = context.Process(target=work)
    child.start()
    assert "in the process that created it" in queue.get(timeout=60)
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
    assert found + all_items(iterator) == expected


LOOP = """
import sys
from pathlib import Path
from tests.loaders.streams import stream
loader = stream(Path(sys.argv[1]), num_workers=3, epoch_samples=10**9, batch_size=48, prefetch=8)
for step, batch in enumerate(loader):
    if step == 3:
        print("running", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "group"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGKILL, False)]
)
def test_a_run_that_is_ended_ends(shards: Path, how: signal.Signals, group: bool) -> None:
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
        assert children(process.pid) == []
        if group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode not in (0, None)
    if how == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1


LEFT = """
import sys, time
from pathlib import Path
import torch
from refit_shard.loaders.stream.batches import BatchMaker
from refit_shard.loaders.stream.transform import BatchTransform
from tests.loaders.streams import stream

def make(maker, samples, images, make=BatchMaker.make):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        torch.zeros(4).view(2, 2)  # lets go of the interpreter's lock, and takes it again
    return make(maker, samples, images)

BatchMaker.make = make
batches = iter(stream(Path(sys.argv[1]), num_workers=2))
next(batches)
print(len(next(batches)["img"]))
"""


LATE = """
import sys, threading
from pathlib import Path
from tests.loaders.streams import stream

threading.kept = iter(stream(Path(sys.argv[1]), num_workers=2))  # a module that is torn down late
print(len(next(threading.kept)["img"]))
"""


def test_an_iterator_that_outlives_the_interpreter_s_modules_ends_silently(shards: Path) -> None:
    command = [sys.executable, "-c", LATE, str(shards)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "12\n")
    assert "Traceback" not in done.stderr


def test_a_program_may_end_with_an_iterator_in_its_hands(shards: Path) -> None:
    """It ends as any other, though its threads are in the middle of a batch."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", LEFT, str(shards)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "12\n")
        assert "terminate" not in done.stderr
