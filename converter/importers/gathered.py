"""Collects the rows of an importer: columns in parts, rows left out, and missing keys."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.columns import ROW_SHAPES


def fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    """True if a shape is the wanted one, in which -1 means any length."""
    return len(found) == len(wanted) and all(
        side in (-1, length) for side, length in zip(wanted, found, strict=True)
    )


@dataclass(kw_only=True)
class Gathered:
    """The rows of one dataset, in order.

    ``dataset``: its name. ``on_bytes``: called with the number of source bytes that were read since
    the last call. ``parts``: arrays of each key of the npz, to be concatenated. ``left_out``:
    number of rows by reason. ``absent``: keys that the npz will not have, with the reason.
    ``notes``: other texts for the user. ``rows``: number of rows so far.
    """

    dataset: str
    on_bytes: Callable[[int], None]
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rows: int = 0

    def add(self, **columns: Any) -> None:
        """Append rows. The keys must be the same each time, and the shapes those that a
        build reads.
        """
        count = len(columns["imgname"])
        arrays = {key: np.asarray(values) for key, values in columns.items()}
        for key, values in arrays.items():
            if values.shape != (count, *ROW_SHAPES[key]):
                raise ValueError(f"{key}: {count} rows of shape {values.shape}")
        if self.parts and self.parts.keys() != arrays.keys():
            raise ValueError(f"rows of {sorted(arrays)} after rows of {sorted(self.parts)}")
        if count:
            for key, values in arrays.items():
                self.parts.setdefault(key, []).append(values)
        self.rows += count

    def leave_out(self, reason: str, count: int) -> None:
        """Count rows that are left out of the npz."""
        if count:
            self.left_out[reason] += int(count)

    def lack(self, why: str, *keys: str) -> None:
        """Note keys that the npz will not have, and the reason."""
        self.absent |= dict.fromkeys(keys, why)
