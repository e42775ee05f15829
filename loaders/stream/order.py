"""The order of a dataset's samples: endless passes over its rows, each in another permutation.

By default a pass is one permutation of all rows, so all shards are read all the time. With a
window, the shards are read in a random order, and the rows of a few shards are mixed at a time.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.philox import WORDS, permutation, uniforms
from refit_shard.shards_spec.forks import ForkLock

Ints = NDArray[np.int64]

# Batches in flight may be in two passes, and the replacement of a damaged sample in a third.
_KEPT_PASSES = 3


class Passes:
    """Maps draws of a dataset to rows: draw d is entry ``d % rows`` of the permutation of pass ``d
    // rows``.

    So within a pass every row occurs once, whichever rank or worker reads it.

    ``window``: number of shards that are mixed at a time, or None for all. ``shard_rows``: rows of
    each shard. The rows of the p-th shard of a pass are spread evenly over [p, p + window),
    so at most window + 1 shards are being read at a time (fewer at both ends of a pass), and a new
    shard is opened when another one is finished.
    """

    def __init__(
        self, shard_rows: Sequence[int], seed: int, name: str, window: int | None = None
    ) -> None:
        self.rows = sum(shard_rows)
        self._shard_rows = shard_rows
        self._window = window
        self._seed = seed
        self._name = name
        self._orders: dict[int, Ints] = {}
        self._lock = ForkLock()

    def _shuffled(self, purpose: str) -> Ints:
        """The rows in the order of one pass."""
        if self._window is None:
            return permutation(self._seed, purpose, self.rows)
        places = permutation(self._seed, f"{purpose}/shards", len(self._shard_rows))
        spread = uniforms(self._seed, purpose, 0, -(-self.rows // WORDS), WORDS).ravel()[
            : self.rows
        ]
        return np.argsort(
            np.repeat(places, self._shard_rows) + self._window * spread, kind="stable"
        )

    def _order(self, number: int) -> Ints:
        with self._lock:
            order = self._orders.get(number)
            if order is None:
                order = self._shuffled(f"pass/{self._name}/{number}")
                while len(self._orders) >= _KEPT_PASSES:
                    del self._orders[min(self._orders)]
                self._orders[number] = order
            return order

    def locate(self, draws: Ints) -> Ints:
        """Rows of the given draws."""
        number, index = np.divmod(draws, self.rows)
        rows = np.empty_like(draws)
        for one in np.unique(number).tolist():
            mine = number == one
            rows[mine] = self._order(one)[index[mine]]
        return rows


class Sequential:
    """Maps draw d to row ``d % rows``: the order of an evaluation."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def locate(self, draws: Ints) -> Ints:
        """Rows of the given draws."""
        return draws % self.rows
