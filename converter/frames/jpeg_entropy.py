"""Checks that the scans of a JPEG are complete, for samplings that simplejpeg cannot decode.

The entropy-coded data of each scan are decoded to the end, without computing pixels. This takes
about a second a megapixel, but such files are rare. It finds what libjpeg warns of: invalid codes,
segments that end too early or too late, restart markers out of sequence, scans out of order.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from refit_shard.converter.frames.jpeg_header import NEXT_MARKER, Header
from refit_shard.shards_spec.errors import FrameError

_HUFFMAN, _RESTARTS, _END, _SCAN, _INTERVAL = 0xC4, range(0xD0, 0xD8), 0xD9, 0xDA, 0xDD
_PROGRESSIVE = 0xC2

MAX_PIXELS = 32 << 20

Codes = list[tuple[int, int]]  # (length of the code, symbol), by the next 16 bits


def _refused(what: str) -> FrameError:
    return FrameError("corrupt", f"the JPEG's scan is damaged: {what}")


def _ceil(number: int, by: int) -> int:
    return -(-number // by)


def _codes(counts: bytes, symbols: bytes) -> Codes:
    codes: Codes = []
    symbol = iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes += [(length, next(symbol))] * (1 << (16 - length))
            if len(codes) > 1 << 16:
                raise _refused("a Huffman table with too many codes")
    return codes + [(0, 0)] * ((1 << 16) - len(codes))


_NO_CODES = _codes(b"", b"")


class _Bits:
    """The bits between two markers."""

    def __init__(self, data: bytes) -> None:
        stuffed = np.frombuffer(data.replace(b"\xff\x00", b"\xff") + bytes(3), np.uint8)
        words = stuffed.astype(np.int64)
        self.windows: list[int] = ((words[:-2] << 16) | (words[1:-1] << 8) | words[2:]).tolist()
        self.count = 8 * (len(stuffed) - 3)
        self.at = 0

    def symbol(self, codes: Codes) -> int:
        at = self.at
        if at > self.count:
            raise _refused("it ends too early")
        length, symbol = codes[(self.windows[at >> 3] >> (8 - (at & 7))) & 0xFFFF]
        if not length:
            raise _refused("a code that is not in the Huffman table")
        self.at = at + length
        return symbol

    def number(self, length: int) -> int:
        """The next ``length`` bits, at most 16."""
        at = self.at
        if at + length > self.count:
            raise _refused("it ends too early")
        self.at = at + length
        return (self.windows[at >> 3] >> (24 - (at & 7) - length)) & ((1 << length) - 1)

    def close(self) -> None:
        if not 0 <= self.count - self.at < 8:
            raise _refused("a segment ends too early or too late")


@dataclass
class _Component:
    across: int  # blocks in an MCU, horizontally
    down: int  # and vertically
    columns: int  # blocks in a row of a scan with this component alone
    rows: int
    stride: int  # blocks in a row of a scan of whole MCUs
    known: dict[int, bytearray] = field(default_factory=dict)  # by block: 1 for coefficients not 0
    precision: list[int] = field(default_factory=lambda: [-1] * 64)  # last Al of each coefficient


@dataclass(frozen=True)
class _Scan:
    """One scan: its components with their tables, and which bits of which coefficients it contains:
    coefficients ``first`` to ``last`` (Ss, Se), bits ``high`` and ``low`` (Ah, Al).
    """

    parts: tuple[tuple[_Component, Codes, Codes], ...]
    first: int
    last: int
    high: int
    low: int
    is_progressive: bool

    def check_order(self) -> None:
        """Check that a progressive scan continues where the scans before it ended."""
        for component, _, _ in self.parts:
            known = component.precision
            if self.first and known[0] < 0:
                raise _refused("a scan out of order")
            for index in range(self.first, self.last + 1):
                if self.high != max(known[index], 0):
                    raise _refused("a scan out of order")
                known[index] = self.low

    def blocks(self, size: tuple[int, int]) -> Iterator[list[tuple[int, int]]]:
        """Yields, for each MCU, (component, block) of its blocks. ``size``: columns and
        rows of MCUs.
        """
        if len(self.parts) == 1:
            component = self.parts[0][0]
            for row in range(component.rows):
                for column in range(component.columns):
                    yield [(0, row * component.stride + column)]
            return
        for row in range(size[1]):
            for column in range(size[0]):
                yield [
                    (part, (row * one.down + y) * one.stride + column * one.across + x)
                    for part, (one, _, _) in enumerate(self.parts)
                    for y in range(one.down)
                    for x in range(one.across)
                ]


class _Reader:
    """Follows the codes of one scan. ``eob_run``: number of further blocks without new
    coefficients.
    """

    def __init__(self, scan: _Scan) -> None:
        self.scan = scan
        self.eob_run = 0

    def block(self, bits: _Bits, part: int, index: int) -> None:
        scan = self.scan
        component, dc, ac = scan.parts[part]
        if not scan.is_progressive:
            bits.number(bits.symbol(dc) & 15)
            self._sequential(bits, ac)
        elif scan.first == 0:
            bits.number(1 if scan.high else bits.symbol(dc) & 15)
        else:
            known = component.known.get(index) or bytearray(64)
            if (self._refine if scan.high else self._begin)(bits, ac, known):
                component.known[index] = known

    @staticmethod
    def _sequential(bits: _Bits, ac: Codes) -> None:
        index = 1
        while index < 64:
            run, size = divmod(bits.symbol(ac), 16)
            if not size and run < 15:
                return
            bits.number(size)
            index += run + 1

    def _begin(self, bits: _Bits, ac: Codes, known: bytearray) -> bool:
        """Mark in ``known`` the coefficients that are not 0; returns True if there are any."""
        if self.eob_run:
            self.eob_run -= 1
            return False
        changed = False
        index = self.scan.first
        while index <= self.scan.last:
            run, size = divmod(bits.symbol(ac), 16)
            if not size and run < 15:
                self.eob_run = (1 << run) + bits.number(run) - 1
                break
            bits.number(size)
            index += run + 1
            if size and index <= 64:
                known[index - 1] = changed = True
        return changed

    def _refine(self, bits: _Bits, ac: Codes, known: bytearray) -> bool:
        """As :meth:`_begin`, in a scan with one more bit for each coefficient that is not 0."""
        changed = False
        index, last = self.scan.first, self.scan.last
        while index <= last and not self.eob_run:
            run, size = divmod(bits.symbol(ac), 16)
            if size > 1:
                raise _refused("a code that is not in the Huffman table")
            if not size and run < 15:
                self.eob_run = (1 << run) + bits.number(run)
                break
            bits.number(size)
            while index <= last and (known[index] or run):
                run -= not known[index]
                bits.number(known[index])
                index += 1
            if size and index <= last:
                known[index] = changed = True
            index += 1
        if self.eob_run:
            for one in known[index : last + 1]:
                bits.number(one)
            self.eob_run -= 1
        return changed


class _Walk:
    """A walk over all scans of a JPEG."""

    def __init__(self, data: bytes, header: Header) -> None:
        self.data = data
        self.tables: dict[int, Codes] = {}
        self.interval = 0
        frame = header.frame
        self.is_progressive = frame.marker == _PROGRESSIVE
        factors = [divmod(one, 16) for one in frame.payload[7::3]]
        widest, highest = (max(one) for one in zip(*factors, strict=True))
        width, height = header.size
        self.size = _ceil(width, 8 * widest), _ceil(height, 8 * highest)
        self.components = {
            number: _Component(
                across,
                down,
                _ceil(_ceil(width * across, widest), 8),
                _ceil(_ceil(height * down, highest), 8),
                self.size[0] * across,
            )
            for number, (across, down) in zip(frame.payload[6::3], factors, strict=True)
        }
        for segment in header.segments[:-1]:
            self.take(segment.marker, segment.payload)

    def take(self, marker: int, payload: bytes) -> None:
        """Keep what a segment states for the scans after it: Huffman tables, restart interval."""
        if marker == _INTERVAL:
            (self.interval,) = struct.unpack(">H", payload)
        at = 0
        while marker == _HUFFMAN and at < len(payload):
            end = at + 17 + sum(payload[at + 1 : at + 17])
            self.tables[payload[at]] = _codes(payload[at + 1 : at + 17], payload[at + 17 : end])
            at = end

    def run(self, at: int) -> None:
        """Check all scans, from the first scan's marker to the end of the image."""
        while True:
            found = NEXT_MARKER.match(self.data, at)
            if found is None:
                raise _refused("no marker where one should be")
            marker, at = found[1][0], found.end()
            if marker == _END:
                return
            if marker in _RESTARTS:
                raise _refused("a restart marker too many")
            length = int.from_bytes(self.data[at : at + 2], "big")
            payload = self.data[at + 2 : at + length]
            at += length
            if marker == _SCAN:
                at = self.check_scan(payload, at)
            else:
                self.take(marker, payload)

    def check_scan(self, payload: bytes, at: int) -> int:
        """Check one scan; returns the offset of the marker after it."""
        count = payload[0]
        first, last, bits = payload[1 + 2 * count : 4 + 2 * count]
        if not 0 < count == len(set(payload[1 : 1 + 2 * count : 2])):
            raise _refused("its header")
        if (first, last, bits) != (0, 63, 0) and not self.is_progressive:
            raise _refused("its header")
        parts = tuple(
            (
                self.components[payload[1 + 2 * number]],
                self.tables.get(payload[2 + 2 * number] >> 4, _NO_CODES),
                self.tables.get(0x10 | (payload[2 + 2 * number] & 15), _NO_CODES),
            )
            for number in range(count)
        )
        scan = _Scan(parts, first, last, bits >> 4, bits & 15, self.is_progressive)
        if self.is_progressive:
            scan.check_order()
        segments = self.segments(at)
        reader = _Reader(scan)
        here, at = next(segments)
        for number, blocks in enumerate(scan.blocks(self.size)):
            if number and self.interval and number % self.interval == 0:
                here.close()
                here, at = next(segments)
                reader.eob_run = 0
            for part, block in blocks:
                reader.block(here, part, block)
        here.close()
        return at

    def segments(self, at: int) -> Iterator[tuple[_Bits, int]]:
        """Yields the data between a scan's restart markers, with the offset of the marker after
        them.
        """
        for restart in range(1 << 30):
            found = NEXT_MARKER.search(self.data, at)
            if found is None:
                raise _refused("it ends too early")
            yield _Bits(self.data[at : found.start()]), found.start()
            at = found.end()
            if found[1][0] != _RESTARTS[restart % 8]:
                break
        raise _refused("a restart marker is missing")


def check_scans(data: bytes, header: Header) -> None:
    """Decode every code of every scan, without computing pixels.

    Raises:
        FrameError: libjpeg would warn of a scan; or the image is too large for this check.
    """
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise FrameError(
            "too_large",
            f"{width}x{height} px; with this unusual sampling the limit is {MAX_PIXELS} pixels",
        )
    try:
        _Walk(data, header).run(header.scan)
    except (ArithmeticError, LookupError, ValueError, struct.error, StopIteration) as error:
        raise _refused("it refers to something that the file does not contain") from error
