"""Which MCUs of a stored crop an output square shows: what of its JPEG must be decoded."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.mcu import MCU, Region

Floats = NDArray[np.float64]

# Stored pixels beside a point that its colour depends on: one by bilinear interpolation, and two
# by libjpeg's interpolation of chroma, which weighs in the next chroma sample.
REACH = 3.0
_MAX_SIDE = 0xFFFF  # of any JPEG: a damaged index may say anything


def _corners(maps: Floats, res: int) -> Floats:
    """Middles of the output's four outermost pixels in stored pixels, (n, 4, 2), in a round."""
    last = res - 1.0
    output = np.array([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    corners: Floats = np.einsum("nij,mj->nmi", maps[:, :, :2], output) + maps[:, None, :, 2]
    return corners


def _extent(corners: Floats, rows: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Least and greatest x (n, rows) of each square in each row of MCUs, and whether it is there.

    A row's band reaches :data:`REACH` beyond it. The left outline of a turned square is convex:
    from its leftmost corner it goes up along one edge and down along another. So the least x in a
    band is found at the y of that corner, or as near to it as the band comes.
    """
    top = np.arange(rows) * float(MCU) - REACH
    bottom = top + (MCU - 1) + 2 * REACH
    y = corners[:, :, 1]
    highest, lowest = y.min(1)[:, None], y.max(1)[:, None]
    first, last = np.maximum(top, highest), np.minimum(bottom, lowest)
    return (
        _outline(corners, first, last, corners[:, :, 0].argmin(1), np.maximum),
        _outline(corners, first, last, corners[:, :, 0].argmax(1), np.minimum),
        first <= last,
    )


def _outline(
    corners: Floats, first: Floats, last: Floats, corner: NDArray[np.int64], outer: np.ufunc
) -> Floats:
    """x (n, rows) of the outline through a corner, in ``first`` to ``last`` nearest to its y."""
    every = np.arange(len(corners))
    x, y = corners[every, corner].T[:, :, None]
    away = np.clip(y, first, last) - y
    lines = []
    for neighbour in (corner - 1, (corner + 1) % 4):
        dx, dy = (corners[every, neighbour] - corners[every, corner]).T[:, :, None]
        level = np.abs(dy) < 1e-9  # then no y lies beyond the corner on this side
        lines.append(np.where(level, 0.0, dx / np.where(level, 1.0, dy)) * away)
    found: Floats = x + outer(*lines)
    return found


def footprints(
    maps: Floats, heights: Sequence[int], widths: Sequence[int], res: int
) -> list[Region | None]:
    """The MCUs that each output (res, res) shows; None where it shows nothing of the stored crop.

    ``maps`` (n, 2, 3): affine maps from output to stored pixels, which turn and mirror, and then
    stretch along the axes.
    """
    rows = -(-min(max(heights), _MAX_SIDE) // MCU)
    low, high, seen = _extent(_corners(maps, res), rows)
    columns = -(-np.asarray(widths) // MCU)
    seen &= (high >= -REACH) & (low <= columns[:, None] * MCU - 1 + REACH)
    seen &= np.arange(rows) < -(-np.asarray(heights) // MCU)[:, None]
    edge = columns[:, None] - 1
    first = np.clip(np.floor((np.where(seen, low, 0.0) - REACH) / MCU), 0, edge).astype(np.int64)
    last = np.clip(np.floor((np.where(seen, high, 0.0) + REACH) / MCU), 0, edge).astype(np.int64)
    return [_region(*one) for one in zip(seen, first, last, strict=True)]


def _region(
    seen: NDArray[np.bool_], first: NDArray[np.int64], last: NDArray[np.int64]
) -> Region | None:
    """The region of one output; the rows that a convex shape is seen in follow on each other."""
    rows = np.flatnonzero(seen)
    if not len(rows):
        return None
    top, end = int(rows[0]), int(rows[-1]) + 1
    return Region.of(top, first[top:end].tolist(), last[top:end].tolist())
