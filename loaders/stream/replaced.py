"""What a loop received in the place of damaged samples: counted, and said a few times."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_SAID_IN_FULL = 10


class Replaced:
    """Counts over a loader's life, where batches are received: so of all workers together.

    The first ten are logged one by one, then every power of two, and each epoch's sum at its end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def receive(self, samples: Sequence[str]) -> None:
        """Samples that were replaced: a line for each, where it lies and what is wrong."""
        for sample in samples:
            self.count += 1
            if self.count <= _SAID_IN_FULL:
                self.first.append(sample)
                logger.warning("replaced: %s", sample)
            elif self.count & (self.count - 1) == 0:
                logger.warning("replaced: %d samples so far, the last: %s", self.count, sample)

    def end_epoch(self, before: int, received: int) -> None:
        """Say how many of an epoch's samples were replaced, if any; ``before``: the count when it
        began.
        """
        if self.count > before:
            logger.warning(
                "replaced: %d of the %d samples received in this epoch; run refit-shard verify",
                self.count - before,
                received,
            )
