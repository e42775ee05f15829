"""Repeated measurements, interleaved."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of repeats."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """The median, minimum and maximum of the values."""
    return Spread(statistics.median(values), min(values), max(values))


def interleaved(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every case once in each round, after one unmeasured round; every second round backwards.

    If the machine gets slower or faster meanwhile, all cases are affected alike. So ratios within a
    round are meaningful even if the figures themselves are not.
    """
    measured: dict[str, list[T]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for number in range(rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            measured[name].append(cases[name]())
    return measured


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Ratios of one case to another, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])
