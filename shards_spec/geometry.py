"""All geometry: boxes, stored windows, and the map from output pixels to stored pixels.

Conventions: x points right, y down, in pixels; the *centre* of the first pixel is at 0, so an image
of width W covers [-0.5, W - 0.5]. "Source" is the frame in the orientation of its labels, "stored"
the JPEG in a shard, "output" the square crop that is the network's input. Angles are in degrees,
positive counter-clockwise as seen on the screen.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)
SQRT2 = math.sqrt(2.0)
# SPIN's ``scale`` is a box's side divided by this many pixels.
BOX_UNIT_PX = 200.0


def box_side(scale: Number) -> Number:
    """The side of SPIN's square box in source pixels, 200 * ``scale``."""
    return BOX_UNIT_PX * scale


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """How much larger than the box a stored crop is, so that augmented crops can be cut from it.

    ``scale``: the largest factor on the box's side. ``rotation``: True if any rotation must fit,
    for which the window is sqrt 2 times as large. ``margin``: extra source pixels for
    interpolation.
    """

    scale: float = 1.25
    rotation: bool = True
    margin: float = 2.0

    def half_side(self, side: float) -> float:
        """Half the side of the window around the box's centre, source pixels."""
        return self.scale * (SQRT2 if self.rotation else 1.0) * side / 2.0 + self.margin


FULL_ENVELOPE = Envelope()
CROPPED_ENVELOPE = Envelope(scale=1.0, rotation=False, margin=0.0)


@dataclass(frozen=True, kw_only=True)
class StoredCrop:
    """The window of a frame that is stored as a crop.

    ``window``: x0, y0, x1, y1 in whole source pixels, x1 and y1 exclusive. ``width``, ``height``:
    of the stored image, px. ``kx`` and ``ky`` map exactly from source to stored pixels: ``stored =
    (source + 0.5 - x0) * kx - 0.5``.
    """

    window: tuple[int, int, int, int]
    width: int
    height: int

    @property
    def kx(self) -> float:
        """Stored pixels per source pixel along x."""
        return self.width / (self.window[2] - self.window[0])

    @property
    def ky(self) -> float:
        """Stored pixels per source pixel along y."""
        return self.height / (self.window[3] - self.window[1])


def box_meets_image(cx: float, cy: float, side: float, height: int, width: int) -> bool:
    """True if the box covers any part of the image. Centre and side in px of the image."""
    half = side / 2.0
    return (
        cx + half > -0.5
        and cy + half > -0.5
        and cx - half < width - 0.5
        and cy - half < height - 0.5
    )


def plan_crop(
    cx: float, cy: float, side: float, height: int, width: int, envelope: Envelope, box_px: int
) -> StoredCrop:
    """The stored crop of a box that covers a part of the image: the envelope's window, clipped to
    the image, and shrunk so that the box's side is at most ``box_px``; never enlarged.

    Pixels outside the image are not stored; a loader fills them with zeros, as ReFit does.
    """
    half = envelope.half_side(side)
    x0 = max(0, math.floor(max(cx - half, -1.0)))
    y0 = max(0, math.floor(max(cy - half, -1.0)))
    x1 = min(width, math.ceil(min(cx + half, width)))
    y1 = min(height, math.ceil(min(cy + half, height)))
    k = min(1.0, box_px / side)
    return StoredCrop(
        window=(x0, y0, x1, y1),
        width=max(1, round((x1 - x0) * k)),
        height=max(1, round((y1 - y0) * k)),
    )


def truncated_box(cx: Array, cy: Array, side: Array) -> tuple[Array, Array]:
    """The corners of ReFit's crop box, truncated toward zero to whole source pixels.

    Arguments have shape (n,). Returns the upper left corners (n, 2), inclusive, and the lower right
    ones (n, 2), exclusive. Without the truncation the crop is half a pixel off, which reduces its
    agreement with ReFit's crop by ten decibels.
    """
    center = np.stack([cx, cy], axis=-1)
    half = side[..., None] / 2.0
    return np.trunc(center - half), np.trunc(center + half)


def plan_cropped(cx: float, cy: float, side: float, height: int, width: int) -> StoredCrop:
    """The stored crop for an image of (height, width) px that already is ReFit's crop of
    the box.
    """
    (ul,), (br,) = truncated_box(np.array([cx]), np.array([cy]), np.array([side]))
    return StoredCrop(
        window=(int(ul[0]), int(ul[1]), int(br[0]), int(br[1])), width=width, height=height
    )


def rotation(degrees: Array) -> Array:
    """Matrices (n, 2, 2) that turn x toward y, clockwise on the screen, by angles (n,), degrees."""
    radians = np.deg2rad(degrees)
    made = np.empty((len(radians), 2, 2))
    made[:, 0, 0] = made[:, 1, 1] = np.cos(radians)
    made[:, 1, 0] = np.sin(radians)
    made[:, 0, 1] = -made[:, 1, 0]
    return made


