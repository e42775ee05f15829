"""The segments of a JPEG before its first scan, found as libjpeg finds them.

libjpeg gives the same warnings for damage that changes pixels and for damage that does not. So
:meth:`Header.cleaned` makes the same JPEG without the parts that decide no pixel: where that one is
decoded without a warning, the original's warning was about those parts.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from refit_shard.converter.frames.exif import EXIF, orientation
from refit_shard.converter.frames.jpeg_strays import are_foreign
from refit_shard.shards_spec.errors import FrameError

SIGNATURE = b"\xff\xd8\xff"
STRAY_BYTES = "JPEG header: stray bytes"
JFIF_REVISION = "JPEG header: unknown JFIF revision"
APPLICATION_DATA = "JPEG header: damaged application data"

NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_MAX_SEGMENTS = 1 << 16
_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_BARE = (0x01, *range(0xD0, 0xD8))  # markers without a payload
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive

_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_SOUND_JFIF_VERSION = b"\x01\x01"
# Huffman tables without codes. Where a file defines none, libjpeg takes standard ones; with these
# it warns, so that a table that was lost to damage is not replaced by another.
_NO_CODES = b"".join(
    [b"\xff\xc4", (2 + 4 * 17).to_bytes(2, "big")]
    + [bytes([table]) + bytes(16) for table in (0x00, 0x01, 0x10, 0x11)]
)


@dataclass(frozen=True)
class Segment:
    """A marker with its payload, and the stray bytes before it, which libjpeg skips."""

    marker: int
    payload: bytes
    strays: bytes

    @property
    def is_exif(self) -> bool:
        """Whether this is EXIF."""
        return self.marker == _APP1 and self.payload.startswith(EXIF)

    @property
    def is_jfif(self) -> bool:
        """Whether this is the header of JFIF, which says that colours are YCbCr."""
        return self.marker == _APP0 and self.payload.startswith(_JFIF)

    @property
    def is_adobe(self) -> bool:
        """Whether this is Adobe's segment, which says what the colours are."""
        return self.marker == _APP14 and self.payload.startswith(_ADOBE)

    @property
    def decides_pixels(self) -> bool:
        """Whether pixels may change with it."""
        if self.marker == _COMMENT or _APP0 <= self.marker <= _APP15:
            return self.is_exif or self.is_jfif or self.is_adobe
        return True

    def cleaned(self) -> bytes:
        """Its bytes in the cleaned JPEG."""
        payload = self.payload
        if self.is_jfif:
            payload = payload[:5] + _SOUND_JFIF_VERSION + payload[7:]
        length = b"" if self.marker in _BARE else (len(payload) + 2).to_bytes(2, "big")
        return bytes([0xFF, self.marker]) + length + payload


@dataclass(frozen=True)
class Header:
    """What a JPEG's first scan is decoded with.

    ``segments`` ends with an empty one, whose strays are those before the scan; ``frame`` is the
    one that states the size; ``scan`` is the scan's place in the file.
    """

    segments: tuple[Segment, ...]
    frame: Segment
    scan: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        height, width = struct.unpack_from(">HH", self.frame.payload, 1)
        return width, height

    @property
    def components(self) -> int:
        """The number of colour channels."""
        return self.frame.payload[5]

    @property
    def is_turned(self) -> bool:
        """Whether EXIF may ask for another orientation than the stored one."""
        exifs = (one.payload.removeprefix(EXIF) for one in self.segments if one.is_exif)
        return any(orientation(one) != 1 for one in exifs)

    @property
    def fault(self) -> str | None:
        """What is wrong with the header, as far as segments show it without their content."""
        if any(one.strays for one in self.segments):
            return STRAY_BYTES
        if any(one.is_jfif and one.payload[5:6] != b"\x01" for one in self.segments):
            return JFIF_REVISION
        return None

    def cleaned(self, data: bytes) -> bytes:
        """The JPEG without the parts of the header that decide no pixel.

        Raises:
            FrameError: stray bytes may be what is left of a part that does.
        """
        for before, after in pairwise((Segment(_START, b"", b""), *self.segments)):
            if after.strays and not are_foreign(before.marker, before.payload, after.strays):
                raise FrameError("corrupt", "stray bytes may have been a part of the header")
        kept = [one.cleaned() for one in self.segments[:-1] if one.decides_pixels]
        return b"".join([SIGNATURE[:2], _NO_CODES, *kept, data[self.scan :]])


def _segments(data: bytes) -> Iterator[tuple[Segment, int]]:
    """Each segment and where its marker begins; the last one is the scan's, without payload."""
    at = len(SIGNATURE) - 1
    marker = _START
    while marker != _SCAN:
        found = NEXT_MARKER.search(data, at)
        if found is None:
            raise FrameError("corrupt", "the JPEG is cut short within its header")
        marker, begin = found[1][0], found.end()
        if marker in (_START, _END):
            raise FrameError("corrupt", "the JPEG begins anew, or ends, within its header")
        length = 0
        if marker not in _BARE:
            length = int.from_bytes(data[begin : begin + 2], "big")
            if length < 2 or begin + length > len(data):
                raise FrameError("corrupt", "the JPEG is cut short, or a length is damaged")
        payload = b"" if marker == _SCAN else data[begin + 2 : begin + length]
        yield Segment(marker, payload, data[at : found.start()]), found.start()
        at = begin + length


def read_header(data: bytes) -> Header:
    """Look at the segments before the first scan, and decode nothing.

    Raises:
        FrameError: cut short or damaged, or of a kind that is not read (``unsupported``).
    """
    segments = []
    scan = 0
    for segment, begin in _segments(data):
        segments.append(segment)
        scan = begin
        if len(segments) > _MAX_SEGMENTS:
            raise FrameError("corrupt", f"the JPEG has more than {_MAX_SEGMENTS} segments")
    frame = next((one for one in segments if one.marker in _FRAMES), None)
    if frame is None or len(frame.payload) < 6:
        raise FrameError("corrupt", "the JPEG does not state its size")
    if frame.payload[0] != 8 or frame.marker not in _READ_FRAMES:
        raise FrameError(
            "unsupported",
            f"a JPEG of {frame.payload[0]} bits a sample, process {frame.marker - 0xC0}; "
            "sequential and progressive ones of 8 bits are read",
        )
    return Header(tuple(segments), frame, scan)
