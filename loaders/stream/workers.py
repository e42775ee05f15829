"""Prefetches batches in threads and returns them in order.

A batch is first read, then drawn (decoded and augmented). Reading and drawing have separate
threads, and each is one compiled call that releases the interpreter's lock. So the next batches are
read while one is drawn, which hides the latency of storage. Nothing is forked or sent between
processes.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.loaders.stream.memory import BatchMemory, device_in_use
from refit_shard.shards_spec.errors import RefitShardError, UsageError

Slice = tuple[int, int]
Batch = dict[str, Any]

# Pieces of memory for batches that are not being made: the one that the training loop uses, the
# next one, and a few that the loop may keep.
_SPARE_PIECES = 8
# The most reading threads, unless there are more workers; each has up to 32 reads in flight when
# storage is slow.
_READERS = 16


@dataclass(frozen=True)
class Made:
    """A batch without its images: ``columns`` by name, and ``counts``, samples of each source.

    ``replaced``: a line of text for each damaged sample that was replaced by another.
    """

    columns: dict[str, Any]
    counts: NDArray[np.int64]
    replaced: tuple[str, ...]


ReadT = TypeVar("ReadT")


class Maker(Protocol[ReadT]):
    """Makes batches; used by several threads at once."""

    @property
    def image(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of an image."""

    def read(self, begin: int, end: int) -> ReadT:
        """Read the samples begin … end - 1."""

    def make(self, read: ReadT, images: torch.Tensor) -> Made:
        """Make a batch from what was read; the images are drawn into ``images``."""

    def finish(self, read: ReadT, batch: Batch) -> Batch:
        """The batch as the training loop receives it."""


Finished = tuple[Batch, Made]


def check_process(began_in: int) -> None:
    """Refuse to go on in a forked process, which has none of the threads.

    Raises:
        UsageError: this is another process than ``began_in``.
    """
    if os.getpid() != began_in:
        raise UsageError(
            "this iterator's threads are in the process that created it; call iter() on the "
            "loader in this process"
        )


class _Crew:
    """Threads of one iteration for one kind of work, which take tasks in order."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.has_ended = False
        self.process = os.getpid()
        self._threads = [
            threading.Thread(target=self._serve, name=f"refit-shard-{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        """Run tasks until the first None; the main function of a thread."""
        while (work := self._tasks.get()) is not None:
            if not self.has_ended:
                work()
            del work  # or the batch would stay in memory while waiting for the next task

    def give(self, work: Callable[[], None]) -> None:
        """Queue a task, which must not raise."""
        if not self.has_ended:
            self._tasks.put(work)

    def end(self) -> None:
        """Discard the tasks that have not begun."""
        self.has_ended = True

    def join(self) -> None:
        """Wait until running tasks are done and the threads have ended."""
        if os.getpid() != self.process:
            return
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # garbage collection may run here
                thread.join()


@dataclass(frozen=True, eq=False)
class _Line(Generic[ReadT]):
    """A pipeline for batches: one crew reads, the other draws. An error in either is raised where
    the batch's result is requested.
    """

    maker: Maker[ReadT]
    memory: BatchMemory
    readers: _Crew
    drawers: _Crew

    def give(self, one: Slice) -> "Future[Finished]":
        """Queue the batch of a slice; returns its future."""
        future: Future[Finished] = Future()
        self.readers.give(partial(self._read, one, future))
        return future

    def _read(self, one: Slice, future: "Future[Finished]") -> None:
        begin, end = one
        try:
            read = self.maker.read(begin, end)
        except BaseException as error:
            future.set_exception(error)
        else:
            self.drawers.give(partial(self._draw, read, end - begin, future))

    def _draw(self, read: ReadT, count: int, future: "Future[Finished]") -> None:
        try:
            future.set_result(_make(self.maker, self.memory, read, count))
        except BaseException as error:
            future.set_exception(error)

    @property
    def has_ended(self) -> bool:
        """True once it was closed."""
        return self.drawers.has_ended

    def close(self) -> None:
        """End the threads."""
        for crew in (self.readers, self.drawers):
            crew.end()
        for crew in (self.readers, self.drawers):
            crew.join()


def _make(maker: Maker[ReadT], memory: BatchMemory, read: ReadT, count: int) -> Finished:
    """Draw a batch of ``count`` samples that were read, and convert it to tensors."""
    images = memory.take(count)
    made = maker.make(read, images)
    batch: Batch = {"img": images}
    for name, values in made.columns.items():
        batch[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return maker.finish(read, batch), made


def batches_in_order(
    maker: Maker[ReadT], slices: Iterable[Slice], *, batch_size: int, workers: int, prefetch: int
) -> Generator[Finished, None, None]:
    """The batch of each slice, in order, with ``workers`` * ``prefetch`` batches in flight.

    Of these, each worker draws one while the others are being read or are ready. With no workers
    each batch is made in the calling thread when it is requested. Closing the iterator ends the
    threads.

    Raises:
        Exception: the error of making a batch, in place of that batch.
        UsageError: the iterator was created in another process.
    """
    shape, dtype = maker.image
    pieces = workers * prefetch + _SPARE_PIECES
    memory = BatchMemory(pieces, (batch_size, *shape), dtype, device_in_use())
    if workers == 0:
        for begin, end in slices:
            yield _make(maker, memory, maker.read(begin, end), end - begin)
        return
    most = workers * prefetch
    readers = max(workers, min(most - workers, _READERS))
    line = _Line(maker, memory, _Crew(readers, "read"), _Crew(workers, "draw"))
    # At the interpreter's exit, a thread that returns from PyTorch would abort the process.
    atexit.register(line.close)
    try:
        yield from _ahead(line, iter(slices), most)
    finally:
        if not line.has_ended:  # else this is the interpreter's exit, and atexit may be gone
            atexit.unregister(line.close)
            line.close()


def _ahead(
    line: _Line[ReadT], slices: Iterator[Slice], most: int
) -> Generator[Finished, None, None]:
    """The batch of each slice, in order, with at most ``most`` queued or ready at a time."""
    given: deque[Future[Finished]] = deque()
    while True:
        check_process(line.readers.process)
        while len(given) < most and (one := next(slices, None)) is not None:
            given.append(line.give(one))
        if not given:
            return
        finished = _result(given.popleft())
        yield finished
        del finished  # or it would stay in memory while waiting for the next one


def _result(future: "Future[Finished]") -> Finished:
    """The result of a future, or its error.

    The package's own errors lose their traceback, which would keep batches in memory as long as
    somebody keeps the error.
    """
    try:
        return future.result()
    except RefitShardError as error:
        error.with_traceback(None)
        raise error from error.__cause__
    finally:
        del future
