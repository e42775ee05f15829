"""Crops to the upper or lower body: a smaller box inside the stored box."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Draws
from refit_shard.loaders.items.effects import BODIES, LEAST_SHARE
from refit_shard.shards_spec.geometry import BOX_UNIT_PX, box_side
from refit_shard.shards_spec.joints import PLACE

# Columns by name: a dict of arrays or a structured array.
Columns = Mapping[str, NDArray[Any]] | NDArray[np.void]

# A box's side is this times the larger side of its joints' bounding box, as in SPIN's npz files.
MARGIN = 1.2


def _places(*words: str) -> NDArray[np.int64]:
    """Indices of the joints whose names contain one of the words."""
    found = [place for name, place in PLACE.items() if any(word in name for word in words)]
    return np.array(found)


_HIPS = _places("hip", "pelvis")
_SHOULDERS = _places("shoulder")
_LEGS = _places("knee", "ankle", "toe", "heel")
_KNEES_DOWN = _places("knee", "ankle")
_UPPER = np.setdiff1d(np.arange(len(PLACE)), _LEGS)
_LOWER = np.union1d(_HIPS, _LEGS)
# For each half: the joints that the crop shows, and groups of joints; at least one joint of each
# group must be visible.
_SHOWN = {"upper": (_UPPER, (_SHOULDERS, _HIPS)), "lower": (_LOWER, (_HIPS, _KNEES_DOWN))}


def shown_boxes(columns: Columns, draws: Draws) -> dict[str, NDArray[Any]]:
    """The boxes that are shown: columns ``center`` (n, 2), ``scale`` (n,) and ``body_crop`` (n,).

    ``body_crop`` is an index into :data:`BODIES`. The columns replace those of the stored boxes;
    there are none if the draws have no ``look``.

    The box of a half is a square around its visible joints: those with positive confidence that
    are inside the frame. Its side is 1.2 times the larger side of the joints' bounding box, clipped
    to 0.5 to 1 times the side of the stored box, and it is moved so that it is inside the stored
    box. So the stored crop also covers the half's box at every scale and rotation for which it was
    built. The stored box is kept if no shoulder or no hip is visible (lower body: no hip, or
    neither knee nor ankle).

    ``columns`` has ``center``, ``scale``, ``keypoints`` and ``orig_shape``.
    """
    if draws.look is None:
        return {}
    center = np.array(columns["center"], np.float64)
    scale = np.array(columns["scale"], np.float64)
    body = np.zeros(len(scale), np.int64)
    for name, (joints, needed) in _SHOWN.items():
        number = BODIES.index(name)
        at = np.flatnonzero(draws.look["body_crop"] == number)
        points, visible = _visible(columns, at)
        enough = np.all([visible[:, group].any(1) for group in needed], axis=0)
        at, points, visible = at[enough], points[enough][:, joints], visible[enough][:, joints]
        center[at], scale[at] = _box(points, visible, center[at], scale[at])
        body[at] = number
    return {"center": center, "scale": scale, "body_crop": body}


def _visible(columns: Columns, at: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Keypoints (m, 49, 2) of the rows ``at``, and which of them are visible (m, 49)."""
    keypoints = columns["keypoints"][at].astype(np.float64)
    points, sides = keypoints[:, :, :2], columns["orig_shape"][at][:, None, ::-1]
    inside = ((points >= -0.5) & (points <= sides - 0.5)).all(2)
    return points, np.asarray(inside & (keypoints[:, :, 2] > 0))


def _box(
    points: NDArray[Any], visible: NDArray[np.bool_], center: NDArray[Any], scale: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Center and scale of boxes around visible points (m, joints, 2), inside the given boxes."""
    low = np.where(visible[:, :, None], points, np.inf).min(1)
    high = np.where(visible[:, :, None], points, -np.inf).max(1)
    whole = box_side(scale)
    side = np.clip(MARGIN * (high - low).max(1), LEAST_SHARE * whole, whole)
    room = (whole - side)[:, None] / 2.0
    return np.clip((low + high) / 2.0, center - room, center + room), side / BOX_UNIT_PX
