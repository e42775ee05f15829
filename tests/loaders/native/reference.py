"""What the library draws, in numpy, written from its description: every stage in whole numbers.

A decoded crop is warped whole: no region, no blocks of eight, no early end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Paste:
    """A cut-out on the output."""

    cut_out: int
    x: float
    y: float
    size: float


def _places(affine: Floats, height: int, width: int, res: int) -> tuple[Ints, Ints, int]:
    """x and y (res, res) of each output pixel in units of 2^-bits px, and the bits: 20, or as many
    as a 32-bit number holds of the larger side and two MCUs.
    """
    bits = 20
    while (max(height, width) + 32) * 2**bits > 2**31 - 1:
        bits -= 1
    whole = np.floor(np.abs(affine) * 2.0**bits + 0.5) * np.sign(affine)
    v, u = np.mgrid[:res, :res].astype(np.int64)
    (xu, xv, x0), (yu, yv, y0) = whole.astype(np.int64)
    return xu * u + xv * v + x0, yu * u + yv * v + y0, bits


def _axis(place: Ints, bits: int) -> tuple[Ints, Ints]:
    """The first of the two samples around each place, and the weight of the second, 0 … 63."""
    steps = (place + (1 << (bits - 7))) >> (bits - 6)
    return steps >> 6, steps & 63


def _weights(place: Ints, bits: int, count: int) -> tuple[Ints, Ints, Ints]:
    """The first sample's number and the weights of both; a sample outside weighs nothing."""
    first, weight = _axis(place, bits)
    inside = (first >= 0) & (first < count), (first >= -1) & (first < count - 1)
    return first, np.where(inside[0], 64 - weight, 0), np.where(inside[1], weight, 0)


def _sample(plane: U8, row: Ints, column: Ints) -> Ints:
    """The plane's samples, repeated beyond its edges."""
    rows, columns = np.clip(row, 0, len(plane) - 1), np.clip(column, 0, plane.shape[1] - 1)
    return np.asarray(plane[rows, columns], np.int64)


def _weighed(plane: U8, x: Sequence[Ints], y: Sequence[Ints]) -> Ints:
    """4096 times the level at each place."""
    left, wx0, wx1 = x
    top, wy0, wy1 = y
    above = wx0 * _sample(plane, top, left) + wx1 * _sample(plane, top, left + 1)
    below = wx0 * _sample(plane, top + 1, left) + wx1 * _sample(plane, top + 1, left + 1)
    return np.asarray(wy0 * above + wy1 * below, np.int64)


def _chroma_at(plane: U8, px: Ints, py: Ints, bits: int) -> Ints:
    """16 times the level of a picture of half the size, whose sample i lies at 2 i + 0.5."""
    half = 1 << (bits - 1)
    left, wx = _axis(px - half, bits + 1)
    top, wy = _axis(py - half, bits + 1)

    def along(row: Ints) -> Ints:
        sum_ = (64 - wx) * _sample(plane, row, left) + wx * _sample(plane, row, left + 1)
        return np.asarray((sum_ + 2) >> 2, np.int64)

    above, below = along(top), along(top + 1)
    return np.asarray(above + (((below - above) * wy + 32) >> 6), np.int64)


def warp(luma: U8, chroma: U8, affine: Floats, res: int) -> U8:
    """RGB (res, res, 3) of the planes of a crop; black outside it."""
    height, width = luma.shape
    px, py, bits = _places(affine, height, width, res)
    x, y = _weights(px, bits, width), _weights(py, bits, height)
    covered = (x[1] + x[2]) * (y[1] + y[2])
    level = _weighed(luma, x, y) << 6
    cb, cr = (
        ((_chroma_at(chroma[..., which], px, py, bits) - 2048) * covered + 2048) >> 12
        for which in (0, 1)
    )
    channels = (level + 22970 * cr, level - 5638 * cb - 11700 * cr, level + 29032 * cb)
    rgb = np.stack([(one + (1 << 17)) >> 18 for one in channels], -1)
    return np.asarray(np.clip(rgb, 0, 255), np.uint8)


def warp_rgb(image: U8, affine: Floats, res: int) -> U8:
    """RGB (res, res, 3) of a decoded image (height, width, 3)."""
    px, py, bits = _places(affine, len(image), image.shape[1], res)
    x, y = _weights(px, bits, image.shape[1]), _weights(py, bits, len(image))
    made = [(_weighed(image[..., c], x, y) + 2048) >> 12 for c in range(3)]
    return np.stack(made, -1).astype(np.uint8)


def _halves(image: U8) -> U8:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    sums = np.zeros((height, width, 4), np.int64)
    for dy in (0, 1):
        for dx in (0, 1):
            sums += image[dy : 2 * height : 2, dx : 2 * width : 2]
    return np.asarray((sums + 2) >> 2, np.uint8)


def _along(count: int, source: int, level: int, samples: int) -> tuple[Ints, Ints]:
    """First sample and weight, in 64ths, at the middles of ``count`` pixels over ``source``: at
    (i + 0.5) * source / count / 2^level - 0.5, rounded half up.
    """
    steps = np.array(
        [
            ((2 * i + 1) * source * 64 + (count << level)) // (2 * (count << level)) - 32
            for i in range(count)
        ],
        np.int64,
    )
    steps = np.clip(steps, 0, (samples - 1) * 64)
    return steps >> 6, steps & 63


