"""The iterator of a loader: the batches of an epoch, or of the rest of one."""

import time
from collections.abc import Callable, Generator, Iterator
from inspect import GEN_RUNNING, getgeneratorstate

from refit_shard.loaders.stream.workers import Batch, Made
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.forks import ForkLock


class Iteration(Iterator[Batch]):
    """The batches of one iteration of a loader, in order.

    The iterator and its workers end when it is closed or no longer referenced. A loader has one
    iterator at a time: a newer iterator ends the older one, as do ``load_state_dict`` and
    ``set_epoch``; ``next`` on the ended one raises UsageError. Threads that call it at the same
    time take turns.

    ``steps``: number of batches. ``turn``: the lock that a thread holds while it gets a batch or
    ends the iterator. ``receive`` is called with each batch and the time at which it was asked for,
    just before the batch is returned; ``finish`` is called after the last batch.
    """

    def __init__(
        self,
        batches: Generator[tuple[Batch, Made], None, None],
        steps: int,
        turn: ForkLock,
        receive: Callable[[Made, float], None],
        finish: Callable[[], None],
    ) -> None:
        self.steps = steps
        self._batches = batches
        self._turn = turn
        # None after the end, so that a kept iterator keeps no loader and no open file alive.
        self._calls: tuple[Callable[[Made, float], None], Callable[[], None]] | None
        self._calls = receive, finish
        self._ended_by = ""

    @property
    def is_running(self) -> bool:
        """True while more batches may come."""
        return self._calls is not None

    def __next__(self) -> Batch:
        with self._turn:
            receive, finish = self._going_on()
            asked = time.perf_counter()
            try:
                batch, made = next(self._batches)
            except StopIteration:
                self._calls = None
                finish()
                raise
            except BaseException:
                self._calls = None
                raise
            self._going_on()  # it may have ended meanwhile, by this very thread's signal handler
            receive(made, asked)
            return batch

    def _going_on(self) -> tuple[Callable[[Made, float], None], Callable[[], None]]:
        """The calls of an iteration that has not ended.

        Raises:
            UsageError: something else has ended it.
            StopIteration: it has come to its end.
        """
        if self._ended_by:
            raise UsageError(
                f"this iterator of the loader was ended by {self._ended_by}; a loader has one "
                "iterator at a time: for a second one, make another loader"
            )
        if self._calls is None:
            raise StopIteration
        return self._calls

    def close(self) -> None:
        """End the iterator and its workers."""
        with self._turn:
            self._calls = None
            if getgeneratorstate(self._batches) != GEN_RUNNING:  # not called from within
                self._batches.close()

    def end_by(self, what: str) -> None:
        """Close the iterator; ``next`` then raises an error that names ``what`` ended it."""
        with self._turn:
            if self.is_running:
                self._ended_by = what
                self.close()
