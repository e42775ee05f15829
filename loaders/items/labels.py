"""Augments the labels of a whole batch at once; same meaning and order as in ReFit's item."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items.draws import Draws
from refit_shard.shards_spec.geometry import box_side, rotation, source_to_output_points, turned
from refit_shard.shards_spec.own import TABLES

Array = NDArray[np.float64]
Order = NDArray[np.int64]
Float = TypeVar("Float", bound=np.floating[Any])

# Joint orders under a flip, which swaps left and right.
J24_FLIP = np.array(TABLES["spin"].flip)
J49_FLIP = np.array(TABLES["spin49"].flip)
SMPL_FLIP = np.array(TABLES["smpl"].flip)


def _mirror_joints(joints: NDArray[Float], flip: NDArray[np.bool_], order: Order) -> None:
    mirrored = joints[flip][:, order]
    mirrored[:, :, 0] *= -1.0
    joints[flip] = mirrored


class Placing(Protocol):
    """A function that maps points (n, m, 2 or more) from source pixels to the crop.

    ``order``: the order of the points under a flip.
    """

    def __call__(
        self,
        source: NDArray[Float],
        center: Array,
        scale: Array,
        draws: Draws,
        res: int,
        order: Order = J49_FLIP,
    ) -> NDArray[Float]:
        """The points in the crop."""


def placing(compat: str | None) -> Placing:
    """The function for ``compat``: exact positions, or for ``"refit"`` ReFit's truncated ones."""
    return keypoints_whole if compat == "refit" else keypoints


def keypoints(
    source: NDArray[Float],
    center: Array,
    scale: Array,
    draws: Draws,
    res: int,
    order: Order = J49_FLIP,
) -> NDArray[Float]:
    """Keypoints (n, 49, 3) from source pixels to the crop: x, y in -1 … 1 from edge to edge.

    They follow the affine map of the pixels: a point in the middle of output pixel u has
    x = 2 (u + 0.5) / res - 1. For points other than the 49 keypoints pass their ``order`` under a
    flip.
    """
    side = box_side(draws.sc * scale)
    points = source_to_output_points(
        source[:, :, :2].astype(np.float64), center, side, draws.rot, np.zeros_like(draws.flip), res
    )
    points += 0.5
    points *= 2.0 / res
    points -= 1.0
    result = source.copy()
    result[:, :, :2] = points
    _mirror_joints(result, draws.flip, order)
    return result


def _refit_transform(center: Array, side: Array, degrees: Array, res: int) -> Array:
    """ReFit's map (n, 3, 3) from source to output pixels.

    It is the same chain of matrix products as ReFit's, so that truncated results are equal.
    """
    count = len(side)
    box = np.zeros((count, 3, 3))
    box[:, 0, 0] = box[:, 1, 1] = res / side
    box[:, :2, 2] = res * (-center / side[:, None] + 0.5)
    box[:, 2, 2] = 1.0
    to_middle = np.eye(3)
    to_middle[:2, 2] = -res / 2.0
    back = np.eye(3)
    back[:2, 2] = res / 2.0
    turn = np.zeros((count, 3, 3))
    turn[:, :2, :2] = rotation(-degrees)
    turn[:, 2, 2] = 1.0
    whole: Array = back @ (turn @ (to_middle @ box))
    return np.where((degrees != 0.0)[:, None, None], whole, box)


def keypoints_whole(
    source: NDArray[Float],
    center: Array,
    scale: Array,
    draws: Draws,
    res: int,
    order: Order = J49_FLIP,
) -> NDArray[Float]:
    """Keypoints exactly as ReFit computes them, in -1 … 1.

    They are mapped by the box before it is rounded to whole pixels, truncated toward zero to whole
    output pixels, plus one.
    """
    affine = _refit_transform(center, box_side(draws.sc * scale), draws.rot, res)
    points = source[:, :, :2].astype(np.float64)
    mapped = turned(affine[:, :2, :2], points) + affine[:, None, :2, 2]
    result = source.copy()
    result[:, :, :2] = 2.0 * (np.trunc(mapped) + 1.0) / res - 1.0
    _mirror_joints(result, draws.flip, order)
    return result


def points_3d(source: NDArray[Float], draws: Draws, order: Order = J24_FLIP) -> NDArray[Float]:
    """3D points (n, m, 3 or more), rotated in the image plane by -rot, then mirrored."""
    result = source.copy()
    result[:, :, :2] = turned(rotation(-draws.rot), source[:, :, :2])
    _mirror_joints(result, draws.flip, order)
    return result


def pose(source: NDArray[np.float32], draws: Draws) -> NDArray[np.float32]:
    """SMPL pose (n, 72), rad: the root rotated by R_z(-rot), then all joints mirrored."""
    return rotations(source.reshape(-1, 24, 3), draws, SMPL_FLIP).reshape(-1, 72)


def rotations(
    source: NDArray[Float], draws: Draws, order: Order, roots: Sequence[int] = (0,)
) -> NDArray[Float]:
    """Axis-angle rotations (n, joints, 3), rad: roots rotated by R_z(-rot), then all mirrored."""
    result = source.astype(np.float64)
    for root in roots:
        result[:, root] = _turn_root(result[:, root], -np.deg2rad(draws.rot))
    result[draws.flip] = result[draws.flip][:, order] * np.array([1.0, -1.0, -1.0])
    return result.astype(source.dtype)


def _turn_root(root: Array, angle: Array) -> Array:
    """Axis-angle (n, 3) of R_z(angle) R(root), by unit quaternions; its angle is in 0 … pi."""
    theta = np.linalg.norm(root, axis=1)
    # sin(x/2)/x as numpy's sinc, which is defined at 0.
    vector = root * (0.5 * np.sinc(theta / (2.0 * np.pi)))[:, None]
    w = np.cos(theta / 2.0)
    zw, zz = np.cos(angle / 2.0), np.sin(angle / 2.0)
    product_w = zw * w - zz * vector[:, 2]
    product = zw[:, None] * vector
    product[:, 0] -= zz * vector[:, 1]
    product[:, 1] += zz * vector[:, 0]
    product[:, 2] += zz * w
    sign = np.where(product_w < 0.0, -1.0, 1.0)
    product, product_w = product * sign[:, None], product_w * sign
    length = np.linalg.norm(product, axis=1)
    whole = 2.0 * np.arctan2(length, product_w)
    factor = np.divide(whole, length, out=np.full_like(whole, 2.0), where=length > 1e-12)
    result: Array = product * factor[:, None]
    return result


def center(source: Array, orig_shape: Array, draws: Draws) -> Array:
    """Box centres (n, 2), source pixels, mirrored and rotated about the middle of the frame.

    A flip also negates the angle. ``orig_shape``: (n, 2) height and width of the frame.
    """
    middle = orig_shape[:, ::-1] / 2.0
    sign = np.where(draws.flip, -1.0, 1.0)
    moved = source - middle
    moved[:, 0] *= sign
    return turned(rotation(-draws.rot * sign), moved[:, None])[:, 0] + middle
