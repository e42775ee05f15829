"""Batches made ahead by threads, in order.

A batch is read, then drawn, each by one compiled call without the interpreter's lock, and each by
threads of its own: what comes next is read while this batch is drawn, so storage may answer late.
Threads scale with the cores, and nothing is forked or sent between processes.
"""

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
Result = TypeVar("Result")


class Maker(Protocol[ReadT]):
    """What makes batches; by several threads at once."""

    @property
    def image(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of an image."""

    def read(self, begin: int, end: int) -> ReadT:
        """Read the samples begin … end - 1."""

    def make(self, read: ReadT, images: torch.Tensor) -> Made:
        """Make a batch of what was read, its images in ``images``."""


Finished = tuple[Batch, Made]


class _Crew(Generic[Result]):
    """Threads for one iteration, which do one kind of work in the order in which it is given."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[Result], Callable[[], Result]] | None] = SimpleQueue()
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
        while (task := self._tasks.get()) is not None:
            future, call = task
            if self._ended:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # it is raised where the result is waited for
                    future.set_exception(error)
            del task, future, call  # or a batch would be held while the next task is waited for

    def give(self, call: Callable[[], Result]) -> "Future[Result]":
        """Have work done."""
        future: Future[Result] = Future()
        self._tasks.put((future, call))
        return future

    def check_process(self) -> None:
        """Raise where this is a forked process, which has none of the threads."""
        if os.getpid() != self._process:
            raise UsageError(
                "this iterator's threads are in the process that began it; begin another one here"
            )

    def end(self) -> None:
        """Begin no work any more that was given: it is cancelled."""
        self._ended = True
        for _ in self._threads:
            self._tasks.put(None)

    def join(self) -> None:
        """Wait for the threads, which have ended once what they had begun is done."""
        if os.getpid() != self._process:
            return
        for thread in self._threads:
            if thread is not threading.current_thread():  # it may be the one that collects garbage
                thread.join()


def _make(
    maker: Maker[ReadT], memory: BatchMemory, read: Callable[[], ReadT], count: int
) -> Finished:
    """The batch of ``count`` samples, as tensors, once they are read."""
    samples = read()
    images = memory.take(count)
    made = maker.make(samples, images)
    batch: Batch = {"img": images}
    for name, values in made.columns.items():
        batch[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return batch, made


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
            yield _make(maker, memory, partial(maker.read, begin, end), end - begin)
        return
    yield from _ahead(maker, memory, iter(slices), workers, prefetch)


def _ahead(
    maker: Maker[ReadT], memory: BatchMemory, slices: Iterator[Slice], workers: int, prefetch: int
) -> Generator[Finished, None, None]:
    """Each slice's batch, in order, by threads that read and others that draw."""
    most = workers * prefetch
    readers: _Crew[ReadT] = _Crew(max(workers, min(most - workers, _READERS)), "read")
    drawers: _Crew[Finished] = _Crew(workers, "draw")
    given: deque[Future[Finished]] = deque()
    try:
        while True:
            drawers.check_process()
            while len(given) < most and (one := next(slices, None)) is not None:
                begin, end = one
                read = readers.give(partial(maker.read, begin, end)).result
                given.append(drawers.give(partial(_make, maker, memory, read, end - begin)))
                del read  # or what was read would be held for as long as this waits
            if not given:
                return
            finished = _result(given.popleft())
            yield finished
            del finished  # or it would be held while the next one is waited for
    finally:
        for crew in (drawers, readers):
            crew.end()
        readers.join()
        drawers.join()


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
