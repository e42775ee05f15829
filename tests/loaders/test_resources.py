"""Nothing stays behind: processes, threads, file handles, memory; and a child's stream is ours."""

import contextlib
import gc
import multiprocessing
import resource
import time
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from refit_shard.shards_spec.records import most_open_tars
from tests.loaders.remains import open_files, remains
from tests.loaders.streams import all_items, items, stream


def resident_kib() -> int:
    """Memory of this process that is its own, KiB: mapped files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@pytest.mark.parametrize("num_workers", [0, 1, 6])
@pytest.mark.parametrize("how", ["break", "error", "close", "end", "del"])
def test_nothing_stays_after_the_loop(shards: Path, num_workers: int, how: str) -> None:
    """However the loop is left, no process, thread or file handle remains."""
    all_items(stream(shards, num_workers=2))  # what is opened once for good
    gc.collect()
    before = remains()
    loader = stream(shards, num_workers=num_workers, prefetch=4, epoch_samples=240)
    if how == "break":
        for _ in loader:
            break
    elif how == "error":
        with contextlib.suppress(ZeroDivisionError):
            for _ in loader:
                raise ZeroDivisionError
    elif how == "close":
        iterator = iter(loader)
        next(iterator)
        iterator.close()
    elif how == "end":
        assert sum(1 for _ in loader) == 20
    else:
        iterator = iter(loader)
        next(iterator)
        del iterator
    found = remains()
    assert found.children == before.children
    assert found.threads <= before.threads
    del loader
    assert remains().adds_nothing_to(before)


def test_a_loader_holds_few_file_handles(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset of thousands of shards does not run out of handles, and nothing else changes."""
    expected = all_items(stream(shards))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    before = open_files()
    loader = stream(shards)
    shard_count = sum(len(source.shards.manifest.shards) for source in loader._maker.sources)
    assert shard_count > most_open_tars() == 5
    assert all_items(loader) == expected
    assert open_files() - before == 5


def test_memory_is_flat(shards: Path) -> None:
    """Over 1500 small batches and hundreds of passes memory does not grow."""
    loader = stream(shards, num_workers=2, batch_size=4, res=16, epoch_samples=1500 * 4)
    readings = []
    for step, _ in enumerate(loader):
        if step % 100 == 99:
            gc.collect()
            readings.append(resident_kib())
    assert len(readings) == 15
    assert readings[-1] - readings[4] < 4 * 1024, readings


def send_items(queue: "Queue[list[str]]", shards: Path) -> None:
    """In a child: the items of an epoch."""
    queue.put(all_items(stream(shards, num_workers=2)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_the_same_stream(shards: Path, method: str) -> None:
    """Made in a forked or in a spawned child, also after the parent has had workers."""
    expected = all_items(stream(shards, num_workers=2))
    context = multiprocessing.get_context(method)
    queue: Queue[list[str]] = context.Queue()
    child = context.Process(target=send_items, args=(queue, shards))  # type: ignore[attr-defined]
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


def test_a_forked_child_uses_the_parents_loader(shards: Path) -> None:
    """A loader that was made, and iterated, before the fork works after it."""
    loader = stream(shards, num_workers=2)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    rest = all_items(iterator)
    context = multiprocessing.get_context("fork")
    queue: Queue[list[str]] = context.Queue()

    def work() -> None:
        loader.load_state_dict(state)
        queue.put(all_items(loader))

    child = context.Process(target=work)
    child.start()
    assert queue.get(timeout=60) == rest
    child.join(60)
    assert child.exitcode == 0


def test_a_slow_loop_gets_the_same_batches(shards: Path) -> None:
    """Workers that wait for the loop neither skip nor repeat."""
    loader = stream(shards, num_workers=4, prefetch=1)
    found = []
    for batch in loader:
        time.sleep(0.02)
        found += items(batch)
    assert found == all_items(stream(shards))
