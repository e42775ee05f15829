"""Batches made ahead by worker processes, in order, in memory that they share with this one.

PyTorch's DataLoader starts and ends the processes and notices when one dies; a task is a slice of
the stream, and its result is a whole batch.
"""

import gc
import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from loaders.memory import BatchMemory, forking_workers
from shards_spec.errors import RefitShardError, UsageError
from shards_spec.process import settle_process

Slice = tuple[int, int]
Batch = dict[str, Any]

# Beside those being made: the one that the loop works on, the next one, and a few that it may keep.
_SPARE_PIECES = 8

# Results that are not done with. Were they only held by an iterator that is part of a cycle, the
# garbage collector would take their queues apart before the workers could be told to end, and that
# would be waited for, 5 s a worker.
_RUNNING: set[Iterator["_Result"]] = set()


@dataclass(frozen=True)
class Made:
    """A batch but for its images: ``columns`` by name, and samples by source.

    ``replaced``: a line for each place that another sample than its own has taken.
    """

    columns: dict[str, Any]
    counts: NDArray[np.int64]
    replaced: tuple[str, ...]


class Maker(Protocol):
    """What makes batches."""

    @property
    def image(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an image."""

    def make(self, begin: int, end: int, pixels: NDArray[Any]) -> Made:
        """Make the samples begin … end - 1, their images in ``pixels``."""


@dataclass(frozen=True)
class _Task:
    """A slice of the stream, and the piece of memory for its images; None if all are held."""

    begin: int
    end: int
    piece: int | None


@dataclass(frozen=True)
class _Result:
    """``pixels`` only where the task had no piece of memory."""

    task: _Task
    made: Made | RefitShardError
    pixels: NDArray[Any] | None


class _Work(Dataset[_Result]):
    """Runs in a worker; a task is its index."""

    def __init__(self, maker: Maker, memory: BatchMemory) -> None:
        self._maker = maker
        self._memory = memory

    def __getitem__(self, task: _Task) -> _Result:
        count = task.end - task.begin
        shape, dtype = self._maker.image
        if task.piece is None:
            pixels = np.empty((count, *shape), dtype)
        else:
            pixels = self._memory.array(task.piece, count)
        try:
            made = self._maker.make(task.begin, task.end, pixels)
        except RefitShardError as error:
            return _Result(task, error, None)
        return _Result(task, made, pixels if task.piece is None else None)


def _settle(_worker: int) -> None:
    """Set a worker up; the collector leaves alone what it shares with its parent.

    It ends without handing over what is still in its queue: where the parent was killed nobody
    takes it, and the worker would wait for ever.
    """
    settle_process()
    gc.freeze()
    Finalize(None, os._exit, args=(0,), exitpriority=0)


def _results(work: _Work, tasks: Iterable[_Task], workers: int, prefetch: int) -> Iterator[_Result]:
    if workers == 0:
        return (work[task] for task in tasks)
    if multiprocessing.current_process().daemon:
        raise UsageError(
            f"num_workers={workers}: this process is itself a worker (daemonic), which can have "
            "no workers of its own; pass num_workers=0"
        )
    loader = DataLoader(
        work,
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=lambda result: result,
        worker_init_fn=_settle,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # so that the global one is not drawn from
    )
    with _without_opencvs_threads(), forking_workers():
        return iter(loader)


@contextmanager
def _without_opencvs_threads() -> Iterator[None]:
    """End OpenCV's threads while workers are forked: a child that believed it had them would wait
    for them for ever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def batches_in_order(
    maker: Maker, slices: Iterable[Slice], *, batch_size: int, workers: int, prefetch: int
) -> Generator[tuple[Batch, Made], None, None]:
    """Each slice's batch, in order; every worker is up to ``prefetch`` batches ahead.

    With no workers a batch is made here, when it is asked for. Closing the iterator ends the
    workers; no process, thread or file stays.

    Raises:
        RefitShardError: what making a batch raised, in its place; or a worker was killed while
            this waited for a batch. If it is killed at another time, PyTorch raises its
            RuntimeError in the main thread, wherever that is.
        UsageError: this process may have no children.
    """
    shape, dtype = maker.image
    memory = BatchMemory(workers * prefetch + _SPARE_PIECES, (batch_size, *shape), dtype)
    tasks = (_Task(begin, end, memory.take()) for begin, end in slices)
    results = _results(_Work(maker, memory), tasks, workers, prefetch)
    _RUNNING.add(results)
    try:
        while (result := _next(results)) is not None:
            finished = _finished(result, memory)
            del result  # or it would hold memory while the loop works
            yield finished
            del finished
    finally:
        _RUNNING.discard(results)
        del results  # ends the workers, also where somebody keeps the error and so this frame


def _next(results: Iterator[_Result]) -> _Result | None:
    """The next result, None after the last.

    Raises:
        RefitShardError: a worker was killed.
    """
    try:
        return next(results, None)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        said = str(error).splitlines()[0].rstrip(". ")
    # This frame stays as long as the error; nor is it from the other one, whose frames have them.
    del results
    raise RefitShardError(
        f"a loader's worker process died ({said}); if it was killed for its memory, lower "
        "num_workers or prefetch; a saved state goes on from here"
    )


def _finished(result: _Result, memory: BatchMemory) -> tuple[Batch, Made]:
    """The batch of a result as tensors; raises what was raised where it was made."""
    task, made = result.task, result.made
    if isinstance(made, RefitShardError):
        raise made
    batch: Batch = {
        "img": torch.from_numpy(result.pixels)
        if task.piece is None
        else memory.lend(task.piece, task.end - task.begin)
    }
    for name, values in made.columns.items():
        batch[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return batch, made
