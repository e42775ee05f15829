"""Batches made ahead by threads, in order.

Nearly all of the work is one compiled call a batch, without the interpreter's lock. So threads
scale with the cores, and nothing is forked or sent between processes.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from refit_shard.loaders.stream.memory import BatchMemory
from refit_shard.shards_spec.errors import RefitShardError, UsageError

Slice = tuple[int, int]
Batch = dict[str, Any]

# Beside those being made: the one that the loop works on, the next one, and a few that it may keep.
_SPARE_PIECES = 8


@dataclass(frozen=True)
class Made:
    """A batch but for its images: ``columns`` by name, and samples by source.

    ``replaced``: a line for each place that another sample than its own has taken.
    """

    columns: dict[str, Any]
    counts: NDArray[np.int64]
    replaced: tuple[str, ...]


class Maker(Protocol):
    """What makes batches; by several threads at once."""

    @property
    def image(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an image."""

    def make(self, begin: int, end: int, pixels: NDArray[Any]) -> Made:
        """Make the samples begin … end - 1, their images in ``pixels``."""


Finished = tuple[Batch, Made]
_Task = tuple["Future[Finished]", Callable[[], Finished]]


def _serve(tasks: "SimpleQueue[_Task | None]") -> None:
    """A thread's work, up to the first None."""
    while (task := tasks.get()) is not None:
        future, call = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # it is raised where the batch is waited for
                future.set_exception(error)
        del task, future, call  # or a batch would be held while the next task is waited for


class _Crew:
    """Threads for one iteration."""

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._process = os.getpid()
        self._threads = [
            threading.Thread(
                target=_serve, args=(self._tasks,), name=f"refit-shard-{number}", daemon=True
            )
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def give(self, call: Callable[[], Finished]) -> "Future[Finished]":
        """Have a batch made."""
        future: Future[Finished] = Future()
        self._tasks.put((future, call))
        return future

    def check_process(self) -> None:
        """Raise where this is a forked process, which has none of the threads."""
        if os.getpid() != self._process:
            raise UsageError(
                "this iterator's threads are in the process that began it; begin another one here"
            )

    def close(self, given: Iterable["Future[Finished]"]) -> None:
        """Cancel what was given and not begun, and end the threads."""
        if os.getpid() != self._process:
            return
        for future in given:
            future.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # it may be the one that collects garbage
                thread.join()


def _make(maker: Maker, memory: BatchMemory, piece: int | None, one: Slice) -> Finished:
    """The batch of a slice as tensors, its images in a piece of memory; None: in new memory."""
    begin, end = one
    shape, dtype = maker.image
    if piece is None:
        pixels = np.empty((end - begin, *shape), dtype)
    else:
        pixels = memory.array(piece, end - begin)
    try:
        made = maker.make(begin, end, pixels)
    except BaseException:
        if piece is not None:
            memory.give_back(piece)
        raise
    images = torch.from_numpy(pixels) if piece is None else memory.lend(piece, end - begin)
    batch: Batch = {"img": images}
    for name, values in made.columns.items():
        batch[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return batch, made


def batches_in_order(
    maker: Maker, slices: Iterable[Slice], *, batch_size: int, workers: int, prefetch: int
) -> Generator[Finished, None, None]:
    """Each slice's batch, in order; every worker, a thread, is up to ``prefetch`` batches ahead.

    With no workers a batch is made here, when it is asked for. Closing the iterator ends the
    threads.

    Raises:
        Exception: what making a batch raised, in its place.
        UsageError: the iterator was begun in another process.
    """
    shape, dtype = maker.image
    memory = BatchMemory(workers * prefetch + _SPARE_PIECES, (batch_size, *shape), dtype)
    calls = (partial(_make, maker, memory, memory.take(), one) for one in slices)
    if workers == 0:
        for call in calls:
            yield call()
        return
    yield from _ahead(calls, workers, workers * prefetch)


def _ahead(
    calls: Iterator[Callable[[], Finished]], workers: int, most: int
) -> Generator[Finished, None, None]:
    """What the calls give, in order, ``most`` of them given to the threads at a time."""
    crew = _Crew(workers)
    given: deque[Future[Finished]] = deque()
    try:
        while True:
            crew.check_process()
            while len(given) < most and (call := next(calls, None)) is not None:
                given.append(crew.give(call))
                del call
            if not given:
                return
            finished = _result(given.popleft())
            yield finished
            del finished  # or it would be held while the next one is waited for
    finally:
        crew.close(given)


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
