"""Shrinking images: for stored crops and for occluders."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# A Gaussian of this sigma weighs a neighbour 4e-6: not a level of 255.
_NO_BLUR = 0.2


def shrink(image: Image, width: int, height: int) -> Image:
    """Resize (H, W, C) uint8 down to ``width`` and ``height``, without aliasing.

    Exact halves by area as long as they fit; the rest, a factor f below 2, as scikit-image (and so
    ReFit) resizes: a Gaussian of sigma (f - 1) / 2, then bilinear. As close to ReFit's crops as
    area interpolation at the whole factor, in a third of the time (``docs/format.md``).
    """
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        half = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    sigmas = (image.shape[1] / width - 1.0) / 2.0, (image.shape[0] / height - 1.0) / 2.0
    if max(sigmas) > _NO_BLUR:
        sigmas = max(sigmas[0], _NO_BLUR), max(sigmas[1], _NO_BLUR)
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), sigmas[0], sigmaY=sigmas[1]), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
