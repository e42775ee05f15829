"""Own labels: reserved names, and how a label moves with its image.

Augmentation turns an image by ``rot`` degrees counter-clockwise about its box's middle, scales it,
and then may mirror it left to right. A :class:`Motion` states what happens to a label then. A
mirror also exchanges left and right points and joints, by a permutation: entry i gets the values of
entry ``flip[i]``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.joints import JOINTS, OPENPOSE, SPIN, mirror

KINDS = ("none", "permute", "points2d", "points3d", "axis_angle")
HAS = "has_"
MAX_FLIP = 1 << 16

# Names, besides those of the field table, that have a meaning in a batch, an npz or a query.
RESERVED = frozenset(
    (
        *("img", "flip", "occ", "is_flipped", "rot", "sc", "rot_angle", "pn", "sample_index"),
        *("dataset_name", "gt_verts", "sample", "part", "openpose", "shape", "S"),
        *("body_crop", "downscale", "blur", "gray", "brightness", "contrast"),
        *("dataset", "shard"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """``flip``: the permutation that a mirror makes. ``roots``: the joints whose rotations are in
    the camera frame instead of a parent's frame, so that they turn with the image.
    """

    flip: tuple[int, ...]
    roots: tuple[int, ...] = (0,)


def _shifted(table: Sequence[int], by: int) -> tuple[int, ...]:
    return tuple(one + by for one in table)


# SMPL's 24 joints, SPIN's constants.py. The first 22 are those of SMPL-H and of SMPL-X.
_SMPL = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
_BODY = _SMPL[:22]
# Fifteen joints of the left hand, then those of the right one, as in MANO (smplx, body_models.py).
_HANDS = (*range(15, 30), *range(15))

# The tables by the names that users give. SMPL-X: joint_names.py of the package smplx; after the
# body come jaw, left and right eye, and the hands.
TABLES: Mapping[str, Table] = {
    "spin": Table(flip=mirror(SPIN)),
    "openpose": Table(flip=mirror(OPENPOSE)),
    "spin49": Table(flip=mirror(JOINTS)),
    "coco": Table(flip=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)),
    "smpl": Table(flip=_SMPL),
    "smplh": Table(flip=_BODY + _shifted(_HANDS, 22)),
    "smplx": Table(flip=(*_BODY, 22, 24, 23, *_shifted(_HANDS, 25))),
    "hands": Table(flip=_HANDS, roots=()),
    "mano": Table(flip=tuple(range(16))),
    "mano_pair": Table(flip=(*range(16, 32), *range(16)), roots=(0, 16)),
}


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How a label moves with its image.

    Args:
        kind: ``"none"``: not at all. ``"permute"``: a mirror permutes the first axis.
            ``"points2d"``: the last axis is x, y in source pixels, then values that do not change;
            x and y become -1 … 1 from edge to edge of the crop. ``"points3d"``: x, y, z in the
            camera frame, then values that do not change; the points are turned in the image plane.
            ``"axis_angle"``: rotations of joints, three numbers each, rad; ``roots`` are turned.
        flip: the permutation of a mirror; empty for ``"none"``.
        roots: the joints that are turned with the image, for ``"axis_angle"``.
    """

    kind: str = "none"
    flip: tuple[int, ...] = ()
    roots: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The motion as JSON for a manifest."""
        return {"kind": self.kind, "flip": list(self.flip), "roots": list(self.roots)}

    def misfit(self, dtype: str, shape: tuple[int, ...]) -> str:
        """A text that says why a label of this dtype and row shape cannot have the motion; empty if
        it can.
        """
        count = len(self.flip)
        if self.kind == "none":
            return "none has no permutation" if self.flip or self.roots else ""
        if self.kind == "permute":
            fits = shape[:1] == (count,)
            return "" if fits else f"the permutation has {count} entries, a row {list(shape)}"
        if not dtype.startswith("float"):
            return f"{self.kind} must be floating-point numbers, got {dtype}"
        if self.kind == "axis_angle":
            fits = math.prod(shape) == 3 * count
            return "" if fits else f"{count} joints have {3 * count} numbers, a row {list(shape)}"
        least = 2 if self.kind == "points2d" else 3
        if not shape or shape[-1] < least:
            return f"the last axis must hold {least} or more numbers a point, a row is {shape}"
        points = math.prod(shape[:-1])
        return "" if points == count else f"the permutation has {count} entries, a row {points}"


STILL = Motion()


def check_flip(flip: Any, where: str) -> tuple[int, ...]:
    """The permutation as a tuple, checked to be its own inverse, because a mirror exchanges pairs.

    Raises:
        UsageError: ``flip`` is not such a permutation.
    """
    if not isinstance(flip, (list, tuple)) or not 1 <= len(flip) <= MAX_FLIP:
        raise UsageError(f"{where}: must be a list of 1 to {MAX_FLIP} whole numbers from 0")
    if not all(type(one) is int and 0 <= one < len(flip) for one in flip):
        raise UsageError(f"{where}: must hold whole numbers from 0 to {len(flip) - 1}")
    wrong = next((place for place, one in enumerate(flip) if flip[one] != place), None)
    if wrong is not None:
        raise UsageError(
            f"{where}: entry {wrong} is {flip[wrong]}, so entry {flip[wrong]} must be {wrong}, got "
            f"{flip[flip[wrong]]}: a mirror exchanges pairs"
        )
    return tuple(flip)


def parse_motion(content: Any) -> Motion:
    """The motion that a manifest states for a column.

    Raises:
        UsageError: the content is not a valid motion.
    """
    if not isinstance(content, dict) or content.keys() != {"kind", "flip", "roots"}:
        raise UsageError("'motion' must hold kind, flip and roots")
    kind, roots = content["kind"], content["roots"]
    flip = check_flip(content["flip"], "'motion'")
    if kind not in KINDS[1:] or not isinstance(roots, list):
        raise UsageError(f"'motion' must be one of {', '.join(KINDS[1:])}, with a list of roots")
    if not all(type(one) is int and 0 <= one < len(flip) for one in roots):
        raise UsageError("'motion': 'roots' are not among the joints")
    return Motion(kind=kind, flip=flip, roots=tuple(roots))
