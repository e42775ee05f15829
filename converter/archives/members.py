"""What is known of an archive and of the files in it, and how one of them is read.

A listing says where in its archive each member lies, so that a member is one read at an offset. No
member is ever written to a disk.
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
# What a local header may take at most: its two lengths have 16 bits each.
MAX_LOCAL_BYTES = _LOCAL.size + 2 * 0xFFFF


class Kind(IntEnum):
    """How a member is stored. Those from ``ENCRYPTED`` on are listed, but cannot be read."""

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
    Kind.LINK: "is a link to what the archive does not hold as a file",
    Kind.SPECIAL: "is not a regular file",
}


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """An archive as it was when it was listed.

    ``path``: below the root. ``size``: bytes. ``mtime_ns``: of its last change, 0 if not known.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

    ``begin``, ``span``: the bytes of the archive that hold it; of a zip's, its local header too.
    ``size``: its own bytes, ``packed``: as they are stored. ``crc``: of a zip's member.
    ``beside``: whether a file of its path may lie below the root, which would come first.
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
    """The members of one archive, a column for each field of :class:`Member`, in their order.

    ``passed_over``: members whose names lead out of a root or are not UTF-8.
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
    """The bytes of a member, its size and, in a zip, its checksum checked.

    Args:
        file: the archive, open: ``read_at(count, offset)``.
        where: its path or URL, for errors.
        member: what to read.
        room: hears of the bytes that reading takes.

    Raises:
        FrameError: it is damaged, too large, empty, or stored in a way that is not read.
        PassingError: the storage failed, or the archive is not the one that was listed.
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
    """Bytes that a member can take at most, whatever its span is."""
    return member.packed + (0 if member.kind is Kind.PLAIN else MAX_LOCAL_BYTES)


def read_range(file: Any, where: str, begin: int, count: int) -> bytes:
    """``count`` bytes of an open archive.

    Raises:
        PassingError: they cannot be read now.
    """
    try:
        data = bytes(patiently(lambda: file.read_at(count, begin), where))
    except PassingError:
        raise
    except StorageError as error:  # of an object store
        raise PassingError(str(error)) from error
    except OSError as error:
        raise PassingError(f"{where}: {error}; run the same command again") from error
    if len(data) < count:
        raise changed(where)
    return data


def changed(where: str) -> PassingError:
    """A file is not the one that it was, which says nothing of its frames."""
    return PassingError(
        f"{where}: was changed, moved or removed since it was looked at; leave it as it is and run "
        "the same command again"
    )


def place_of(file: Any, where: str, member: Member) -> tuple[int, int]:
    """Where the bytes of a member begin in its archive, and how many there are, so that they can be
    read in parts. A zip's checksum is not looked at.

    Args:
        file: the archive, open: ``read_at(count, offset)``.
        where: its path or URL, for errors.
        member: what is to be read.

    Raises:
        FrameError: it is empty, compressed, or stored in another way that is not read.
        PassingError: the storage failed, or the archive is not the one that was listed.
    """
    _check_kind(member)
    if member.kind is Kind.PLAIN:
        return member.begin, member.size
    if member.kind is Kind.ZIP_DEFLATED:
        raise FrameError("unreadable", f"is compressed in {member.archive.path}; unpack it")
    head = read_range(file, where, member.begin, min(member.span, _LOCAL.size))
    begin = _after_header(head, member)
    if begin + member.size > member.span:
        raise _corrupt("it reaches into the next member", member)
    return member.begin + begin, member.size


def _check_kind(member: Member) -> None:
    """Refuse a member that cannot be read."""
    if member.kind in _REFUSED:
        text = f"{_REFUSED[member.kind]} in {member.archive.path}; unpack the archive"
        raise FrameError("unreadable", text)
    if not member.size:
        raise FrameError("empty", "zero bytes")


def _corrupt(what: str, member: Member) -> FrameError:
    return FrameError("corrupt", f"{what} in {member.archive.path}")


def _after_header(data: bytes, member: Member) -> int:
    """Bytes of a zip member's own header, with which ``data`` begins."""
    if len(data) < _LOCAL.size:
        raise _corrupt("its header is cut short", member)
    magic, _, flags, method, _, _, _, _, _, name, extra = _LOCAL.unpack_from(data)
    is_deflated = member.kind is Kind.ZIP_DEFLATED
    if magic != _LOCAL_MAGIC or flags & 1 or (method == 8) != is_deflated:
        raise _corrupt("its header is not the one that the directory states", member)
    return int(_LOCAL.size + name + extra)


def _unzipped(data: bytes, member: Member) -> bytes:
    """A zip's member without its header, inflated and checked."""
    begin = _after_header(data, member)
    stored = memoryview(data)[begin : begin + member.packed]
    if len(stored) < member.packed:
        raise _corrupt("it reaches into the next member", member)
    content = bytes(stored)
    if member.kind is Kind.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflate.decompress(stored, member.size + 1)
        except zlib.error as error:
            raise _corrupt(f"its compressed data are damaged ({error})", member) from error
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise _corrupt("it is not of the size and checksum that the directory states", member)
    return content
