"""The order of a source: endless passes over its rows, each a permutation of its own."""

import threading

import numpy as np
from numpy.typing import NDArray

from loaders.random import permutation

Ints = NDArray[np.int64]

# Batches in flight may lie on both sides of a pass's end, and a replaced sample one further.
_KEPT_PASSES = 3


class Passes:
    """Draw d of a source is row ``permutation(pass d // rows)[d % rows]``.

    So within a pass no row repeats and none is left out, whatever reads it.
    """

    def __init__(self, rows: int, seed: int, name: str) -> None:
        self.rows = rows
        self._seed = seed
        self._name = name
        self._orders: dict[int, Ints] = {}
        self._lock = threading.Lock()

    def _order(self, number: int) -> Ints:
        with self._lock:
            order = self._orders.get(number)
            if order is None:
                purpose = f"pass/{self._name}/{number}"
                order = permutation(self._seed, purpose, self.rows)
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
    """Draw d is row d, again and again: the order of an evaluation."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def locate(self, draws: Ints) -> Ints:
        """Rows of the given draws."""
        return draws % self.rows
