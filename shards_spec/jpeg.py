"""Decodes and checks the JPEGs of stored crops, with libjpeg-turbo."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import FrameError

# A restart marker after every MCU: a reader can decode only the MCUs it needs (loaders.native).
RESTART_INTERVAL = 1
# Limit for a stored crop: a JPEG of a few bytes can state 65535 x 65535.
MAX_PIXELS = 128 << 20
MAX_SIDE = 65535


def size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width that a JPEG's header states.

    Raises:
        FrameError: not a JPEG.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    return height, width


def decode(
    data: bytes | bytearray | memoryview, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Decode to (H, W, 3) uint8 RGB. ``out``: an array of that shape to decode into, or None.

    Raises:
        FrameError: the data are damaged or cut short.
    """
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=out, strict=True)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    return image


def is_plain(data: bytes | memoryview) -> bool:
    """True for a JPEG with YCbCr channels and without EXIF. Every decoder gives the same RGB for
    it, so it can be stored unchanged.
    """
    if bytes(data[:3]) != b"\xff\xd8\xff" or b"Exif\0\0" in bytes(data):
        return False
    try:
        return bool(simplejpeg.decode_jpeg_header(data)[2] == "YCbCr")
    except ValueError:  # a damaged header, or a sampling that simplejpeg does not support
        return False


def check_size(data: bytes | memoryview, height: int, width: int) -> None:
    """Check the size in a JPEG's header against the index, before memory is allocated.

    Raises:
        FrameError: another size, too large a size, or not a JPEG.
    """
    if height * width > MAX_PIXELS:
        raise FrameError("too_large", f"{width}x{height} px")
    if size(data) != (height, width):
        raise FrameError("corrupt", f"the JPEG is not {width}x{height}, as the index says")
