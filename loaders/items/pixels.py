"""Pixels: what an augmentation shows of a stored crop is decoded, and warped once."""

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items import mcu
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError

Image = NDArray[np.uint8]

# ImageNet's, as ReFit and its backbones use them; of R, G, B in 0 … 1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

_SIMD_BYTES = 64
_LEVELS = np.arange(256, dtype=np.float32)


def _unaligned(size: int) -> NDArray[np.uint8]:
    """Memory that does not begin where a SIMD word does.

    Into aligned memory libjpeg-turbo writes past the caches, and the warp then waits for the main
    memory: it takes twice as long.
    """
    whole = np.empty(size + 2 * _SIMD_BYTES, np.uint8)
    begin = -whole.ctypes.data % _SIMD_BYTES + 1
    return whole[begin : begin + size]


class Scratch:
    """Memory for an image that is used again for the next: fresh memory costs more than the work.

    For one thread.
    """

    def __init__(self) -> None:
        self._buffer = _unaligned(0)

    def of(self, height: int, width: int) -> Image:
        """An image (height, width, 3) of any content; the next call reuses its memory."""
        size = height * width * 3
        if len(self._buffer) < size:
            self._buffer = _unaligned(size)
        return self._buffer[:size].reshape(height, width, 3)


def decode_region(
    data: bytes, size: tuple[int, int], region: mcu.Region, scratch: Scratch
) -> tuple[Image, tuple[int, int]]:
    """The region's bounding rectangle of a stored crop, (h, w, 3), in ``scratch``'s memory; and the
    column and row of its first pixel.

    ``size`` is the (height, width) that the index states. What is outside the region may hold
    anything. A JPEG without a marker after each MCU is decoded whole.

    Raises:
        FrameError: the JPEG is damaged, or not of that size.
    """
    if size[0] * size[1] > jpeg.MAX_PIXELS:
        raise FrameError("too_large", f"{size[1]}x{size[0]} px")
    header = mcu.find_header(data)
    part = mcu.cut(data, header, size, region) if header is not None else None
    if part is None:
        jpeg.check_size(data, *size)
        return jpeg.decode(data, scratch.of(*size)), (0, 0)
    made = scratch.of(*mcu.cut_size(size, region))
    return jpeg.decode(part, made), (mcu.MCU * region.left, mcu.MCU * region.top)


def decode_and_warp(
    data: bytes,
    size: tuple[int, int],
    region: mcu.Region | None,
    affine: NDArray[np.float64],
    out: Image,
    scratch: Scratch,
) -> None:
    """Decode what is needed of a stored crop and warp it into ``out`` (res, res, 3); outside it is
    black.

    ``affine`` (2, 3) maps output pixels to stored pixels; ``region`` is the output's footprint,
    None if it shows nothing of the crop.

    Raises:
        FrameError: the JPEG is damaged, or not of that size.
    """
    if region is None:
        out.fill(0)
        return
    stored, (left, top) = decode_region(data, size, region, scratch)
    moved = affine.copy()
    moved[:, 2] -= left, top
    cv2.warpAffine(
        stored,
        moved,
        (out.shape[1], out.shape[0]),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )


def normalize(image: Image, pn: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Channel factors, clipping and truncation to whole levels, then mean and deviation.

    ``image`` (res, res, 3) uint8 to ``out`` (3, res, res) float32: one table a channel.
    """
    levels = np.floor(np.minimum(_LEVELS[None, :] * pn[:, None], np.float32(255)))
    tables = (levels / np.float32(255) - MEAN[:, None]) / STD[:, None]
    for channel, plane in enumerate(cv2.split(image)):
        cv2.LUT(plane, tables[channel], dst=out[channel])
