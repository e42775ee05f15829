"""Lists the members of a zip from its directory, which Python's ``zipfile`` reads."""

import itertools
import stat
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from refit_shard.converter.archives.members import MAX_MEMBERS, Kind, Listing
from refit_shard.converter.archives.names import member_name
from refit_shard.converter.archives.stream import Stream
from refit_shard.shards_spec.errors import SourceError

_LEAST_HEADER = 30
_ENCRYPTED = 0x1 | 0x40
_UNIX = 3
_METHODS = {zipfile.ZIP_STORED: Kind.ZIP_STORED, zipfile.ZIP_DEFLATED: Kind.ZIP_DEFLATED}
_DAMAGE = (
    *(zipfile.BadZipFile, NotImplementedError, struct.error),
    *(ValueError, OverflowError, EOFError, OSError),
)


def list_zip(file: Any, where: str, size: int, on_bytes: Callable[[int], None]) -> Listing:
    """The members of a zip; of several members with one name, the last.

    Args:
        file: the opened archive, which has ``read_at(count, offset)``.
        where: path or URL of the archive, for errors.
        size: bytes of the archive.
        on_bytes: called with the number of bytes, once the zip is listed.

    Raises:
        SourceError: the zip is damaged or cut short, or two members overlap.
        PassingError: the storage failed.
    """
    try:
        with zipfile.ZipFile(Stream(file, where, 0, size)) as archive:
            found, end = archive.infolist(), archive.start_dir
    except _DAMAGE as error:
        raise SourceError(
            f"{where}: damaged or cut short: no directory of a zip at its end ({error}); "
            "download it again"
        ) from error
    if len(found) > MAX_MEMBERS:
        raise SourceError(f"{where}: holds more than {MAX_MEMBERS} members; unpack it")
    listing = Listing()
    last = {}
    spans = _spans(found, end, where)
    for info in found:
        name = _name(info)
        if name is None:
            listing.passed_over += 1
        elif not info.is_dir():
            last[name] = info
    for name, info in last.items():
        begin = info.header_offset
        listing.add(
            name, begin, spans[begin], info.file_size, info.compress_size, info.CRC, _kind(info)
        )
    on_bytes(size)
    return listing


def _name(info: zipfile.ZipInfo) -> str | None:
    """A member's path below a root, None if it leads out of it. A name without the UTF-8 flag is
    still read as UTF-8 if it is valid UTF-8, else as DOS's code page 437.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    try:
        name.encode()
    except UnicodeError:
        return None
    return member_name(name)


def _kind(info: zipfile.ZipInfo) -> Kind:
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if info.flag_bits & _ENCRYPTED:
        return Kind.ENCRYPTED
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Kind.LINK if stat.S_ISLNK(mode) else Kind.SPECIAL
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return Kind.METHOD
    return _METHODS.get(info.compress_type, Kind.METHOD)


def _spans(found: list[zipfile.ZipInfo], end: int, where: str) -> dict[int, int]:
    """Bytes from each local header to the next one or to the directory, by the header's offset.

    Raises:
        SourceError: a member overlaps what follows, or is outside the archive.
    """
    begins = sorted({info.header_offset for info in found})
    spans = {one: after - one for one, after in itertools.pairwise([*begins, end])}
    for info in found:
        span = spans[info.header_offset]
        if info.header_offset < 0 or _LEAST_HEADER + info.compress_size > span:
            raise SourceError(
                f"{where}: damaged: member {info.filename!r:.200} is outside the archive or "
                "overlaps another member; download it again"
            )
    if len(begins) < len(found):
        raise SourceError(f"{where}: damaged: two members have one offset; download it again")
    return spans
