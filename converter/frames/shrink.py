"""Shrinks images to the size at which they are stored."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# A Gaussian of this sigma gives a neighbour the weight 4e-6, too little for one of 255 levels.
_NO_BLUR = 0.2


def _halved(image: Image) -> Image:
    """The image at half its size, by means of 2 x 2 pixels. An odd side is extended by repeating
    its last row or column; OpenCV's exact area interpolation of odd sides takes fifteen times as
    long.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        border = cv2.BORDER_REPLICATE
        image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, border), np.uint8)
    half = (width + 1) // 2, (height + 1) // 2
    return np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)


def shrink(image: Image, width: int, height: int) -> Image:
    """Resize (H, W, C) uint8 down to ``width`` and ``height``, without aliasing.

    The image is halved by area means as often as possible. The remaining factor f below 2 is done
    as in scikit-image, and so in ReFit: a Gaussian of sigma (f - 1) / 2, then bilinear
    interpolation. The result is as close to ReFit's crops as area interpolation by the whole
    factor, in a third of the time (``docs/how/format.md``).
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
    # A side was odd and extended, so the image is larger than the region to show.
    made = cv2.warpAffine(
        image,
        np.array([[fx, 0.0, 0.5 * fx - 0.5], [0.0, fy, 0.5 * fy - 0.5]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(made, np.uint8)
