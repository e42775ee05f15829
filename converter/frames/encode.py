"""JPEG encoding of crops, through OpenCV, which writes restart markers."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.jpeg import RESTART_INTERVAL


def encoder_options(quality: int, interval: int = RESTART_INTERVAL) -> tuple[int, ...]:
    """OpenCV's options of a stored crop: baseline, 4:2:0 chroma, a marker each ``interval`` MCUs,
    0 for none.
    """
    return (
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
        *(cv2.IMWRITE_JPEG_RST_INTERVAL, interval),
    )


def encode(rgb: NDArray[np.uint8], quality: int, interval: int = RESTART_INTERVAL) -> bytes:
    """Encode (H, W, 3) uint8 RGB as a stored crop is; see :func:`encoder_options`."""
    return encode_bgr(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality, interval)


def encode_bgr(bgr: NDArray[Any], quality: int, interval: int = RESTART_INTERVAL) -> bytes:
    """Encode (H, W, 3) uint8 BGR, OpenCV's own order."""
    return cv2.imencode(".jpg", bgr, encoder_options(quality, interval))[1].tobytes()
