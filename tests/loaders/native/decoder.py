"""A JPEG decoder in Python, written from the standard and from jidctint.c: slow, and plain.

For baseline JPEGs of three components, 4:2:0, with a restart marker after each MCU.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def _on_the_way(place: int) -> tuple[int, int]:
    """Along the diagonals, to and fro."""
    row, column = divmod(place, 8)
    return row + column, row if (row + column) % 2 else column


_ORDER = sorted(range(64), key=_on_the_way)  # natural places in the order of the file


@dataclass
class Tables:
    """What a header states."""

    height: int = 0
    width: int = 0
    quant: dict[int, list[int]] = field(default_factory=dict)
    codes: dict[int, dict[str, int]] = field(default_factory=dict)
    begin: int = 0


def read_header(data: bytes) -> Tables:
    """The header's tables; codes are strings of bits."""
    tables, at = Tables(), 2
    while True:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        at += 2 + length
        if kind == 0xDB:
            for begin in range(0, len(content), 65):
                tables.quant[content[begin]] = list(content[begin + 1 : begin + 65])
        elif kind == 0xC0:
            tables.height, tables.width = (
                int.from_bytes(content[i : i + 2], "big") for i in (1, 3)
            )
        elif kind == 0xC4:
            while content:
                used = 17 + sum(content[1:17])
                tables.codes[content[0]] = _codes(content[1:17], content[17:used])
                content = content[used:]
        elif kind == 0xDA:
            tables.begin = at
            return tables


def _codes(counts: bytes, symbols: bytes) -> dict[str, int]:
    code, made, left = 0, {}, list(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            made[f"{code:0{length}b}"] = left.pop(0)
            code += 1
        code <<= 1
    return made


def _segments(data: bytes, begin: int) -> Iterator[str]:
    """Each MCU's bits."""
    bits: list[str] = []
    at = begin
    while True:
        if data[at] != 0xFF:
            bits.append(f"{data[at]:08b}")
            at += 1
            continue
        if data[at + 1] == 0:
            bits.append(f"{0xFF:08b}")
        else:
            yield "".join(bits)
            bits = []
            if data[at + 1] == 0xD9:
                return
        at += 2


class _Reader:
    def __init__(self, bits: str) -> None:
        self.bits, self.at = bits, 0

    def symbol(self, codes: dict[str, int]) -> int:
        end = self.at + 1
        while (found := codes.get(self.bits[self.at : end])) is None:
            end += 1
            assert end <= len(self.bits)
        self.at = end
        return found

    def value(self, size: int) -> int:
        if size == 0:
            return 0
        bits = self.bits[self.at : self.at + size]
        self.at += size
        return int(bits, 2) if bits[0] == "1" else int(bits, 2) - (1 << size) + 1


def _block(reader: _Reader, dc: dict[str, int], ac: dict[str, int], mean: int) -> list[int]:
    """Coefficients in the order of the file."""
    made = [0] * 64
    made[0] = mean + reader.value(reader.symbol(dc))
    k = 1
    while k < 64:
        run, size = divmod(reader.symbol(ac), 16)
        if (run, size) == (0, 0):
            break
        k += run
        if size:
            made[k] = reader.value(size)
        k += 1
    return made


def _islow(columns: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """jidctint.c's one dimension, along the first axis of (8, …): named and ordered as there."""
    z2, z3 = columns[2], columns[6]
    z1 = (z2 + z3) * 4433
    tmp2, tmp3 = z1 - z3 * 15137, z1 + z2 * 6270
    tmp0, tmp1 = (columns[0] + columns[4]) << 13, (columns[0] - columns[4]) << 13
    tmp10, tmp13, tmp11, tmp12 = tmp0 + tmp3, tmp0 - tmp3, tmp1 + tmp2, tmp1 - tmp2
    tmp0, tmp1, tmp2, tmp3 = columns[7], columns[5], columns[3], columns[1]
    z1, z2, z3, z4 = tmp0 + tmp3, tmp1 + tmp2, tmp0 + tmp2, tmp1 + tmp3
    z5 = (z3 + z4) * 9633
    tmp0, tmp1, tmp2, tmp3 = tmp0 * 2446, tmp1 * 16819, tmp2 * 25172, tmp3 * 12299
    z1, z2, z3, z4 = -z1 * 7373, -z2 * 20995, -z3 * 16069 + z5, -z4 * 3196 + z5
    tmp0, tmp1, tmp2, tmp3 = tmp0 + z1 + z3, tmp1 + z2 + z4, tmp2 + z2 + z3, tmp3 + z1 + z4
    out = np.stack(
        [
            *(tmp10 + tmp3, tmp11 + tmp2, tmp12 + tmp1, tmp13 + tmp0),
            *(tmp13 - tmp0, tmp12 - tmp1, tmp11 - tmp2, tmp10 - tmp3),
        ]
    )
    return np.asarray((out + (1 << (shift - 1))) >> shift, np.int64)


def idct(blocks: NDArray[np.int64]) -> U8:
    """Pixels (n, 8, 8) of dequantised coefficients (n, 8, 8)."""
    work = _islow(blocks.transpose(1, 0, 2), 11)  # down the columns
    work = _islow(work.transpose(2, 1, 0), 18)  # along the rows
    return np.asarray(np.clip(work.transpose(1, 2, 0) + 128, 0, 255), np.uint8)


def planes(data: bytes) -> tuple[U8, U8]:
    """Luma (height, width) and chroma ((height + 1) // 2, (width + 1) // 2, 2) of Cb and Cr."""
    tables = read_header(data)
    rows, columns = -(-tables.height // 16), -(-tables.width // 16)
    found: list[list[int]] = []
    for bits in _segments(data, tables.begin):
        reader, means = _Reader(bits), [0, 0, 0]
        for component in (0, 0, 0, 0, 1, 2):
            dc, ac = (tables.codes[kind + min(component, 1)] for kind in (0x00, 0x10))
            block = _block(reader, dc, ac, means[component])
            means[component] = block[0]
            quant = tables.quant[min(component, 1)]
            found.append([c * q for c, q in zip(block, quant, strict=True)])
    assert len(found) == rows * columns * 6
    natural = np.zeros((len(found), 64), np.int64)
    natural[:, _ORDER] = found
    tiles = idct(natural.reshape(-1, 8, 8)).reshape(rows, columns, 6, 8, 8)
    luma = tiles[:, :, :4].reshape(rows, columns, 2, 2, 8, 8).transpose(0, 2, 4, 1, 3, 5)
    chroma = tiles[:, :, 4:].transpose(0, 3, 1, 4, 2)
    height, width = tables.height, tables.width
    return (
        luma.reshape(rows * 16, columns * 16)[:height, :width],
        chroma.reshape(rows * 8, columns * 8, 2)[: -(-height // 2), : -(-width // 2)],
    )
