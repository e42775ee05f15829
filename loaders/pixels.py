"""Pixels: one stored crop becomes one output image, with one warp."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shards_spec import jpeg

Image = NDArray[np.uint8]

# ImageNet's, as ReFit and its backbones use them; of R, G, B in 0 … 1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

_LEVELS = np.arange(256, dtype=np.float32)


@dataclass
class Scratch:
    """Memory that a worker uses again for every image it decodes."""

    buffer: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> "Scratch":
        """No memory yet; it grows to the largest image met."""
        return cls(np.empty(0, np.uint8))

    def of(self, size: int) -> NDArray[np.uint8]:
        """At least ``size`` bytes."""
        if len(self.buffer) < size:
            self.buffer = np.empty(size, np.uint8)
        return self.buffer


def decode_and_warp(
    data: bytes | memoryview,
    size: tuple[int, int],
    affine: NDArray[np.float64],
    out: Image,
    scratch: Scratch,
) -> None:
    """Decode a stored crop and warp it into ``out`` (res, res, 3); outside it is black.

    ``size`` is the (height, width) that the index states, ``affine`` (2, 3) maps output pixels to
    stored pixels.

    Raises:
        FrameError: the JPEG is damaged, or not of that size.
    """
    height, width = size
    jpeg.check_size(data, height, width)
    stored = jpeg.decode(data, scratch.of(height * width * 3))
    cv2.warpAffine(
        stored,
        affine,
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
