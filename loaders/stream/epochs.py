"""Epochs: where each begins and ends, and which positions of each step a rank gets.

The stream has no end. An epoch is a number of its samples, and the next epoch begins where the last
received batch ended. So no sample is skipped, however an iteration ends, and the number of an epoch
does not decide which samples are in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from refit_shard.loaders.stream.mix import FARTHEST
from refit_shard.shards_spec.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EpochShape:
    """How an epoch is divided into steps, and each step among the ranks.

    ``samples``: number in an epoch, all ranks together. ``batch_size``: of one rank. Samples at the
    end that do not fill a step become the first of the next epoch; with ``drop_last=False`` only if
    they are fewer than the ranks.

    Raises:
        UsageError: an epoch has too few samples for one step.
    """

    samples: int
    batch_size: int
    world_size: int
    drop_last: bool

    def __post_init__(self) -> None:
        if self.whole:
            return
        if self.drop_last:
            raise UsageError(
                f"an epoch of {self.samples} samples is smaller than one batch of {self.step} "
                "(all ranks); lower batch_size, raise epoch_samples, or pass drop_last=False"
            )
        raise UsageError(
            f"an epoch of {self.samples} samples is smaller than the number of ranks, "
            f"{self.world_size}: some ranks would get none; raise epoch_samples"
        )

    @property
    def step(self) -> int:
        """Number of samples in a step, all ranks together."""
        return self.batch_size * self.world_size

    @property
    def whole(self) -> int:
        """Number of positions of a whole epoch."""
        return self.taken(self.samples)

    def taken(self, left: int) -> int:
        """How many of an epoch's remaining ``left`` samples are in its steps."""
        over = max(0, left) % self.step
        return max(0, left) - (over if self.drop_last or over < self.world_size else 0)

    def steps(self, taken: int) -> int:
        """Number of steps of ``taken`` positions; the same on every rank."""
        return -(-taken // self.step)

    def slices(self, first: int, end: int, rank: int) -> Iterator[tuple[int, int]]:
        """(begin, end) of a rank's part of each step; sizes differ by at most 1 between ranks."""
        while first < end:
            count = min(self.step, end - first)
            yield (
                first + count * rank // self.world_size,
                first + count * (rank + 1) // self.world_size,
            )
            first += count


# Number of epochs whose first position is remembered.
_KNOWN_BEGINS = 1000


class Epochs:
    """The current epoch, how far the training loop is in it, and what comes next.

    ``epoch``: its number. ``begin``: its first position. ``position``: the position after the last
    received step.
    """

    def __init__(self, shape: EpochShape) -> None:
        self._shape = shape
        self.resume(0, 0, 0, 0)

    def resume(self, epoch: int, begin: int, position: int, earliest: int) -> None:
        """Continue at ``position`` of an epoch that began at ``begin``.

        If no step of that epoch is left, the next one follows. ``set_epoch`` cannot go back to
        before ``earliest``.
        """
        self.epoch, self.begin, self.position = epoch, begin, position
        self._earliest = earliest
        self._begins = {epoch: begin}
        # _pending: the next iteration is this epoch or its rest. _resumed: nothing was received
        # since the resume, so set_epoch may ask for this epoch even if nothing of it is left.
        self._pending = self._rest() > 0
        self._resumed = True

    def _rest(self) -> int:
        """Number of positions in the remaining steps of this epoch."""
        return self._shape.taken(self.begin + self._shape.samples - self.position)

    @property
    def coming(self) -> int:
        """Number of steps of the next iteration."""
        return self._shape.steps(self._rest() if self._pending else self._shape.whole)

    def start(self) -> tuple[int, int]:
        """Begin an iteration; returns the range (first, end) of its positions."""
        if not self._pending:
            self._go_to(self.epoch + 1, self.position)
        self._end = self.position + self._rest()
        return self.position, self._end

    def receive(self) -> None:
        """Count the next step of the iteration as received."""
        self.position = min(self.position + self._shape.step, self._end)
        self._pending = self._resumed = False

    def finish(self) -> None:
        """Record that the iteration ran to its end."""
        self._pending = self._resumed = False

    def set_epoch(self, epoch: int) -> bool:
        """Go to the beginning of an epoch; False, without effect, if that epoch is next anyway.

        After a resume, the resumed epoch is the next one, even if nothing of it is left. The epoch
        after the current one begins where the current one was left, and later ones follow in whole
        epochs. An earlier epoch begins where it began before; if that is not known, it is counted
        back in whole epochs from the earliest known one.

        Raises:
            UsageError: the epoch would begin before the stream, or too far away.
        """
        if epoch == self.epoch and (self._pending or self._resumed):
            self._pending = True
            return False
        begin = self._begin_of(epoch)
        if begin < self._earliest:
            changed = f"{self._earliest}, where the ratios changed"
            raise UsageError(
                f"set_epoch: epoch {epoch} would begin at position {begin}, before "
                f"{changed if self._earliest else 'the stream'}"
            )
        if begin >= FARTHEST:
            raise UsageError(f"set_epoch: epoch {epoch} is too far: position {begin}")
        self._go_to(epoch, begin)
        return True

    def _begin_of(self, epoch: int) -> int:
        if epoch > self.epoch:
            left = self.position > self.begin
            end = self.position if left else self.begin + self._shape.whole
            return end + (epoch - self.epoch - 1) * self._shape.whole
        known = min(one for one in self._begins if one >= epoch)
        return self._begins[known] - (known - epoch) * self._shape.whole

    def _go_to(self, epoch: int, begin: int) -> None:
        self.epoch, self.begin, self.position = epoch, begin, begin
        while self._begins and next(reversed(self._begins)) >= epoch:
            self._begins.popitem()
        self._begins[epoch] = begin
        if len(self._begins) > _KNOWN_BEGINS:
            del self._begins[next(iter(self._begins))]
        self._pending, self._resumed = True, False
