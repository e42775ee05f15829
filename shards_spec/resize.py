"""Shrinking images: for stored crops and for occluders."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def shrink(image: Image, width: int, height: int) -> Image:
    """Resize (H, W, C) uint8 down to ``width`` and ``height``, without aliasing.

    Exact halves by area as long as they fit; the rest, a factor f below 2, as scikit-image (and so
    ReFit) resizes: a Gaussian of sigma (f - 1) / 2, then bilinear. As close to ReFit's crops as
    area interpolation at the whole factor, in a third of the time (``docs/format.md``).
    """
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        half = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    factors = image.shape[1] / width, image.shape[0] / height
    if max(factors) > 1.0:
        sigmas = [max(1e-3, (factor - 1.0) / 2.0) for factor in factors]
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), sigmas[0], sigmaY=sigmas[1]), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
