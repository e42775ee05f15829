"""Checks that every row of the npz is exactly once in a shard, in quarantine or left out."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_SHOWN = 5


def misplaced(
    source_rows: int,
    left_out: Iterable[tuple[int, int]],
    in_shards: Iterable[NDArray[np.int64]],
    in_quarantine: Sequence[int],
) -> str | None:
    """A text that names the rows that are missing, there more than once, or unknown; None if each
    of ``source_rows`` rows is exactly once in a shard, in quarantine or in a run (begin, end) of
    ``left_out``.
    """
    places = [*in_shards, np.array(in_quarantine, np.int64)]
    places += [np.arange(begin, end) for begin, end in left_out]
    every = np.concatenate(places)
    known = every[(every >= 0) & (every < source_rows)]
    times = np.bincount(known, minlength=source_rows)
    wrong = {
        "missing": np.flatnonzero(times == 0),
        "there more than once": np.flatnonzero(times > 1),
        "unknown": np.setdiff1d(every, known),
    }
    found = [f"{len(rows)} {what} ({_some(rows)})" for what, rows in wrong.items() if len(rows)]
    return ", ".join(found) or None


def _some(rows: NDArray[np.int64]) -> str:
    """The numbers of a few rows."""
    shown = ", ".join(str(row) for row in rows[:_SHOWN].tolist())
    return f"row {shown}" + (", …" if len(rows) > _SHOWN else "")
