"""Repeats of measurements, taken in turns."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of some repeats, and the least and the most of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise repeats."""
    return Spread(statistics.median(values), min(values), max(values))


def interleaved(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every case once a round, every other round backwards, after one unmeasured round.

    A machine that grows slower or faster while this runs does so for all cases alike, so ratios
    within one round are meaningful where the figures themselves are not.
    """
    measured: dict[str, list[T]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for number in range(rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            measured[name].append(cases[name]())
    return measured


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round by round, one case over another."""
    return spread([a / b for a, b in zip(above, below, strict=True)])
