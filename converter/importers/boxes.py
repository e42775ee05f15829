"""Computes SPIN's boxes: centre and longer side of an extent."""

import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.geometry import BOX_UNIT_PX

Array = NDArray[np.float64]


def box_of_extent(low: Array, high: Array, factor: float) -> tuple[Array, Array]:
    """Centre (n, 2), px, and scale (n,) of boxes around the extents ``low`` to ``high`` (n, 2).

    ``center = (low + high) / 2``, ``scale = factor * max(width, height) / 200``, as all of SPIN's
    scripts have it (datasets/preprocess).
    """
    return (high + low) / 2, factor * (high - low).max(axis=1) / BOX_UNIT_PX


def box_of_points(points: Array, counted: NDArray[np.bool_], factor: float) -> tuple[Array, Array]:
    """Centre (n, 2), px, and scale (n,) of the boxes around the points (n, k, 2) that are
    ``counted`` (n, k); at least one a row.
    """
    low = np.where(counted[:, :, None], points, np.inf).min(axis=1)
    high = np.where(counted[:, :, None], points, -np.inf).max(axis=1)
    return box_of_extent(low, high, factor)


def extent_of_mask(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the pixels that are set in a mask (H, W), x1 and y1 exclusive; None if no
    pixel is set.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
