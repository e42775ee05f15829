"""Cutting a JPEG down to some of its MCUs without decoding it.

An MCU is the smallest square that a JPEG codes by itself: 16 x 16 pixels with 4:2:0 chroma. Stored
crops carry a restart marker after each, so that any of them can be taken out: what an augmentation
does not show is never decoded. The result is a smaller plain JPEG, whose pixels are those of the
whole image, but for two beside what was left out (chroma is interpolated over its neighbours).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MCU = 16  # px, of both sides

_EOI, _SOF0, _DHT, _SOS, _DRI, _RST0 = 0xD9, 0xC0, 0xC4, 0xDA, 0xDD, 0xD0
_SIZE = struct.Struct(">HH")
# Three components, luma twice as fine in both directions; tables 0 for luma, 1 for chroma.
_YCBCR_420 = bytes([3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
_SCAN = bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0])
_MAX_HEADER = 4096
# Bits of an MCU of no content: for each block, no change of its mean, and the end of the block.
_LUMA_BLOCKS, _CHROMA_BLOCKS = 4, 2


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands before the MCUs of JPEGs of one encoder and quality.

    ``before`` the height and the width, ``after`` them, and the bytes of an MCU of no content with
    the marker behind it.
    """

    before: bytes
    after: bytes
    blank: bytes

    @property
    def begin(self) -> int:
        """First byte of the first MCU."""
        return len(self.before) + _SIZE.size + len(self.after)

    def starts(self, data: bytes) -> bool:
        """Whether ``data`` begin with this header, whatever their height and width."""
        return data.startswith(self.before) and data.startswith(
            self.after, len(self.before) + _SIZE.size
        )


@dataclass(frozen=True, kw_only=True)
class Region:
    """MCUs of an image: those of rows ``top``, ``top + 1``, … from ``first`` to ``last`` each.

    Both are columns and inclusive; there is one of each a row.
    """

    top: int
    first: Sequence[int]
    last: Sequence[int]

    @property
    def left(self) -> int:
        """The leftmost column of any row."""
        return min(self.first)

    @property
    def columns(self) -> int:
        """Columns from the leftmost of any row to the rightmost of any row."""
        return max(self.last) + 1 - self.left


def _code_of(table: bytes, symbol: int) -> str | None:
    """The Huffman code of a symbol, in bits, by a table as DHT has it; None if it has none."""
    code, index = 0, 16
    for length in range(1, 17):
        for _ in range(table[length - 1]):
            if index < len(table) and table[index] == symbol:
                return f"{code:0{length}b}"
            code, index = code + 1, index + 1
        code <<= 1
    return None


def _blank(tables: dict[int, bytes]) -> bytes | None:
    """The bytes of an MCU of no content and its marker, by the Huffman tables of a header."""
    bits = ""
    for blocks, dc, ac in ((_LUMA_BLOCKS, 0x00, 0x10), (_CHROMA_BLOCKS, 0x01, 0x11)):
        codes = [_code_of(tables[name], 0) if name in tables else None for name in (dc, ac)]
        if codes[0] is None or codes[1] is None:
            return None
        bits += (codes[0] + codes[1]) * blocks
    bits += "1" * (-len(bits) % 8)
    made = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return None if 0xFF in made else made + bytes([0xFF, _RST0])


@lru_cache(maxsize=64)
def _parse(head: bytes) -> Header | None:
    """The header of a baseline 4:2:0 JPEG with a marker after each MCU; None for any other."""
    tables: dict[int, bytes] = {}
    size_at, each_mcu, at = 0, False, 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        kind, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        content = head[at + 4 : at + 2 + length]
        if kind == _SOF0 and content[5:] == _YCBCR_420:
            size_at = at + 5
        elif kind == _DRI:
            each_mcu = content == b"\0\1"
        elif kind == _DHT:
            while len(content) > 17:
                count = 17 + sum(content[1:17])
                tables[content[0]], content = content[1:count], content[count:]
        elif kind == _SOS:
            blank = _blank(tables)
            if blank is None or not size_at or not each_mcu or content != _SCAN:
                return None
            after = head[size_at + _SIZE.size : at + 2 + length]
            return Header(before=head[:size_at], after=after, blank=blank)
        at += 2 + length
    return None


@dataclass
class _LastHeader:
    """The header that was found last: nearly always the next one's too."""

    header: Header | None = None


_LAST = _LastHeader()


def find_header(data: bytes) -> Header | None:
    """The header of a JPEG with a marker after each MCU; None for others: decode them whole."""
    last = _LAST.header
    if last is not None and last.starts(data):
        return last
    end = data.find(bytes([0xFF, _SOS]), 0, _MAX_HEADER)
    if end < 0 or len(data) < end + 4:
        return None
    head = data[: end + 2 + int.from_bytes(data[end + 2 : end + 4], "big")]
    size = head.find(bytes([0xFF, _SOF0])) + 5
    header = _parse(head[:size] + bytes(_SIZE.size) + head[size + _SIZE.size :])
    if header is not None and header.starts(data):
        _LAST.header = header
        return header
    return None


def _markers(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where markers stand in the bytes of MCUs: at 0xFF, where no 0 follows."""
    at = np.flatnonzero(codes[:-1] == 0xFF)
    markers: NDArray[np.int64] = at[codes[at + 1] != 0]
    return markers


def cut(data: bytes, header: Header, size: tuple[int, int], region: Region) -> bytearray | None:
    """A JPEG of the region's bounding rectangle, whose other MCUs hold nothing.

    ``size`` is the height and width of the whole image. The result's first pixel is pixel
    ``(16 * region.left, 16 * region.top)`` of the whole image; its size is :func:`cut_size`.
    None if the data do not hold an image of that size with a marker after each MCU.
    """
    if _SIZE.unpack_from(data, len(header.before)) != size:
        return None
    columns = -(-size[1] // MCU)
    begin = header.begin
    ends = _markers(np.frombuffer(data, np.uint8, offset=begin))
    if len(ends) != columns * -(-size[0] // MCU):
        return None
    starts = np.concatenate([[0], ends + 2]) + begin
    rows = np.arange(region.top, region.top + len(region.first)) * columns
    froms = starts[rows + region.first].tolist()
    tos = starts[rows + region.last + 1].tolist()
    left, right = region.left, region.left + region.columns
    parts = [header.before, _SIZE.pack(*cut_size(size, region)), header.after]
    for first, last, start, stop in zip(region.first, region.last, froms, tos, strict=True):
        parts += (
            header.blank * (first - left),
            data[start:stop],
            header.blank * (right - last - 1),
        )
    made = bytearray(b"".join(parts))
    numbered = np.frombuffer(made, np.uint8)[begin:]
    at = _markers(numbered)
    numbered[at + 1] = np.arange(len(at)) % 8 + _RST0
    made[-1] = _EOI
    return made


def cut_size(size: tuple[int, int], region: Region) -> tuple[int, int]:
    """Height and width of what :func:`cut` gives of an image of ``size`` (height, width)."""
    return (
        min(size[0] - MCU * region.top, MCU * len(region.first)),
        min(size[1] - MCU * region.left, MCU * region.columns),
    )
