"""Crops of the upper or the lower body: another box than the one that is stored, inside it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Draws
from refit_shard.loaders.items.effects import BODIES, LEAST_SHARE
from refit_shard.shards_spec.geometry import BOX_UNIT_PX, box_side
from refit_shard.shards_spec.joints import PLACE

# By name; or a table of them.
Columns = Mapping[str, NDArray[Any]] | NDArray[np.void]

# A box's side by the larger side of its joints' bounding box, as the boxes of SPIN's npz files.
MARGIN = 1.2


def _places(*words: str) -> NDArray[np.int64]:
    """The joints in whose names one of the words is."""
    found = [place for name, place in PLACE.items() if any(word in name for word in words)]
    return np.array(found)


_HIPS = _places("hip", "pelvis")
_SHOULDERS = _places("shoulder")
_LEGS = _places("knee", "ankle", "toe", "heel")
_KNEES_DOWN = _places("knee", "ankle")
_UPPER = np.setdiff1d(np.arange(len(PLACE)), _LEGS)
_LOWER = np.union1d(_HIPS, _LEGS)
# By body: the joints that the crop shows, and the groups of which one joint each must be visible.
_SHOWN = {"upper": (_UPPER, (_SHOULDERS, _HIPS)), "lower": (_LOWER, (_HIPS, _KNEES_DOWN))}


def shown_boxes(columns: Columns, draws: Draws) -> dict[str, NDArray[Any]]:
    """What of ``columns`` is another where the draws want a half of the body: ``center`` (n, 2) and
    ``scale`` (n,) of the box that is shown; and ``body_crop`` (n,), by number in :data:`BODIES`.

    A half's box is a square about its visible joints: those of positive confidence that lie in the
    frame. Its side is 1.2 times the larger side of their bounding box, at least half that of the
    stored box and at most all of it, and it is moved to lie inside the stored box: so whatever the
    stored crop holds of any scale and rotation of the one, it holds of the other. Where no shoulder
    or no hip is visible (of the lower body: no hip, or neither knee nor ankle) the box stays.

    ``columns``: ``center``, ``scale``, ``keypoints``, ``orig_shape``.
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
    """Keypoints (m, 49, 2) of some rows, and which of them are visible."""
    keypoints = columns["keypoints"][at].astype(np.float64)
    points, sides = keypoints[:, :, :2], columns["orig_shape"][at][:, None, ::-1]
    inside = ((points >= -0.5) & (points <= sides - 0.5)).all(2)
    return points, np.asarray(inside & (keypoints[:, :, 2] > 0))


def _box(
    points: NDArray[Any], visible: NDArray[np.bool_], center: NDArray[Any], scale: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The boxes about visible points (m, joints, 2), in the boxes of ``center`` and ``scale``."""
    low = np.where(visible[:, :, None], points, np.inf).min(1)
    high = np.where(visible[:, :, None], points, -np.inf).max(1)
    whole = box_side(scale)
    side = np.clip(MARGIN * (high - low).max(1), LEAST_SHARE * whole, whole)
    room = (whole - side)[:, None] / 2.0
    return np.clip((low + high) / 2.0, center - room, center + room), side / BOX_UNIT_PX
