"""PNG frames: the checksum of every chunk that decides a pixel is checked.

Plain 8-bit RGB goes through kornia_rs, which is the fastest; all other kinds through OpenCV. Of the
chunks of pixels (IDAT), nearly all of a file, kornia_rs checks the checksums itself as it decodes.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import kornia_rs
import numpy as np

from refit_shard.converter.frames.imread import Frame, as_imread, check_pixels
from refit_shard.shards_spec.errors import FrameError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1 << 20
_LOWER = 0x20  # the bit that makes a letter small: in a type's first, the chunk is ancillary
_PIXELS = b"IDAT"
# Chunks that decide pixels. OpenCV applies eXIf's orientation and reads animations' chunks.
_CRITICAL = (b"IHDR", b"PLTE", _PIXELS, b"IEND")
_DECISIVE = (*_CRITICAL, b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")


class _Chunk(NamedTuple):
    kind: bytes
    body: memoryview
    guarded: memoryview  # its type and its body, which its CRC is of
    crc: int

    @property
    def is_sound(self) -> bool:
        """Whether its CRC is right."""
        return zlib.crc32(self.guarded) == self.crc


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks up to IEND.

    Raises:
        FrameError: the file ends before IEND.
    """
    view = memoryview(data)
    at = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length = int.from_bytes(view[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(view):
            raise FrameError("corrupt", "the PNG is cut short, or a chunk's length is damaged")
        kind = bytes(view[at + 4 : at + 8])
        crc = int.from_bytes(view[end : end + 4], "big")
        yield _Chunk(kind, view[at + 8 : end], view[at + 4 : end], crc)
        at = end + 4


def _may_be_skipped(chunk: _Chunk) -> bool:
    """Whether a chunk with a wrong CRC surely decides no pixel.

    Its type or its length may be what is damaged: so the type must differ from each decisive one
    in two bytes or more, and no decisive chunk may lie within.
    """
    if not chunk.kind.isalpha() or not chunk.kind[0] & _LOWER:
        return False
    body = bytes(chunk.body)
    return not any(
        sum(a != b for a, b in zip(chunk.kind, kind, strict=True)) < 2 or kind in body
        for kind in _DECISIVE
    )


def _check(data: bytes, unchecked: bytes = b"") -> tuple[tuple[int, ...], set[bytes]]:
    """The seven numbers of the header, and the types of the other chunks.

    ``unchecked``: type of the chunks whose checksums are not looked at.

    Raises:
        FrameError: damaged, or too large.
    """
    kinds = set()
    header: tuple[int, ...] = ()
    for chunk in islice(_chunks(data), _MAX_CHUNKS):
        is_sound = chunk.kind == unchecked or chunk.is_sound
        if not is_sound and not _may_be_skipped(chunk):
            raise FrameError("corrupt", f"the checksum of a PNG chunk is wrong ({chunk.kind!r})")
        if header:
            kinds.add(chunk.kind)
        elif chunk.kind == b"IHDR" and len(chunk.body) == 13:
            header = struct.unpack(">IIBBBBB", chunk.body)
            check_pixels(*header[:2])
        else:
            raise FrameError("corrupt", "the PNG does not begin with its header")
    if b"IEND" not in kinds:
        raise FrameError("corrupt", f"the PNG has more than {_MAX_CHUNKS} chunks")
    return header, kinds


def _is_plain(header: tuple[int, ...], kinds: set[bytes]) -> bool:
    """Whether kornia_rs gives the pixels of ``cv2.imread``: 8-bit RGB, not interlaced."""
    others = kinds - {_PIXELS, b"IEND"}
    return header[2:] == (8, 2, 0, 0, 0) and all(
        kind.isalpha() and kind[0] & _LOWER and not kind[2] & _LOWER and kind not in _DECISIVE
        for kind in others
    )


def decode_png(data: bytes) -> Frame:
    """Decode to (H, W, 3) uint8 RGB with the pixels of ``cv2.imread``.

    A wrong CRC in a chunk that decides no pixel (a text, a date) is passed over.

    Raises:
        FrameError: what decides the pixels is damaged, cut short, or too large.
    """
    header, kinds = _check(data, unchecked=_PIXELS)
    if _is_plain(header, kinds):
        width, height = header[:2]
        try:
            return np.asarray(kornia_rs.io.decode_image_png_u8(data, (height, width), "rgb"))
        except BaseException as error:  # a panic, where memory is short, is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            # What kornia_rs cannot read OpenCV, which is as strict, reads or refuses.
    _check(data)
    return as_imread(data)
