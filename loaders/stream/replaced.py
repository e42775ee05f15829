"""Counts and logs the damaged samples that were replaced by others."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_SAID_IN_FULL = 10


class Replaced:
    """Counts replaced samples over a loader's life, as batches are received, so for all workers
    together.

    The first ten are logged one by one, then each time the count reaches a power of two, and each
    epoch's sum at its end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def receive(self, samples: Sequence[str]) -> None:
        """Count replaced samples: a text for each, which says where it lies and what is wrong with
        it.
        """
        for sample in samples:
            self.count += 1
            if self.count <= _SAID_IN_FULL:
                self.first.append(sample)
                logger.warning("replaced: %s", sample)
            elif self.count & (self.count - 1) == 0:
                logger.warning("replaced: %d samples so far, the last: %s", self.count, sample)

    def end_epoch(self, before: int, received: int) -> None:
        """Log how many of an epoch's samples were replaced, if any; ``before``: the count at its
        beginning.
        """
        if self.count > before:
            logger.warning(
                "replaced: %d of the %d samples received in this epoch; run refit-shard verify",
                self.count - before,
                received,
            )
