"""Decodes images as ``cv2.imread`` does, after a check of their size."""

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import FrameError

MAX_PIXELS = 128 << 20

Frame = NDArray[np.uint8]


def check_pixels(width: int, height: int) -> None:
    """Check the size in an image's header before memory is allocated for its pixels.

    Raises:
        FrameError: ``too_large``, or ``corrupt`` if a side is 0.
    """
    if not width or not height:
        raise FrameError("corrupt", f"the header states {width}x{height} px")
    if width * height > MAX_PIXELS:
        raise FrameError("too_large", f"{width}x{height} px, the limit is {MAX_PIXELS} pixels")


def as_imread(data: bytes) -> Frame:
    """Decode with OpenCV to (H, W, 3) uint8 RGB: EXIF orientation is applied, alpha dropped.

    Raises:
        FrameError: OpenCV cannot decode the data.
        MemoryError: there is no memory for the pixels, which says nothing about the frame.
    """
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise FrameError("corrupt", f"OpenCV: {error.err}") from error
    if frame is None:
        raise FrameError("corrupt", "the image cannot be decoded")
    return np.asarray(frame, np.uint8)
