"""Counts and logs damaged samples that were replaced by others."""

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_SAID_IN_FULL = 10


class Replaced:
    """Counts a loader's replaced samples, all workers together, as batches are received.

    Logs the first ten one by one, then each time the count reaches a power of two, and the number
    of each epoch at its end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def receive(self, samples: Sequence[str]) -> None:
        """Count replaced samples; each is a text that says where it is and what is wrong."""
        for sample in samples:
            self.count += 1
            if self.count <= _SAID_IN_FULL:
                self.first.append(sample)
                logger.warning("replaced: %s", sample)
            elif self.count & (self.count - 1) == 0:
                logger.warning("replaced: %d samples so far, the last: %s", self.count, sample)

    def end_epoch(self, before: int, received: int) -> None:
        """Log how many of an epoch's samples were replaced, if any.

        ``before``: the count when the epoch began. ``received``: number of samples in the epoch.
        """
        if self.count > before:
            logger.warning(
                "replaced: %d of the %d samples received in this epoch; run refit-shard verify",
                self.count - before,
                received,
            )
