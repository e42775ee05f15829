"""Encodes crops as JPEG, with OpenCV, which can write restart markers."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.jpeg import RESTART_INTERVAL


def encoder_options(quality: int, interval: int = RESTART_INTERVAL) -> tuple[int, ...]:
    """OpenCV's options for a stored crop: baseline, 4:2:0 chroma, a restart marker after every
    ``interval`` MCUs, 0 for none.
    """
    return (
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
        *(cv2.IMWRITE_JPEG_RST_INTERVAL, interval),
    )


def encode(rgb: NDArray[np.uint8], quality: int, interval: int = RESTART_INTERVAL) -> bytes:
    """Encode (H, W, 3) uint8 RGB as a JPEG; see :func:`encoder_options`."""
    return encode_bgr(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality, interval)


def encode_bgr(bgr: NDArray[Any], quality: int, interval: int = RESTART_INTERVAL) -> bytes:
    """Encode (H, W, 3) uint8 BGR as a JPEG; see :func:`encoder_options`."""
    return cv2.imencode(".jpg", bgr, encoder_options(quality, interval))[1].tobytes()
