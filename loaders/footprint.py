"""Which MCUs of a stored crop an output square shows: what of its JPEG must be decoded."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards_spec.mcu import MCU, Region

Floats = NDArray[np.float64]

# Stored pixels beside a point that its colour depends on: one by bilinear interpolation, and two
# by libjpeg's interpolation of chroma, which weighs in the next chroma sample.
REACH = 3.0


def _corners(maps: Floats, res: int) -> Floats:
    """Middles of the output's four outermost pixels in stored pixels, (n, 4, 2), in a round."""
    last = res - 1.0
    output = np.array([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    corners: Floats = np.einsum("nij,mj->nmi", maps[:, :, :2], output) + maps[:, None, :, 2]
    return corners


def _extent(corners: Floats, rows: int) -> tuple[Floats, Floats]:
    """Least and greatest x (n, rows) of the squares within each row of MCUs, as far as they reach.

    Infinite, the least above the greatest, where a square does not come near a row. The extent of
    a convex shape in a band is that of its corners there and of where its edges cross the band's
    two sides.
    """
    top = np.arange(rows) * float(MCU) - REACH
    sides = np.stack([top, top + (MCU - 1) + 2 * REACH])  # (2, rows)
    x, y = corners[:, :, 0], corners[:, :, 1]
    dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (sides[None, :, :, None] - y[:, None, None, :]) / dy[:, None, None, :]
        crossing = x[:, None, None, :] + share * dx[:, None, None, :]
    crosses = (share >= 0.0) & (share <= 1.0)  # false where an edge is level: 0 / 0
    here = (y[:, None, :] >= sides[0][:, None]) & (y[:, None, :] <= sides[1][:, None])
    low = np.minimum(
        np.where(crosses, crossing, np.inf).min((1, 3)),
        np.where(here, x[:, None, :], np.inf).min(2),
    )
    high = np.maximum(
        np.where(crosses, crossing, -np.inf).max((1, 3)),
        np.where(here, x[:, None, :], -np.inf).max(2),
    )
    return low, high


def footprints(
    maps: Floats, heights: Sequence[int], widths: Sequence[int], res: int
) -> list[Region | None]:
    """The MCUs that each output (res, res) shows; None where it shows nothing of the stored crop.

    ``maps`` (n, 2, 3): affine maps from output to stored pixels.
    """
    rows = -(-max(heights) // MCU)
    low, high = _extent(_corners(maps, res), rows)
    columns = -(-np.asarray(widths) // MCU)
    seen = (low <= high) & (high >= -REACH) & (low <= columns[:, None] * MCU - 1 + REACH)
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
    return Region(top=top, first=first[top:end].tolist(), last=last[top:end].tolist())
