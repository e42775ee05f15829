"""Batches made ahead by threads, in order.

A batch is read, then drawn, each by one compiled call without the interpreter's lock, and each by
threads of its own: what comes next is read while this batch is drawn, so storage may answer late.
Threads scale with the cores, and nothing is forked or sent between processes.
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

# Beside those being made: the one that the loop works on, the next one, and a few that it may keep.
_SPARE_PIECES = 8
# Threads that read, beside one a worker: each has 32 reads in flight where storage answers late.
_READERS = 16


@dataclass(frozen=True)
class Made:
    """A batch but for its images: ``columns`` by name, and samples by source.

    ``replaced``: a line for each place that another sample than its own has taken.
    """

    columns: dict[str, Any]
    counts: NDArray[np.int64]
    replaced: tuple[str, ...]


ReadT = TypeVar("ReadT")


class Maker(Protocol[ReadT]):
    """What makes batches; by several threads at once."""

    @property
    def image(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of an image."""

    def read(self, begin: int, end: int) -> ReadT:
        """Read the samples begin … end - 1."""

    def make(self, read: ReadT, images: torch.Tensor) -> Made:
        """Make a batch of what was read, its images in ``images``."""

    def finish(self, read: ReadT, batch: Batch) -> Batch:
        """The batch as it is handed over."""


Finished = tuple[Batch, Made]


def check_process(began_in: int) -> None:
    """Refuse to go on in a forked process, which has none of the threads.

    Raises:
        UsageError: this is another process than ``began_in``.
    """
    if os.getpid() != began_in:
        raise UsageError(
            "this iterator's threads are in the process that began it; begin another one here"
        )


class _Crew:
    """Threads for one iteration, which do one kind of work in the order in which it is given."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = False
        self._process = os.getpid()
        self._threads = [
            threading.Thread(target=self._serve, name=f"refit-shard-{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        """A thread's work, up to the first None."""
        while (work := self._tasks.get()) is not None:
            if not self._ended:
                work()
            del work  # or a batch would be held while the next task is waited for

    def give(self, work: Callable[[], None]) -> None:
        """Have work done, which may raise nothing."""
        if not self._ended:
            self._tasks.put(work)

    def check_process(self) -> None:
        """See :func:`check_process`."""
        check_process(self._process)

    def end(self) -> None:
        """Begin nothing more of what was given."""
        self._ended = True

    def join(self) -> None:
        """Wait until what was begun is done and the threads have ended."""
        if os.getpid() != self._process:
            return
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # it may be the one that collects garbage
                thread.join()


@dataclass(frozen=True, eq=False)
class _Line(Generic[ReadT]):
    """The way of a batch: one crew reads it, the other draws it. What either raises is raised where
    the batch is waited for.
    """

    maker: Maker[ReadT]
    memory: BatchMemory
    readers: _Crew
    drawers: _Crew

    def give(self, one: Slice) -> "Future[Finished]":
        """Have the batch of a slice made."""
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

    def close(self) -> None:
        """End the threads."""
        for crew in (self.readers, self.drawers):
            crew.end()
        for crew in (self.readers, self.drawers):
            crew.join()


def _make(maker: Maker[ReadT], memory: BatchMemory, read: ReadT, count: int) -> Finished:
    """The batch of ``count`` samples that were read, as tensors."""
    images = memory.take(count)
    made = maker.make(read, images)
    batch: Batch = {"img": images}
    for name, values in made.columns.items():
        batch[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return maker.finish(read, batch), made


def batches_in_order(
    maker: Maker[ReadT], slices: Iterable[Slice], *, batch_size: int, workers: int, prefetch: int
) -> Generator[Finished, None, None]:
    """Each slice's batch, in order; every worker is up to ``prefetch`` batches ahead: it draws one
    while the others are being read, or are ready. So how far reads are ahead is the caller's
    choice, and takes no memory beside that of the batches in flight.

    With no workers a batch is made here, when it is asked for. Closing the iterator ends the
    threads.

    Raises:
        Exception: what making a batch raised, in its place.
        UsageError: the iterator was begun in another process.
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
    # Where the interpreter ends, a thread that comes back from PyTorch would abort the process.
    atexit.register(line.close)
    try:
        yield from _ahead(line, iter(slices), most)
    finally:
        atexit.unregister(line.close)
        line.close()


def _ahead(
    line: _Line[ReadT], slices: Iterator[Slice], most: int
) -> Generator[Finished, None, None]:
    """Each slice's batch, in order, ``most`` of them given to the threads at a time."""
    given: deque[Future[Finished]] = deque()
    while True:
        line.readers.check_process()
        while len(given) < most and (one := next(slices, None)) is not None:
            given.append(line.give(one))
        if not given:
            return
        finished = _result(given.popleft())
        yield finished
        del finished  # or it would be held while the next one is waited for


def _result(future: "Future[Finished]") -> Finished:
    """What a thread made, or its error; ours without the frames in which it came about, which hold
    memory as long as somebody keeps the error.
    """
    try:
        return future.result()
    except RefitShardError as error:
        error.with_traceback(None)
        raise error from error.__cause__
    finally:
        del future
