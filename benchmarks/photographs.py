"""Frames with photographic texture, made from the photographs in the scikit-image wheel."""

from functools import cache
from importlib.resources import files
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "gravel.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
_GRAIN_SIGMA = 1.6  # of 255


@cache
def _photos() -> tuple[Image, ...]:
    """The photographs, uint8 (H,W,3) RGB."""
    folder = files("skimage") / "data"
    pixels = (cv2.imdecode(_bytes(folder.joinpath(name).read_bytes()), 1) for name in _PHOTOS)
    return tuple(
        as_image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) for bgr in pixels if bgr is not None
    )


def _bytes(data: bytes) -> Image:
    return np.frombuffer(data, dtype=np.uint8)


def as_image(pixels: Any) -> Image:
    """An array returned by OpenCV as uint8."""
    return np.asarray(pixels, dtype=np.uint8)


@cache
def _grain_table() -> NDArray[np.int8]:
    """A table (256,) from random bytes to normal noise: rounded quantiles."""
    normal = NormalDist(0.0, _GRAIN_SIGMA)
    return np.array([round(normal.inv_cdf((i + 0.5) / 256)) for i in range(256)], dtype=np.int8)


def grain(frame: Image, rng: np.random.Generator) -> Image:
    """The frame with a camera's noise added, uint8 (H,W,3)."""
    draws = _bytes(rng.bytes(frame.size)).reshape(frame.shape)
    noise = cv2.LUT(draws, _grain_table())
    return as_image(cv2.add(frame, noise, dtype=cv2.CV_8U))


def _view(width: int, height: int, rng: np.random.Generator) -> Image:
    """One photograph, randomly scaled, mirrored and moved, that fills the frame: uint8 (H,W,3).

    It covers the frame's height, so nothing is upside down; sideways it is repeated mirrored.
    """
    photos = _photos()
    photo = photos[int(rng.integers(len(photos)))]
    scale = max(rng.uniform(0.8, 2.2) * min(width, height) / 720, height / photo.shape[0])
    flip = scale if rng.random() < 0.5 else -scale
    shift_x = rng.uniform(-1.0, 1.0) * width
    shift_y = rng.random() * (height - scale * photo.shape[0])
    matrix = np.array([[flip, 0.0, shift_x], [0.0, scale, shift_y]])
    return as_image(
        cv2.warpAffine(photo, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    )


def backdrop(width: int, height: int, rng: np.random.Generator) -> Image:
    """Two to four photographs blended along soft seams, without noise: uint8 (H,W,3) RGB."""
    frame = _view(width, height, rng)
    for _ in range(int(rng.integers(1, 4))):
        coarse = rng.random((3, 4), dtype=np.float32)
        field = cv2.resize(coarse, (width // 8, height // 8), interpolation=cv2.INTER_CUBIC)
        seams = np.clip(6.0 * np.asarray(field) - 2.5, 0.0, 1.0)
        weight = cv2.resize(seams, (width, height))
        inverse = cv2.subtract(np.ones_like(weight), weight)
        frame = as_image(cv2.blendLinear(frame, _view(width, height, rng), inverse, weight))
    return frame


def photo_frame(width: int, height: int, rng: np.random.Generator) -> Image:
    """A frame of photographic texture with camera noise: uint8 (H,W,3) RGB."""
    return grain(backdrop(width, height, rng), rng)
