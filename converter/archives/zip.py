"""What a zip holds, by its directory, which Python's ``zipfile`` reads."""

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
    """What a zip holds: of several members of one name, the last.

    Args:
        file: the archive, open: ``read_at(count, offset)``.
        where: its path or URL, for errors.
        size: its bytes.
        on_bytes: hears of the bytes that were passed.

    Raises:
        SourceError: it is damaged or cut short, or two members lie in the same bytes.
        PassingError: the storage failed.
    """
    try:
        with zipfile.ZipFile(Stream(file, where, 0, size)) as archive:
            found, end = archive.infolist(), archive.start_dir
    except _DAMAGE as error:
        raise SourceError(
            f"{where}: damaged or cut short: no zip's directory at its end ({error}); "
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
    """A member's path below a root; names are UTF-8, whether flagged so or not, else of DOS."""
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
    """Bytes from each local header to the next, or to the directory, by where it begins.

    Raises:
        SourceError: a member's data reach over what follows, or it lies outside the archive.
    """
    begins = sorted({info.header_offset for info in found})
    spans = {one: after - one for one, after in itertools.pairwise([*begins, end])}
    for info in found:
        span = spans[info.header_offset]
        if info.header_offset < 0 or _LEAST_HEADER + info.compress_size > span:
            raise SourceError(
                f"{where}: damaged: member {info.filename!r:.200} lies outside the archive or over "
                "another one; download it again"
            )
    if len(begins) < len(found):
        raise SourceError(f"{where}: damaged: two members lie at one place; download it again")
    return spans
