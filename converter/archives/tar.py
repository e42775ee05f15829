"""Lists the members of a tar, going from header to header without reading the data between them.

Python's ``tarfile`` parses each header. The loop over the headers is our own, because ``tarfile``
takes a damaged header, or the end of an incomplete download, for the end of the archive.
"""

import re
import tarfile
from collections.abc import Callable
from typing import Any

from refit_shard.converter.archives.members import MAX_MEMBERS, Kind, Listing, read_range
from refit_shard.converter.archives.names import member_name
from refit_shard.shards_spec.errors import SourceError

_BLOCK = tarfile.BLOCKSIZE
_ZEROS = bytes(_BLOCK)
# Bytes that are read at a header: enough for a long name and the header after it. Where members are
# small, the read grows until it covers many of them.
_LEAST_READ, _MOST_READ = 4 << 10, 1 << 20
# Most bytes after the end mark: tar pads its last record, which has 10 kB unless another size was
# chosen.
_MOST_REST = 1 << 20
_MAX_NAME_BYTES = 1 << 16  # limit for a long name and for the records of a pax header
_PAX_RECORD = re.compile(rb"(\d{1,8}) ([^=\n]+)=")
_ENCODING = ("utf-8", "surrogateescape")

_FILES = tarfile.REGULAR_TYPES
_FOLDERS = (tarfile.DIRTYPE, b"D")
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
# Types of headers that describe the whole archive: a label, which is ignored, and a piece of a tar
# in several volumes, which is refused.
_LABEL, _VOLUME = b"V", b"M"


class _Window:
    """Reads an archive in pieces, of which the last one is kept for the next reads."""

    def __init__(self, file: Any, where: str, size: int) -> None:
        self._file, self._where, self._size = file, where, size
        self._data = b""
        self._begin = 0
        self._count = _LEAST_READ

    def read(self, begin: int, count: int) -> bytes:
        """``count`` bytes from the offset ``begin``; fewer if the archive ends before."""
        count = min(count, self._size - begin)
        if count <= 0:
            return b""
        at = begin - self._begin
        if at < 0 or at + count > len(self._data):
            near = 0 <= begin - self._begin - len(self._data) < 4 * self._count
            self._count = min(_MOST_READ, 4 * self._count) if near else _LEAST_READ
            much = min(max(count, self._count), self._size - begin)
            self._data = read_range(self._file, self._where, begin, much)
            self._begin, at = begin, 0
        return self._data[at : at + count]


class _Walk:
    """One pass over an archive's headers."""

    def __init__(self, file: Any, where: str, size: int) -> None:
        self.where, self.size = where, size
        self.window = _Window(file, where, size)
        self.listing = Listing()
        self.row_of: dict[str, int] = {}  # name → index in the listing of its last member
        self.stated: dict[str, str] = {}  # what extra headers state about the member after them

    def damaged(self, what: str) -> SourceError:
        """The error for a damaged archive, which names the last member before the damage."""
        last = f", after {self.listing.names[-1]!r:.200}" if self.listing.names else ""
        return SourceError(f"{self.where}: {what}{last}; download it again")

    def header(self, begin: int) -> tarfile.TarInfo | None:
        """The header at the offset ``begin``; None at the mark that ends the archive."""
        block = self.window.read(begin, _BLOCK)
        if len(block) < _BLOCK:
            raise self.damaged(f"cut short: the tar ends at byte {self.size} without its end mark")
        if block == _ZEROS:
            return None
        try:
            found = tarfile.TarInfo.frombuf(block, *_ENCODING)
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise self.damaged(f"damaged: no header of a member at byte {begin}") from error
        if not 0 <= found.size < 1 << 62:
            raise self.damaged(f"damaged: a member at byte {begin} of {found.size} bytes")
        return found

    def keep_statement(self, found: tarfile.TarInfo, begin: int) -> None:
        """Keep what an extra header states about the next member: a long name, or pax records."""
        if found.size > _MAX_NAME_BYTES:
            raise self.damaged(f"damaged: a name of {found.size} bytes at byte {begin}")
        data = self.window.read(begin, found.size)
        if len(data) < found.size:
            raise self.damaged("cut short within a member's name")
        if found.type in _LONG:
            key = "path" if found.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            self.stated[key] = data.partition(b"\0")[0].decode(*_ENCODING)
            return
        records = self._records(data)
        if found.type in _PAX:
            self.stated |= records
        elif records.keys() & {"path", "linkpath", "size"}:
            raise SourceError(
                f"{self.where}: a global pax header sets the name or size of all members, which is "
                "not supported; unpack it"
            )

    def _records(self, data: bytes) -> dict[str, str]:
        records = {}
        at = 0
        while at < len(data) and data[at]:
            found = _PAX_RECORD.match(data, at)
            end = at + int(found[1]) if found is not None else 0
            if found is None or not found.end() < end <= len(data) or data[end - 1] != 0x0A:
                raise self.damaged("damaged: the records of a pax header cannot be parsed")
            records[found[2].decode(*_ENCODING)] = data[found.end() : end - 1].decode(*_ENCODING)
            at = end
        return records

    def size_of(self, found: tarfile.TarInfo) -> int:
        """Bytes of a member's data in the archive."""
        if "size" not in self.stated:
            has_data = found.type in _FILES or found.type not in tarfile.SUPPORTED_TYPES
            return found.size if has_data or found.type in (*_LONG, tarfile.GNUTYPE_SPARSE) else 0
        stated = self.stated["size"]
        if not (stated.isascii() and stated.isdigit() and len(stated) < 19):
            raise self.damaged(f"damaged: a pax header states a size of {stated!r:.40}")
        return int(stated)

    def member(self, found: tarfile.TarInfo, begin: int, size: int) -> None:
        """Add a member to the listing, unless it is a folder. ``begin``: offset of its data."""
        if found.type in _FOLDERS or found.type == _LABEL or found.isdir():
            return
        if found.type == _VOLUME:
            raise SourceError(
                f"{self.where}: one volume of a tar in several volumes; join them into one tar"
            )
        path = self.stated.get("path", found.name)
        name = member_name(self.stated.get("GNU.sparse.name", path))
        try:
            (name or "").encode()
        except UnicodeError:
            name = None
        if name is None:
            self.listing.passed_over += 1
            return
        self._add(name, found, begin, size)
        self.row_of[name] = len(self.listing.names) - 1
        if len(self.listing.names) > MAX_MEMBERS:
            raise SourceError(f"{self.where}: holds more than {MAX_MEMBERS} members; unpack it")

    def _add(self, name: str, found: tarfile.TarInfo, begin: int, size: int) -> None:
        listing = self.listing
        if any(key.startswith("GNU.sparse.") for key in self.stated):
            kind = Kind.SPARSE
        elif found.type in _FILES:
            kind = Kind.SPARSE if found.type == tarfile.GNUTYPE_SPARSE else Kind.PLAIN
        elif found.type == tarfile.LNKTYPE:
            target = self.row_of.get(member_name(self.stated.get("linkpath", found.linkname)) or "")
            if target is not None:  # a hard link has the bytes of the member that it links to
                begin, size = listing.begins[target], listing.sizes[target]
                kind = Kind(listing.kinds[target])
            else:
                kind = Kind.LINK
        else:
            kind = Kind.LINK if found.type == tarfile.SYMTYPE else Kind.SPECIAL
        listing.add(name, begin, size, size, size, 0, kind)


