"""Decides whether stray bytes between two segments of a JPEG's header are foreign, or are a part of
a damaged segment.

If a byte was inserted into a segment, the segment's last byte becomes a stray byte. If a byte was
deleted, the segment takes the first byte of the next one, of which the rest becomes stray bytes.
libjpeg skips all stray bytes with the same warning. So the segment before them is checked for
completeness.
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
_JFIF_BYTES, _ADOBE_BYTES = 14, 12  # libjpeg ignores shorter ones
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
    """For each Huffman table: True if it is for DC coefficients, and its symbols."""
    at = 0
    while at + 17 <= len(payload):
        end = at + 17 + sum(payload[at + 1 : at + 17])
        yield not payload[at] & 0xF0, payload[at + 17 : end]
        at = end


def _is_symbol(value: int, of_dc: bool) -> bool:
    """True if a Huffman table for 8-bit samples may contain the value."""
    return value <= 11 if of_dc else value & 0x0F <= 10


def _has_own_symbols(payload: bytes, strays: bytes) -> bool:
    """True if the Huffman tables contain only possible symbols, each once, and the last stray byte
    is not a further possible symbol.
    """
    of_dc, last = True, b""
    for of_dc, last in _symbols(payload):
        if len(set(last)) < len(last) or not all(_is_symbol(one, of_dc) for one in last):
            return False
    return strays[-1] in last or not _is_symbol(strays[-1], of_dc)


def _frame_is_whole(payload: bytes, strays: bytes) -> bool:
    """True if the last stray byte cannot be the number of a quantization table, with which a frame
    header ends; or if the table numbers are the usual ones: all colours but the first have the
    same, and a single colour has 0.
    """
    tables = payload[8::3]
    return strays[-1] > 3 or (len(set(tables[1:])) == 1 if len(tables) > 1 else tables == b"\0")


def _jfif_is_whole(payload: bytes, _strays: bytes) -> bool:
    return payload.startswith(_JFIF) and len(payload) >= _JFIF_BYTES


def _exif_is_whole(payload: bytes, _strays: bytes) -> bool:
    return payload.startswith(_XMP) or orientation(payload.removeprefix(EXIF)) is not None


def _adobe_is_whole(payload: bytes, strays: bytes) -> bool:
    """True if Adobe's segment has its full length, and the last stray byte cannot be the transform
    (0, 1 or 2) with which the segment ends.
    """
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
    """True if the segment before the ``strays`` is surely complete, and the strays decide no pixel.

    Tables that are lost as a whole need no check: without them the image cannot be decoded.
    """
    names = (name for name in (EXIF, _JFIF, _ADOBE) if not payload.startswith(name))
    if any(name in payload + strays for name in names):
        return False
    is_whole = _IS_WHOLE.get(marker)
    return is_whole is not None and is_whole(payload, strays)