def paste(image: U8, cut_out: U8, one: Paste) -> None:
    """Blend a cut-out into an image, as many pixels wide as its own times ``size``, rounded."""
    height, width = cut_out.shape[:2]
    w, h = max(1, round(width * one.size)), max(1, round(height * one.size))
    level, pixels = 0, cut_out
    while level < 2 and width >> (level + 1) >= w and height >> (level + 1) >= h:
        if min(pixels.shape[:2]) < 2:
            break
        level, pixels = level + 1, _halves(pixels)
    left, wx = _along(w, width, level, pixels.shape[1])
    top, wy = _along(h, height, level, pixels.shape[0])
    big = pixels.astype(np.int64)
    right, bottom = np.minimum(left + 1, big.shape[1] - 1), np.minimum(top + 1, len(big) - 1)
    rows: Ints = big[top] * (64 - wy)[:, None, None] + big[bottom] * wy[:, None, None]
    sums: Ints = rows[:, left] * (64 - wx)[None, :, None] + rows[:, right] * wx[None, :, None]
    over = (sums + 2048) >> 12
    u0, v0 = round(one.x - w / 2), round(one.y - h / 2)
    for v in range(max(0, v0), min(len(image), v0 + h)):
        for u in range(max(0, u0), min(image.shape[1], u0 + w)):
            *colour, alpha = over[v - v0, u - u0].tolist()
            under = image[v, u].tolist()
            image[v, u] = [
                (2 * (alpha * c + (255 - alpha) * b) + 255) // 510
                for c, b in zip(colour, under, strict=True)
            ]


@dataclass(frozen=True)
class Camera:
    """What is done to a whole image; ``blur``: a pixel's weight, then those beside it."""

    cells: int
    blur: Sequence[int]
    gray: bool
    contrast: int
    brightness: int


def _by(matrix: Ints, image: Ints, matrix_across: Ints) -> Ints:
    """A matrix on the rows and another on the columns of an image (h, w, 3)."""
    return np.asarray(np.einsum("yv,vuc,xu->yxc", matrix, image, matrix_across, optimize=True))


def _shares(res: int, cells: int) -> Ints:
    """(cells, res): what of a cell each pixel is, in 256ths; places in the cell are rounded."""
    pixels = np.arange(res + 1)[None] * cells - np.arange(cells)[:, None] * res
    places = np.clip(pixels, 0, res) * 256 / res
    return np.asarray(np.diff(np.floor(places + 0.5).astype(np.int64), axis=1))


def _between(cells: int, res: int) -> Ints:
    """(res, cells): 64ths of the two cells that a pixel's middle lies between."""
    first, weight = _along(res, cells, 0, cells)
    made = np.zeros((res, cells), np.int64)
    for u in range(res):
        made[u, first[u]] += 64 - weight[u]
        made[u, min(first[u] + 1, cells - 1)] += weight[u]
    return made


def _blurring(res: int, weights: Sequence[int]) -> Ints:
    """(res, res): a row's weights of all pixels, those beyond the edge added to the edge's."""
    made = np.zeros((res, res), np.int64)
    for u in range(res):
        for k in range(1 - len(weights), len(weights)):
            made[u, min(max(u + k, 0), res - 1)] += weights[abs(k)]
    return made


def photographed(image: U8, camera: Camera) -> U8:
    """Fewer pixels, blur, gray, contrast and brightness, in this order, rounded after each
    direction.
    """
    res, big = len(image), image.astype(np.int64)
    whole = np.eye(res, dtype=np.int64)
    if camera.cells < res:
        down, up = _shares(res, camera.cells), _between(camera.cells, res)
        big = (_by(down, big, whole) + 128) >> 8
        big = (_by(np.eye(camera.cells, dtype=np.int64), big, down) + 128) >> 8
        big = (_by(up, big, np.eye(camera.cells, dtype=np.int64)) + 32) >> 6
        big = (_by(whole, big, up) + 32) >> 6
    blurring = _blurring(res, camera.blur)
    big = (_by(blurring, big, whole) + 128) >> 8
    big = (_by(whole, big, blurring) + 128) >> 8
    if camera.gray:
        gray = (big @ np.array([77, 150, 29]) + 128) >> 8
        big = np.repeat(gray[:, :, None], 3, axis=2)
    far = 2 * big - 255  # twice the distance from 127.5
    toned = np.floor((camera.contrast * far / 256 + 255) / 2 + camera.brightness / 256 + 0.5)
    return np.asarray(np.clip(toned, 0, 255), np.uint8)


def normalised(image: U8, factors: Any, mean: Any, deviation: Any) -> NDArray[np.float32]:
    """(3, res, res): factors, whole levels, then (level / 255 - mean) / deviation as a product and
    a difference.
    """
    levels = image.astype(np.float32) * np.asarray(factors, np.float32)
    levels = np.floor(np.minimum(levels, np.float32(255)))
    spread = np.asarray(deviation, np.float64)
    scale = (1 / (255 * spread)).astype(np.float32)
    shift = (np.asarray(mean, np.float64) / spread).astype(np.float32)
    return np.ascontiguousarray((levels * scale - shift).transpose(2, 0, 1))
