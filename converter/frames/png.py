"""Decodes PNG frames. The checksum of every chunk that decides a pixel is verified.

8-bit RGB is decoded by kornia_rs, which is the fastest; all other kinds by OpenCV. kornia_rs
verifies the checksums of the pixels' chunks (IDAT), nearly all of a file, while it decodes.
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
# The bit that makes a letter lower case. A chunk whose type begins with a lower-case letter is
# ancillary.
_LOWER = 0x20
_PIXELS = b"IDAT"
# Chunks that decide pixels: OpenCV applies the orientation in eXIf and reads the chunks of
# animations.
_CRITICAL = (b"IHDR", b"PLTE", _PIXELS, b"IEND")
_DECISIVE = (*_CRITICAL, b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")


class _Chunk(NamedTuple):
    kind: bytes
    body: memoryview
    guarded: memoryview  # type and body, of which the CRC is computed
    crc: int

    @property
    def is_sound(self) -> bool:
        """True if the CRC is right."""
        return zlib.crc32(self.guarded) == self.crc


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yields the chunks up to IEND.

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
    """True if a chunk with a wrong CRC surely decides no pixel.

    The damage may be in the chunk's type or length. So the type must differ from each decisive type
    in two bytes or more, and no decisive type may occur in the body.
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

    ``unchecked``: type of the chunks whose checksums are not verified.

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
    """True if kornia_rs gives the pixels of ``cv2.imread``: 8-bit RGB, not interlaced, without
    other chunks that decide pixels.
    """
    others = kinds - {_PIXELS, b"IEND"}
    return header[2:] == (8, 2, 0, 0, 0) and all(
        kind.isalpha() and kind[0] & _LOWER and not kind[2] & _LOWER and kind not in _DECISIVE
        for kind in others
    )


def decode_png(data: bytes) -> Frame:
    """Decode to (H, W, 3) uint8 RGB with the pixels of ``cv2.imread``.

    A wrong CRC of a chunk that decides no pixel (a text, a date) is ignored.

    Raises:
        FrameError: a chunk that decides pixels is damaged or missing, or the image is too large.
    """
    header, kinds = _check(data, unchecked=_PIXELS)
    if _is_plain(header, kinds):
        width, height = header[:2]
        try:
            return np.asarray(kornia_rs.io.decode_image_png_u8(data, (height, width), "rgb"))
        except BaseException as error:  # a panic of Rust, if memory is short, is not an Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            # OpenCV, which is as strict, decodes or refuses what kornia_rs cannot decode.
    _check(data)
    return as_imread(data)
