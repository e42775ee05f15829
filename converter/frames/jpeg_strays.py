"""Stray bytes in the header of a JPEG: do they come from elsewhere, or are they the rest of a
damaged segment?

A byte inserted into a segment pushes the segment's last byte out of it; after a deleted byte the
segment takes the first byte of the next one. libjpeg skips the bytes that follow with a warning, as
it skips foreign ones. So the segment before them is checked for completeness.
"""

from collections.abc import Callable, Iterator
from functools import cache

import cv2
import numpy as np

from refit_shard.converter.frames.exif import EXIF, orientation

_COMMENT, _HUFFMAN, _QUANTIZATION = 0xFE, 0xC4, 0xDB
_FRAMES = (0xC0, 0xC1, 0xC2)
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_JFIF, _ADOBE, _XMP = b"JFIF\0", b"Adobe\0", b"http://ns.adobe.com/"
_JFIF_BYTES, _ADOBE_BYTES = 14, 12  # libjpeg overlooks a shorter one
_QUANTIZATION_BYTES = 65  # its number, and 64 steps


@cache
def _usual_steps() -> frozenset[bytes]:
    """The quantization tables of libjpeg's qualities 1 to 100, as most programs write them."""
    found = set()
    for quality in range(1, 101):
        data = cv2.imencode(
            ".jpg", np.zeros((8, 8, 3), np.uint8), (cv2.IMWRITE_JPEG_QUALITY, quality)
        )[1].tobytes()
        for part in data.split(b"\xff\xdb\x00\x43")[1:]:
            found.add(part[1:_QUANTIZATION_BYTES])
    return frozenset(found)


def _has_usual_steps(payload: bytes, _strays: bytes) -> bool:
    tables = range(0, len(payload), _QUANTIZATION_BYTES)
    return all(payload[at + 1 : at + _QUANTIZATION_BYTES] in _usual_steps() for at in tables)


def _symbols(payload: bytes) -> Iterator[tuple[bool, bytes]]:
    """For each Huffman table whether it is one of DC coefficients, and its symbols."""
    at = 0
    while at + 17 <= len(payload):
        end = at + 17 + sum(payload[at + 1 : at + 17])
        yield not payload[at] & 0xF0, payload[at + 17 : end]
        at = end


def _is_symbol(value: int, of_dc: bool) -> bool:
    """Whether a Huffman table of 8-bit samples may hold the value."""
    return value <= 11 if of_dc else value & 0x0F <= 10


def _has_own_symbols(payload: bytes, strays: bytes) -> bool:
    """Huffman tables hold possible symbols, each once, and the strays do not end with another."""
    of_dc, last = True, b""
    for of_dc, last in _symbols(payload):
        if len(set(last)) < len(last) or not all(_is_symbol(one, of_dc) for one in last):
            return False
    return strays[-1] in last or not _is_symbol(strays[-1], of_dc)


def _frame_is_whole(payload: bytes, strays: bytes) -> bool:
    """The strays do not end as a frame header does, with the number of a table; or the numbers are
    as ever: the colours beyond the first share one, and a single one has number 0.
    """
    tables = payload[8::3]
    return strays[-1] > 3 or (len(set(tables[1:])) == 1 if len(tables) > 1 else tables == b"\0")


def _jfif_is_whole(payload: bytes, _strays: bytes) -> bool:
    return payload.startswith(_JFIF) and len(payload) >= _JFIF_BYTES


def _exif_is_whole(payload: bytes, _strays: bytes) -> bool:
    return payload.startswith(_XMP) or orientation(payload.removeprefix(EXIF)) is not None


def _adobe_is_whole(payload: bytes, strays: bytes) -> bool:
    """The strays do not end as Adobe's segment does: with a transform of 0, 1 or 2."""
    return payload.startswith(_ADOBE) and len(payload) == _ADOBE_BYTES and strays[-1] > 2


_IS_WHOLE: dict[int, Callable[[bytes, bytes], bool]] = {
    _QUANTIZATION: _has_usual_steps,
    _HUFFMAN: _has_own_symbols,
    **dict.fromkeys(_FRAMES, _frame_is_whole),
    **dict.fromkeys(range(_APP0, _APP15 + 1), lambda _payload, _strays: True),
    _COMMENT: lambda _payload, _strays: True,
    _APP0: _jfif_is_whole,
    _APP1: _exif_is_whole,
    _APP14: _adobe_is_whole,
}


def are_foreign(marker: int, payload: bytes, strays: bytes) -> bool:
    """Whether the ``strays`` after a segment surely decide no pixel, and the segment is whole.

    Tables that are lost as a whole need no look here: without them nothing is decoded.
    """
    names = (name for name in (EXIF, _JFIF, _ADOBE) if not payload.startswith(name))
    if any(name in payload + strays for name in names):
        return False
    is_whole = _IS_WHOLE.get(marker)
    return is_whole is not None and is_whole(payload, strays)
