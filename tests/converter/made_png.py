"""PNG files of every kind, written chunk by chunk."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.small import picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A chunk with its right CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of each chunk."""
    at = len(SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _rows(pixels: NDArray[Any], depth: int) -> bytes:
    """Unfiltered rows."""
    found = b""
    for row in pixels:
        if depth == 16:
            data = row.astype(">u2").tobytes()
        elif depth == 8:
            data = row.astype(np.uint8).tobytes()
        else:
            planes = (row[..., None] >> np.arange(depth)[::-1]) & 1
            data = np.packbits(planes.astype(np.uint8).ravel()).tobytes()
        found += b"\0" + data
    return found


def make_png(
    pixels: NDArray[Any],
    colours: int,
    depth: int = 8,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    pieces: int = 3,
) -> bytes:
    """A PNG of (H, W) or (H, W, C) numbers, with chunks before and after those of its pixels."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced)
    parts = (
        [pixels[y::down, x::across] for x, y, across, down in _ADAM7] if interlaced else [pixels]
    )
    packed = zlib.compress(b"".join(_rows(part, depth) for part in parts if part.size))
    length = -(-len(packed) // pieces)
    data = [chunk(b"IDAT", packed[at : at + length]) for at in range(0, len(packed), length)]
    return b"".join(
        [SIGNATURE, chunk(b"IHDR", header), before, *data, after, chunk(b"IEND")],
    )


def exif(orientation: int) -> bytes:
    """EXIF from its TIFF header on."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def kinds() -> dict[str, bytes]:
    """A file of each kind, of the same small picture."""
    rgb = np.ascontiguousarray(picture(5, 40, 28)[..., ::-1])
    deep = rgb.astype(np.uint16) * 257 + 3
    gray = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (28, 1))
    index = gray >> 4
    palette = chunk(b"PLTE", np.random.default_rng(0).bytes(3 * 16))
    clear = chunk(b"tRNS", bytes(range(10)))
    both = np.dstack([gray, alpha])
    four = np.dstack([rgb, alpha])
    made = {
        "rgb": make_png(rgb, RGB),
        "rgb-text": make_png(rgb, RGB, before=chunk(b"tEXt", b"Title\0a picture")),
        "rgb-transparent": make_png(rgb, RGB, before=chunk(b"tRNS", bytes(6))),
        "rgb-turned": make_png(rgb, RGB, before=chunk(b"eXIf", exif(6))),
        "rgb-turned-at-the-end": make_png(rgb, RGB, after=chunk(b"eXIf", exif(8))),
        "rgb-interlaced": make_png(rgb, RGB, interlaced=True),
        "rgb-palette": make_png(rgb, RGB, before=palette),
        "rgb-16": make_png(deep, RGB, 16),
        "rgb-16-interlaced": make_png(deep, RGB, 16, interlaced=True),
        "gray": make_png(gray, GRAY),
        "gray-transparent": make_png(gray, GRAY, before=chunk(b"tRNS", b"\0\7")),
        "gray-interlaced": make_png(gray, GRAY, interlaced=True),
        "gray-16": make_png(deep[..., 0], GRAY, 16),
        "gray-alpha": make_png(both, GRAY_ALPHA),
        "gray-alpha-16": make_png(both.astype(np.uint16) * 257, GRAY_ALPHA, 16),
        "rgba": make_png(four, RGBA),
        "rgba-interlaced": make_png(four, RGBA, interlaced=True),
        "rgba-16": make_png(four.astype(np.uint16) * 257, RGBA, 16),
        "palette": make_png(index, PALETTE, before=palette),
        "palette-transparent": make_png(index, PALETTE, before=palette + clear),
        "palette-interlaced": make_png(index, PALETTE, before=palette, interlaced=True),
    }
    for depth in (1, 2, 4):
        made[f"gray-{depth}"] = make_png(gray >> (8 - depth), GRAY, depth)
        made[f"palette-{depth}"] = make_png(gray >> (8 - depth), PALETTE, depth, before=palette)
    return made
