"""Cuts ReFit's crop without augmentation, with exactly ReFit's pixels: scikit-image's ``resize``,
computed with OpenCV.

``resize(image, (res, res))`` is a Gaussian with σ = max(0, (f - 1) / 2) for each axis, where f is
source pixels per output pixel, cut off at 4 σ; then linear interpolation between pixel centres.
Beyond the border both use the image mirrored about the centre of its outermost pixel. Computed in
double precision, because the result is truncated to whole levels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.geometry import box_meets_image, truncated_box

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

RES = 256
MIN_BOX_PX = 4.0
MAX_BOX_PX = 4096.0
_TRUNCATE = 4.0  # σ, as in scipy


def check_box(cx: float, cy: float, side: float, height: int, width: int) -> None:
    """Check that a box, in pixels of a frame of (height, width), can be cut out.

    Raises:
        FrameError: the box is not finite, too small, too large, or outside the frame.
    """
    if not (np.isfinite([cx, cy]).all() and MIN_BOX_PX <= side <= MAX_BOX_PX):
        raise FrameError(
            "bad_box",
            f"center ({cx:g}, {cy:g}), side {side:g} px; must be numbers, "
            f"the side {MIN_BOX_PX:.0f} to {MAX_BOX_PX:.0f}",
        )
    if not box_meets_image(cx, cy, side, height, width):
        raise FrameError(
            "box_outside_image",
            f"box of {side:.0f} px at ({cx:.0f}, {cy:.0f}) in a frame of {width}x{height}",
        )


def _kernel(factor: float) -> Floats:
    """scipy's Gaussian kernel (n,) for ``factor`` source pixels per output pixel; [1.0] if the
    image is not shrunk.
    """
    sigma = max(0.0, (factor - 1.0) / 2.0)
    radius = int(_TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), np.float64)


def _neighbours(length: int, res: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For each output pixel (res,): the indexes of the two source pixels that it is between, and
    the weight of the second.
    """
    at = (np.arange(res) + 0.5) * (length / res) - 0.5
    low = np.floor(at)
    first = low.astype(np.int64)
    last = length - 1

    def mirrored(index: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(last - np.abs(last - np.abs(index)), np.int64)

    return mirrored(first), mirrored(first + 1), at - low


def resize(image: Floats, res: int) -> Floats:
    """The image (H, W, C), H and W at least 2, resized to (res, res, C) as by scikit-image's
    ``resize`` with its defaults.
    """
    height, width = image.shape[:2]
    smooth = cv2.sepFilter2D(
        image,
        cv2.CV_64F,
        _kernel(width / res),
        _kernel(height / res),
        borderType=cv2.BORDER_REFLECT_101,
    )
    first, second, weight = _neighbours(height, res)
    rows = smooth[first] * (1.0 - weight)[:, None, None] + smooth[second] * weight[:, None, None]
    first, second, weight = _neighbours(width, res)
    return np.asarray(
        rows[:, first] * (1.0 - weight)[:, None] + rows[:, second] * weight[:, None], np.float64
    )


def _window(frame: Image, ul: tuple[int, int], br: tuple[int, int]) -> Floats:
    """Pixels from ``ul`` (x, y) inclusive to ``br`` exclusive; zeros outside the frame."""
    (x0, y0), (x1, y1) = ul, br
    height, width = frame.shape[:2]
    window = np.zeros((y1 - y0, x1 - x0, frame.shape[2]))
    left, right = max(x0, 0), min(x1, width)
    top, bottom = max(y0, 0), min(y1, height)
    if left < right and top < bottom:
        window[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right]
    return window


def crop_box(frame: Image, cx: float, cy: float, side: float, res: int = RES) -> Image:
    """The square box of ``side`` px around (cx, cy), as (res, res, 3) uint8 RGB.

    The box's corners are truncated toward zero to whole pixels, and levels to whole levels, as in
    ReFit.

    Raises:
        FrameError: see :func:`check_box`.
    """
    check_box(cx, cy, side, *frame.shape[:2])
    (ul,), (br,) = truncated_box(np.array([cx]), np.array([cy]), np.array([side]))
    window = _window(frame, (int(ul[0]), int(ul[1])), (int(br[0]), int(br[1])))
    return np.clip(resize(window, res), 0.0, 255.0).astype(np.uint8)
