"""Describes archives and their members, and reads members.

A listing states each member's offset in its archive, so that a member is read in one piece. Members
are never unpacked to a disk.
"""

import struct
import zlib
from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from refit_shard.converter.reading import MAX_FILE_BYTES, Room, no_limit, patiently
from refit_shard.shards_spec.errors import FrameError, PassingError, StorageError

MAX_MEMBERS = 4_000_000
_LOCAL = struct.Struct("<4s5H3I2H")  # a zip member's own header
_LOCAL_MAGIC = b"PK\x03\x04"
# The largest local header: its name and its extra field have up to 65535 bytes each.
MAX_LOCAL_BYTES = _LOCAL.size + 2 * 0xFFFF


class Kind(IntEnum):
    """How a member is stored. The kinds from ``ENCRYPTED`` on are listed, but cannot be read."""

    PLAIN = 0
    ZIP_STORED = 1
    ZIP_DEFLATED = 2
    ENCRYPTED = 3
    METHOD = 4
    SPARSE = 5
    LINK = 6
    SPECIAL = 7


_REFUSED = {
    Kind.ENCRYPTED: "is encrypted",
    Kind.METHOD: "is compressed by another method than deflate",
    Kind.SPARSE: "is sparse",
    Kind.LINK: "is a link to something that is not a file in the archive",
    Kind.SPECIAL: "is not a regular file",
}


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """An archive as it was when it was listed.

    ``path``: below the root. ``size``: bytes. ``mtime_ns``: when it was last changed, 0 if unknown.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

    ``begin``, ``span``: offset and length of the member in the archive, in a zip with its local
    header. ``size``: bytes of the file. ``packed``: bytes as stored. ``crc``: CRC-32 of a zip's
    member. ``beside``: True if a file of the same path may exist below the root, which is then read
    instead.
    """

    archive: Stamp
    begin: int
    span: int
    size: int
    packed: int
    crc: int
    kind: Kind
    beside: bool


@dataclass
class Listing:
    """The members of one archive, in order, with one array for each field of :class:`Member`.

    ``passed_over``: number of members that are not listed, because their names lead out of a root
    or are not UTF-8.
    """

    names: list[str] = field(default_factory=list)
    begins: "array[int]" = field(default_factory=lambda: array("q"))
    spans: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    packed: "array[int]" = field(default_factory=lambda: array("q"))
    crcs: "array[int]" = field(default_factory=lambda: array("I"))
    kinds: "array[int]" = field(default_factory=lambda: array("b"))
    passed_over: int = 0

    def add(
        self, name: str, begin: int, span: int, size: int, packed: int, crc: int, kind: Kind
    ) -> None:
        """Append a member."""
        self.names.append(name)
        self.begins.append(begin)
        self.spans.append(span)
        self.sizes.append(size)
        self.packed.append(packed)
        self.crcs.append(crc)
        self.kinds.append(kind)


def read_member(file: Any, where: str, member: Member, room: Room = no_limit) -> bytes:
    """The bytes of a member; its size is checked and, in a zip, its checksum.

    Args:
        file: the opened archive, which has ``read_at(count, offset)``.
        where: path or URL of the archive, for errors.
        member: the member to read.
        room: called with the bytes of memory that reading takes, before they are taken.

    Raises:
        FrameError: the member is damaged, too large, empty, or stored in a way that is not
            supported.
        PassingError: the storage failed, or the archive has changed since it was listed.
    """
    _check_kind(member)
    largest = max(member.size, member.packed)
    if largest > MAX_FILE_BYTES:
        raise FrameError("too_large", f"{largest} bytes, the limit is {MAX_FILE_BYTES}")
    span = min(member.span, _most(member))
    room(span if member.kind is Kind.PLAIN else span + member.size)
    data = read_range(file, where, member.begin, span)
    if member.kind is Kind.PLAIN:
        return data
    return _unzipped(data, member)


def _most(member: Member) -> int:
    """The most bytes that a member can take in the archive, whatever span a list states."""
    return member.packed + (0 if member.kind is Kind.PLAIN else MAX_LOCAL_BYTES)


def read_range(file: Any, where: str, begin: int, count: int) -> bytes:
    """``count`` bytes of an open archive.

    Raises:
        PassingError: the storage failed, or the archive is shorter than it was.
    """
    try:
        data = bytes(patiently(lambda: file.read_at(count, begin), where))
    except PassingError:
        raise
    except StorageError as error:  # from an object store
        raise PassingError(str(error)) from error
    except OSError as error:
        raise PassingError(f"{where}: {error}; run the same command again") from error
    if len(data) < count:
        raise changed(where)
    return data


def changed(where: str) -> PassingError:
    """The error for an archive that changed during the run, which says nothing about its frames."""
    return PassingError(
        f"{where}: was changed, moved or deleted during this run; leave it as it is and run the "
        "same command again"
    )


def place_of(file: Any, where: str, member: Member) -> tuple[int, int]:
    """Offset and number of a member's bytes in its archive, to read them in parts. A zip's checksum
    is not checked.

    Args:
        file: the opened archive, which has ``read_at(count, offset)``.
        where: path or URL of the archive, for errors.
        member: the member to read.

    Raises:
        FrameError: the member is empty, compressed, or stored in another way that is not supported.
        PassingError: the storage failed, or the archive has changed since it was listed.
    """
    _check_kind(member)
    if member.kind is Kind.PLAIN:
        return member.begin, member.size
    if member.kind is Kind.ZIP_DEFLATED:
        raise FrameError("unreadable", f"is compressed in {member.archive.path}; unpack it")
    head = read_range(file, where, member.begin, min(member.span, _LOCAL.size))
    begin = _after_header(head, member)
    if begin + member.size > member.span:
        raise _corrupt("its data overlap the next member", member)
    return member.begin + begin, member.size


def _check_kind(member: Member) -> None:
    """Raise a FrameError if a member cannot be read."""
    if member.kind in _REFUSED:
        text = f"{_REFUSED[member.kind]} in {member.archive.path}; unpack the archive"
        raise FrameError("unreadable", text)
    if not member.size:
        raise FrameError("empty", "zero bytes")


def _corrupt(what: str, member: Member) -> FrameError:
    return FrameError("corrupt", f"{what} in {member.archive.path}")


def _after_header(data: bytes, member: Member) -> int:
    """Length in bytes of a zip member's local header, with which ``data`` begins."""
    if len(data) < _LOCAL.size:
        raise _corrupt("its header is cut short", member)
    magic, _, flags, method, _, _, _, _, _, name, extra = _LOCAL.unpack_from(data)
    is_deflated = member.kind is Kind.ZIP_DEFLATED
    if magic != _LOCAL_MAGIC or flags & 1 or (method == 8) != is_deflated:
        raise _corrupt("its header disagrees with the zip's directory", member)
    return int(_LOCAL.size + name + extra)


def _unzipped(data: bytes, member: Member) -> bytes:
    """The file in a zip's member: without the header, inflated, checksum checked."""
    begin = _after_header(data, member)
    stored = memoryview(data)[begin : begin + member.packed]
    if len(stored) < member.packed:
        raise _corrupt("its data overlap the next member", member)
    content = bytes(stored)
    if member.kind is Kind.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflate.decompress(stored, member.size + 1)
        except zlib.error as error:
            raise _corrupt(f"its compressed data are damaged ({error})", member) from error
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise _corrupt("its size or checksum differs from the zip's directory", member)
    return content
