"""Cutting a JPEG down to some of its MCUs without decoding it.

An MCU is the smallest square that a JPEG codes by itself: 16 x 16 pixels with 4:2:0 chroma. Stored
crops carry a restart marker after each, so that any of them can be taken out: what an augmentation
does not show is never decoded. The result is a smaller plain JPEG, whose pixels are those of the
whole image, but for two beside what was left out (chroma is interpolated over its neighbours).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

MCU = 16  # px, of both sides

_EOI, _SOF0, _DHT, _SOS, _DRI, _RST0 = 0xD9, 0xC0, 0xC4, 0xDA, 0xDD, 0xD0
_SIZE = struct.Struct(">HH")
# Three components, luma twice as fine in both directions; tables 0 for luma, 1 for chroma.
_YCBCR_420 = bytes([3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
_SCAN = bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0])
_MAX_HEADER = 4096
_MOST_BLANKS = 256  # in a row; a wider image is decoded whole
_NARROW = 4  # px; libjpeg interpolates chroma only in wider images
# Bits of an MCU of no content: for each block, no change of its mean, and the end of the block.
_LUMA_BLOCKS, _CHROMA_BLOCKS = 4, 2


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands before the MCUs of JPEGs of one encoder and quality.

    ``before`` the height and the width, and ``after`` them; ``blank``: an MCU of no content.
    """

    before: bytes
    after: bytes
    blank: bytes

    @cached_property
    def begin(self) -> int:
        """First byte of the first MCU."""
        return len(self.before) + _SIZE.size + len(self.after)

    def starts(self, data: bytes) -> bool:
        """Whether ``data`` begin with this header, whatever their height and width."""
        return data.startswith(self.before) and data.startswith(
            self.after, len(self.before) + _SIZE.size
        )

    @cached_property
    def blanks(self) -> list[bytes]:
        """Rows of blank MCUs and their markers, the first of which is numbered 0, 1, … 7."""
        one = len(self.blank) + 2
        period = b"".join(self.blank + bytes([0xFF, _RST0 + number]) for number in range(8))
        row = period * (_MOST_BLANKS // 8 + 1)
        return [row[one * number : one * (number + _MOST_BLANKS)] for number in range(8)]


@dataclass(frozen=True, kw_only=True)
class Region:
    """MCUs of an image: in the rows ``top``, ``top + 1``, … those from ``first`` to ``last``.

    Both are columns and inclusive; there is one of each a row. ``left`` is the least of all, and
    ``columns`` as many as there are from there to the greatest.
    """

    top: int
    first: Sequence[int]
    last: Sequence[int]
    left: int
    columns: int

    @classmethod
    def of(cls, top: int, first: Sequence[int], last: Sequence[int]) -> "Region":
        """The region of these rows."""
        left = min(first)
        return cls(top=top, first=first, last=last, left=left, columns=max(last) + 1 - left)


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
    """The bytes of an MCU of no content, by the Huffman tables of a header."""
    bits = ""
    for blocks, dc, ac in ((_LUMA_BLOCKS, 0x00, 0x10), (_CHROMA_BLOCKS, 0x01, 0x11)):
        codes = [_code_of(tables[name], 0) if name in tables else None for name in (dc, ac)]
        if codes[0] is None or codes[1] is None:
            return None
        bits += (codes[0] + codes[1]) * blocks
    bits += "1" * (-len(bits) % 8)
    made = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return None if 0xFF in made else made


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


@lru_cache(maxsize=1024)
def _numbers(rows: int, columns: int, width: int, offset: int) -> NDArray[np.uint8]:
    """Second bytes of the markers behind all MCUs of an image of ``rows`` x ``columns`` of them,
    where those of a row follow ``width`` after those of the row before; all modulo 8.
    """
    numbers = np.arange(rows)[:, None] * width + np.arange(columns) + offset
    return (numbers % 8 + _RST0).astype(np.uint8).ravel()


def _mcu_ends(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the second byte of each marker stands: behind 0xFF, and not 0."""
    ends: NDArray[np.int64] = np.flatnonzero((codes[:-1] == 0xFF) & (codes[1:] != 0)) + 1
    return ends


def cut(data: bytes, header: Header, size: tuple[int, int], region: Region) -> bytearray | None:
    """A JPEG of the region's bounding rectangle, whose other MCUs hold nothing.

    ``size`` is the height and width of the whole image. The result's first pixel is pixel
    ``(16 * region.left, 16 * region.top)`` of the whole image; its size is :func:`cut_size`.
    None if the data do not hold an image of that size with a marker after each MCU, or if chroma
    would not be interpolated in the result as in the whole image.
    """
    rows, columns = -(-size[0] // MCU), -(-size[1] // MCU)
    width, left, top = region.columns, region.left, region.top
    if _SIZE.unpack_from(data, len(header.before)) != size or width > _MOST_BLANKS:
        return None
    made_size = cut_size(size, region)
    if made_size[1] <= _NARROW and left > 0:
        return None
    codes = np.frombuffer(bytearray(data), np.uint8)[header.begin :]
    ends = _mcu_ends(codes)
    if len(ends) != rows * columns:
        return None
    # Markers are numbered modulo 8 in their order, so they get their numbers in the result.
    codes[ends] = _numbers(rows, columns, width % 8, -(top * width + left) % 8)
    begins = np.concatenate([[0], ends + 1])
    row_begins = np.arange(top, top + len(region.first)) * columns
    froms = begins[row_begins + region.first].tolist()
    tos = begins[row_begins + region.last + 1].tolist()
    parts: list[bytes | memoryview] = [header.before, _SIZE.pack(*made_size), header.after]
    blanks, one, source = header.blanks, len(header.blank) + 2, codes.data
    number = 0
    for first, last, begin, end in zip(region.first, region.last, froms, tos, strict=True):
        after = last + 1 - left
        parts += (
            blanks[number % 8][: one * (first - left)],
            source[begin:end],
            blanks[(number + after) % 8][: one * (width - after)],
        )
        number += width
    made = bytearray().join(parts)
    made[-1] = _EOI
    return made


def cut_size(size: tuple[int, int], region: Region) -> tuple[int, int]:
    """Height and width of what :func:`cut` gives of an image of ``size`` (height, width)."""
    return (
        min(size[0] - MCU * region.top, MCU * len(region.first)),
        min(size[1] - MCU * region.left, MCU * region.columns),
    )
