"""Shrinks images to the size at which they are stored."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# A Gaussian of this sigma weighs a neighbour 4e-6: not a level of 255.
_NO_BLUR = 0.2


def _halved(image: Image) -> Image:
    """Means of 2 x 2 pixels; an odd side gets its last row or column a second time.

    OpenCV's area interpolation of odd sides is exact too, but takes fifteen times as long.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        border = cv2.BORDER_REPLICATE
        image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, border), np.uint8)
    half = (width + 1) // 2, (height + 1) // 2
    return np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)


def shrink(image: Image, width: int, height: int) -> Image:
    """Resize (H, W, C) uint8 down to ``width`` and ``height``, without aliasing.

    Exact halves by area as long as they fit; the rest, a factor f below 2, as scikit-image (and so
    ReFit) resizes: a Gaussian of sigma (f - 1) / 2, then bilinear. As close to ReFit's crops as
    area interpolation at the whole factor, in a third of the time (``docs/how/format.md``).
    """
    fx, fy = image.shape[1] / width, image.shape[0] / height
    while fx >= 2 and fy >= 2:
        image, fx, fy = _halved(image), fx / 2, fy / 2
    sigmas = (fx - 1.0) / 2.0, (fy - 1.0) / 2.0
    if max(sigmas) > _NO_BLUR:
        sigmas = max(sigmas[0], _NO_BLUR), max(sigmas[1], _NO_BLUR)
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), sigmas[0], sigmaY=sigmas[1]), np.uint8)
    if (image.shape[1], image.shape[0]) == (fx * width, fy * height):
        return np.asarray(cv2.resize(image, (width, height)), np.uint8)
    # A side was odd, so the image reaches beyond what is to be shown of it.
    made = cv2.warpAffine(
        image,
        np.array([[fx, 0.0, 0.5 * fx - 0.5], [0.0, fy, 0.5 * fy - 0.5]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(made, np.uint8)
