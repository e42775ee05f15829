"""A small baseline JPEG encoder that takes any sampling factors, which no library here does."""

from collections.abc import Iterator, Sequence
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.small import encoded

Factors = Sequence[tuple[int, int]]  # across and down, of each component

_ZIGZAG = sorted(
    range(64), key=lambda i: (sum(divmod(i, 8)), divmod(i, 8)[sum(divmod(i, 8)) % 2 == 0])
)
_STEPS = 4


def segment(marker: int, payload: bytes) -> bytes:
    """A marker with its payload."""
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _standard_tables() -> list[bytes]:
    """Payloads of the two DHT segments for luma that OpenCV writes: DC, then AC."""
    data = encoded(".jpg", np.zeros((8, 8), np.uint8))
    found = []
    at = 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xC4:
            found.append(data[at + 4 : at + 2 + length])
        at += 2 + length
    return found


def _codes(table: bytes) -> dict[int, str]:
    """The code of each symbol, as 0s and 1s."""
    codes: dict[int, str] = {}
    code, symbols = 0, iter(table[17:])
    for length, count in enumerate(table[1:17], 1):
        for _ in range(count):
            codes[next(symbols)] = format(code, f"0{length}b")
            code += 1
        code <<= 1
    return codes


def _bits(value: int) -> str:
    """A coefficient's own bits: a negative one's are turned over."""
    size = abs(value).bit_length()
    return format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""


def _block(values: list[int], before: int, dc: dict[int, str], ac: dict[int, str]) -> Iterator[str]:
    change = values[0] - before
    yield dc[abs(change).bit_length()] + _bits(change)
    last = max((index for index in range(64) if values[index]), default=0)
    run = 0
    for value in values[1 : last + 1]:
        run = run + 1 if not value else run
        if value:
            yield ac[0xF0] * (run // 16) + ac[run % 16 << 4 | abs(value).bit_length()]
            yield _bits(value)
            run = 0
    if last < 63:
        yield ac[0]


def make_jpeg(
    planes: NDArray[np.uint8], factors: Factors, segments: bytes = b"", restart: int = 0
) -> bytes:
    """Encode planes (H, W, C) as they are; ``segments`` go into the header, ``restart`` in MCUs."""
    height, width = planes.shape[:2]
    stated = factors
    if len(factors) == 1:  # the factors of a single component mean nothing
        factors = [(1, 1)]
    widest, highest = (max(one) for one in zip(*factors, strict=True))
    across, down = -(-width // (8 * widest)), -(-height // (8 * highest))
    parts = []
    for number, (h, v) in enumerate(factors):
        size = across * h * 8, down * v * 8
        plane = cv2.resize(planes[..., number], size, interpolation=cv2.INTER_AREA)
        parts.append(plane.astype(np.float32) - 128)
    dc, ac = map(_codes, _standard_tables())
    before = [0] * len(factors)
    streams = [""]
    for mcu, (row, column) in enumerate(product(range(down), range(across))):
        if restart and mcu and mcu % restart == 0:
            streams.append("")
            before = [0] * len(factors)
        for number, (h, v) in enumerate(factors):
            for y, x in product(range(v), range(h)):
                top, left = (row * v + y) * 8, (column * h + x) * 8
                block = cv2.dct(parts[number][top : top + 8, left : left + 8])
                flat = np.rint(block / _STEPS).astype(int).ravel()
                values = [int(flat[index]) for index in _ZIGZAG]
                streams[-1] += "".join(_block(values, before[number], dc, ac))
                before[number] = values[0]
    scan = b""
    for number, bits in enumerate(streams):
        whole = bits + "1" * (-len(bits) % 8)
        data = int(whole, 2).to_bytes(len(whole) // 8, "big").replace(b"\xff", b"\xff\0")
        scan += (bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b"") + data
    frame = [bytes([number, h << 4 | v, 0]) for number, (h, v) in enumerate(stated, 1)]
    chosen = [bytes([number, 0]) for number in range(1, len(factors) + 1)]
    size_of = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"".join(
        [
            b"\xff\xd8" + segments,
            segment(0xDB, b"\0" + bytes([_STEPS]) * 64),
            segment(0xC0, b"\x08" + size_of + bytes([len(frame)]) + b"".join(frame)),
            *(segment(0xC4, table) for table in _standard_tables()),
            segment(0xDD, restart.to_bytes(2, "big")),
            segment(0xDA, bytes([len(frame)]) + b"".join(chosen) + b"\0\x3f\0"),
            scan + b"\xff\xd9",
        ]
    )