def list_tar(file: Any, where: str, size: int, on_bytes: Callable[[int], None]) -> Listing:
    """The members of a tar; of several members with one name, the last.

    Args:
        file: the opened archive, which has ``read_at(count, offset)``.
        where: path or URL of the archive, for errors.
        size: bytes of the archive.
        on_bytes: called after each member with the number of bytes that were passed.

    Raises:
        SourceError: the tar is damaged or cut short; the error names the last complete member.
        PassingError: the storage failed.
    """
    walk = _Walk(file, where, size)
    at = 0
    while (found := walk.header(at)) is not None:
        begin = at + _BLOCK
        length = walk.size_of(found)
        after = begin + -(-length // _BLOCK) * _BLOCK
        if begin + length > size:
            raise walk.damaged(
                f"cut short: it has {size} bytes, and a member {found.name!r:.200} that ends at "
                f"byte {begin + length}"
            )
        if found.type in (*_LONG, *_PAX, tarfile.XGLTYPE):
            walk.keep_statement(found, begin)
        else:
            if found.type == tarfile.GNUTYPE_SPARSE:
                after += _more_sparse(walk, found, begin)
            walk.member(found, begin, length)
            walk.stated.clear()
        on_bytes(min(after, size) - at)
        at = after
    _check_rest(walk, at)
    kept = sorted(walk.row_of.values())
    if len(kept) == len(walk.listing.names):
        return walk.listing
    return _only(walk.listing, kept)


def _check_rest(walk: _Walk, end: int) -> None:
    """Raise a SourceError if members after the end mark would be missed: in an incomplete download
    whose end is still zeros, or in several tars in one file.
    """
    rest = walk.window.read(end, _MOST_REST + _BLOCK)
    if len(rest) > _MOST_REST:
        raise walk.damaged(
            f"incomplete: its end mark is at byte {end} of {walk.size}, as if a download stopped "
            "there"
        )
    blocks = (rest[at : at + _BLOCK] for at in range(0, len(rest), _BLOCK))
    if any(block != _ZEROS and _is_header(block) for block in blocks):
        raise SourceError(
            f"{walk.where}: several tars in one file, the first ends at byte {end}; unpack it: tar "
            "--ignore-zeros -xf"
        )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, *_ENCODING)
    except (tarfile.HeaderError, ValueError, OverflowError):
        return False
    return True


def _more_sparse(walk: _Walk, found: tarfile.TarInfo, begin: int) -> int:
    """Bytes of the blocks that continue an old GNU sparse header, before the data."""
    extended = bool(found._sparse_structs[1])  # type: ignore[attr-defined]
    more = 0
    while extended:
        block = walk.window.read(begin + more, _BLOCK)
        if len(block) < _BLOCK:
            raise walk.damaged("cut short within a sparse member")
        extended = bool(block[504])
        more += _BLOCK
    return more


def _only(listing: Listing, rows: list[int]) -> Listing:
    """The listing reduced to some of its rows."""
    fewer = Listing(passed_over=listing.passed_over)
    for row in rows:
        fewer.add(
            listing.names[row],
            listing.begins[row],
            listing.spans[row],
            listing.sizes[row],
            listing.packed[row],
            listing.crcs[row],
            Kind(listing.kinds[row]),
        )
    return fewer
