"""The iterator of a loader: the batches of an epoch, or of the rest of one."""

import time
from collections.abc import Callable, Generator, Iterator

from refit_shard.loaders.stream.workers import Batch, Made
from refit_shard.shards_spec.errors import UsageError


class Iteration(Iterator[Batch]):
    """The batches of one iteration of a loader, in order.

    The iterator and its workers end when it is closed or no longer referenced. A loader has one
    iterator at a time: a newer iterator ends the older one, as do ``load_state_dict`` and
    ``set_epoch``; ``next`` on the ended one raises UsageError.

    ``steps``: number of batches. ``receive`` is called with each batch and the time at which it was
    asked for, just before the batch is returned; ``finish`` is called after the last batch.
    """

    def __init__(
        self,
        batches: Generator[tuple[Batch, Made], None, None],
        steps: int,
        receive: Callable[[Made, float], None],
        finish: Callable[[], None],
    ) -> None:
        self.steps = steps
        self._batches = batches
        # None after the end, so that a kept iterator keeps no loader and no open file alive.
        self._calls: tuple[Callable[[Made, float], None], Callable[[], None]] | None
        self._calls = receive, finish
        self._ended_by = ""

    @property
    def is_running(self) -> bool:
        """True while more batches may come."""
        return self._calls is not None

    def __next__(self) -> Batch:
        if self._ended_by:
            raise UsageError(
                f"this iterator of the loader was ended by {self._ended_by}; a loader has one "
                "iterator at a time: for a second one, make another loader"
            )
        if self._calls is None:
            raise StopIteration
        receive, finish = self._calls
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
        receive(made, asked)
        return batch

    def close(self) -> None:
        """End the iterator and its workers."""
        self._calls = None
        self._batches.close()

    def end_by(self, what: str) -> None:
        """Close the iterator; ``next`` then raises an error that names ``what`` ended it."""
        if self.is_running:
            self._ended_by = what
            self.close()
