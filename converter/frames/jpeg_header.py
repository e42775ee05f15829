"""Parses the segments of a JPEG before its first scan, in the same way as libjpeg.

libjpeg gives the same warnings for damage that changes pixels and for damage that does not. So
:meth:`Header.cleaned` makes the same JPEG without the parts that decide no pixel. If it decodes
without a warning, the warning for the original was about those parts.
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
# Huffman tables without codes. If a file defines no tables, libjpeg uses standard ones. With these
# tables it warns instead, so that a table that was lost to damage is not replaced.
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
        """True for EXIF."""
        return self.marker == _APP1 and self.payload.startswith(EXIF)

    @property
    def is_jfif(self) -> bool:
        """True for the header of JFIF, which states that colours are YCbCr."""
        return self.marker == _APP0 and self.payload.startswith(_JFIF)

    @property
    def is_adobe(self) -> bool:
        """True for Adobe's segment, which states how colours are stored."""
        return self.marker == _APP14 and self.payload.startswith(_ADOBE)

    @property
    def decides_pixels(self) -> bool:
        """True if the decoded pixels may depend on the segment."""
        if self.marker == _COMMENT or _APP0 <= self.marker <= _APP15:
            return self.is_exif or self.is_jfif or self.is_adobe
        return True

    def cleaned(self) -> bytes:
        """The segment's bytes in the cleaned JPEG."""
        payload = self.payload
        if self.is_jfif:
            payload = payload[:5] + _SOUND_JFIF_VERSION + payload[7:]
        length = b"" if self.marker in _BARE else (len(payload) + 2).to_bytes(2, "big")
        return bytes([0xFF, self.marker]) + length + payload


@dataclass(frozen=True)
class Header:
    """The header of a JPEG, up to its first scan.

    ``segments``: the last one is the scan's, without a payload. ``frame``: the segment that states
    the size. ``scan``: offset of the scan's marker in the file.
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
        """True if EXIF states another orientation than the stored one, or is damaged."""
        exifs = (one.payload.removeprefix(EXIF) for one in self.segments if one.is_exif)
        return any(orientation(one) != 1 for one in exifs)

    @property
    def fault(self) -> str | None:
        """The kind of damage in the header, as far as it is visible without decoding; or None."""
        if any(one.strays for one in self.segments):
            return STRAY_BYTES
        if any(one.is_jfif and one.payload[5:6] != b"\x01" for one in self.segments):
            return JFIF_REVISION
        return None

    def cleaned(self, data: bytes) -> bytes:
        """The JPEG without the parts of the header that decide no pixel.

        Raises:
            FrameError: stray bytes may be the rest of a part that decides pixels.
        """
        for before, after in pairwise((Segment(_START, b"", b""), *self.segments)):
            if after.strays and not are_foreign(before.marker, before.payload, after.strays):
                raise FrameError("corrupt", "stray bytes may have been a part of the header")
        kept = [one.cleaned() for one in self.segments[:-1] if one.decides_pixels]
        return b"".join([SIGNATURE[:2], _NO_CODES, *kept, data[self.scan :]])


def _segments(data: bytes) -> Iterator[tuple[Segment, int]]:
    """Yields each segment and the offset of its marker; the last one is the scan's, without
    payload.
    """
    at = len(SIGNATURE) - 1
    marker = _START
    while marker != _SCAN:
        found = NEXT_MARKER.search(data, at)
        if found is None:
            raise FrameError("corrupt", "the JPEG is cut short within its header")
        marker, begin = found[1][0], found.end()
        if marker in (_START, _END):
            raise FrameError("corrupt", "a start or end marker within the JPEG's header")
        length = 0
        if marker not in _BARE:
            length = int.from_bytes(data[begin : begin + 2], "big")
            if length < 2 or begin + length > len(data):
                raise FrameError("corrupt", "the JPEG is cut short, or a length is damaged")
        payload = b"" if marker == _SCAN else data[begin + 2 : begin + length]
        yield Segment(marker, payload, data[at : found.start()]), found.start()
        at = begin + length


def read_header(data: bytes) -> Header:
    """Parse the segments before the first scan; nothing is decoded.

    Raises:
        FrameError: cut short, damaged, or of an unsupported kind (``unsupported``).
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
            f"a JPEG of {frame.payload[0]} bits a channel, process {frame.marker - 0xC0}; "
            "supported are sequential and progressive ones of 8 bits",
        )
    return Header(tuple(segments), frame, scan)