def turned(matrices: Array, points: NDArray[np.floating[Any]]) -> Array:
    """The points (n, m, 2) multiplied by matrices (n, 2, 2), one matrix for each row of points.

    Written out instead of einsum, so that the order of products and sums is the same on every
    processor; it also takes a tenth of the time.
    """
    made = np.empty(points.shape)
    x, y = points[:, :, 0], points[:, :, 1]
    for axis in (0, 1):
        made[:, :, axis] = matrices[:, axis, 0, None] * x + matrices[:, axis, 1, None] * y
    return made


def determinants(affine: Array) -> Array:
    """Determinants (n,) of the linear parts of affine maps (n, 2, 3): the factors on areas,
    negative if the map mirrors.
    """
    found: Array = affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]
    return found


def output_to_source(
    center: Array, side: Array, degrees: Array, flip: NDArray[np.bool_], res: int
) -> Array:
    """Affine maps (n, 2, 3) from output pixels to source pixels, equal to those of ReFit's crop.

    The box is truncated to whole pixels, turned counter-clockwise about its middle, resized to
    ``res`` and, where ``flip`` is set, mirrored.

    Args:
        center: (n, 2) of the augmented boxes, source px.
        side: (n,) of the augmented boxes, source px.
        degrees: (n,) rotations.
        flip: (n,) True to mirror.
        res: side of the output, px.
    """
    ul, br = truncated_box(center[:, 0], center[:, 1], side)
    step = (br - ul) / res
    start = ul - 0.5 + 0.5 * step
    sign = np.where(flip, -1.0, 1.0)
    start[:, 0] += np.where(flip, (res - 1) * step[:, 0], 0.0)
    middle = (ul + br) / 2.0 - 0.5
    turn = rotation(degrees)
    linear = turn * np.stack([sign * step[:, 0], step[:, 1]], -1)[:, None, :]
    offset = middle + turned(turn, (start - middle)[:, None])[:, 0]
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def source_to_stored(affine: Array, window: NDArray[np.int32], k: Array) -> Array:
    """Affine maps (n, 2, 3) into stored pixels, from maps ``affine`` (n, 2, 3) into source pixels.

    ``window`` (n, 4): x0, y0, x1, y1 of the stored crops. ``k`` (n, 2): their kx, ky.
    """
    result = affine * k[:, :, None]
    result[:, :, 2] += (0.5 - window[:, :2]) * k - 0.5
    return result


def source_to_output_points(
    points: Array, center: Array, side: Array, degrees: Array, flip: NDArray[np.bool_], res: int
) -> Array:
    """The points (n, m, 2) in output pixels, from source pixels: the inverse of
    :func:`output_to_source`, whose other arguments are the same.
    """
    affine = output_to_source(center, side, degrees, flip, res)
    inverse = np.empty((len(affine), 2, 2))
    inverse[:, 0, 0], inverse[:, 1, 1] = affine[:, 1, 1], affine[:, 0, 0]
    inverse[:, 0, 1], inverse[:, 1, 0] = -affine[:, 0, 1], -affine[:, 1, 0]
    inverse /= determinants(affine)[:, None, None]
    return turned(inverse, points - affine[:, None, :, 2])


def _clip(polygon: Array, axis: int, sign: float, bound: float) -> Array:
    """The part of a convex polygon (m, 2) where ``sign * (coordinate - bound)`` is at most 0."""
    beyond = sign * (polygon[:, axis] - bound)
    corners = []
    for index, corner in enumerate(polygon):
        before = index - 1
        if beyond[before] * beyond[index] < 0:
            way = beyond[before] / (beyond[before] - beyond[index])
            corners.append(polygon[before] + way * (corner - polygon[before]))
        if beyond[index] <= 0:
            corners.append(corner)
    return np.array(corners).reshape(-1, 2)


def beyond_window(affine: Array, window: Array, orig_shape: Array, res: int) -> float:
    """How far an output image reaches beyond the stored window, in source pixels; 0 if it does not.

    Parts of the output outside the frame do not count, because they are black in any case.

    Args:
        affine: (2, 3), from output to source pixels.
        window: x0, y0, x1, y1 of the stored crop.
        orig_shape: H, W of the frame.
        res: side of the output, px.
    """
    last = res - 1.0
    output = np.array([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    shown = output @ affine[:, :2].T + affine[:, 2]
    for axis, size in enumerate((orig_shape[1], orig_shape[0])):
        shown = _clip(_clip(shown, axis, -1.0, -0.5), axis, 1.0, size - 0.5)
    if not len(shown):
        return 0.0
    before = window[:2] - 0.5 - shown.min(0)
    after = shown.max(0) - (window[2:] - 0.5)
    return max(0.0, float(before.max()), float(after.max()))
