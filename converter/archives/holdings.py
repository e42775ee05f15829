"""The archives of a root, and which frames are their members.

A member ``m`` of ``a.tar`` is found as the frame ``m`` and as the frame ``a/m``, because some
archives contain a folder of their own name and some do not. If the archive is in a folder ``f``,
the member is also found as ``f/m``, as if the archive were unpacked there.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit_shard.converter.archives.members import Kind, Member, Stamp
from refit_shard.converter.archives.names import COMPRESSED, SUFFIXES, stem
from refit_shard.shards_spec.storage.files import is_of_a_mac

_BYTES = pa.large_binary()


@dataclass(frozen=True)
class Archive:
    """An archive, and its members as a table of ``index.SCHEMA``."""

    stamp: Stamp
    table: pa.RecordBatch

    def paths(self) -> tuple[pa.Array, ...]:
        """Arrays of each member's possible paths below the root: its name, its name below the
        archive's stem and, if the archive is in a folder, its name below that folder.
        """
        names = self.table.column("name")
        folders = [stem(self.stamp.path), posixpath.dirname(self.stamp.path)]
        slash = pa.scalar("/", names.type)
        below = (
            pc.binary_join_element_wise(pa.scalar(folder, names.type), names, slash)
            for folder in dict.fromkeys(folders)
            if folder
        )
        return names, *below


@dataclass(frozen=True)
class Archives:
    """The archives below a root.

    ``listed``: those whose members can be read. ``compressed``: paths of archives that are
    compressed as a whole, so that no member can be read by itself. ``folders``: names of the
    folders directly in the root.
    """

    listed: tuple[Archive, ...] = ()
    compressed: tuple[str, ...] = ()
    folders: frozenset[str] = frozenset()

    def find(self, paths: Sequence[str]) -> "Packed":
        """Those of the frames that are members of archives.

        ``paths``: distinct paths of frames below the root.
        """
        if not self.listed:
            return Packed(self)
        wanted = pa.array([path.encode("utf-8", "surrogatepass") for path in paths], _BYTES)
        place = np.full((2, len(paths)), -1, np.int64)  # archive and row
        twice: dict[str, tuple[str, str]] = {}
        for number, archive in enumerate(self.listed):
            for names in archive.paths():
                found = pc.index_in(names.cast(_BYTES), value_set=wanted)
                rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
                hits = found.drop_null().to_numpy().astype(np.int64)
                for hit, row in zip(hits, rows, strict=True) if (place[0, hits] >= 0).any() else ():
                    first = place[:, hit].tolist()
                    if first[0] >= 0 and first != [number, row]:
                        twice[paths[hit]] = self._where(*first), self._where(number, int(row))
                place[0, hits], place[1, hits] = number, rows
        inside = np.flatnonzero(place[0] >= 0).tolist()
        return Packed(
            self, {paths[one]: n for n, one in enumerate(inside)}, place[:, inside], twice
        )

    def _where(self, number: int, row: int) -> str:
        archive = self.listed[number]
        return f"{archive.table.column('name')[row].as_py()} in {archive.stamp.path}"

    def tree(self) -> Iterator[tuple[str, list[str]]]:
        """Every folder of the archives, as its path below the root and the names of its files.

        Each member has one path here: its name or, if the name contains no folder or occurs in
        several archives, its name below the archive's stem.
        """
        pairs = [
            pair
            for archive in self.listed
            for pair in zip(*(names.to_pylist() for names in archive.paths()[:2]), strict=True)
        ]
        count = Counter(own for own, _ in pairs)
        found: dict[str, list[str]] = {}
        for own, below in pairs:
            folder, _, file = (own if "/" in own and count[own] == 1 else below).rpartition("/")
            if not is_of_a_mac(own):
                found.setdefault(folder, []).append(file)
        yield from sorted(found.items())

    def nested(self) -> dict[str, str]:
        """The paths of archives that contain archives, each with the name of one that it contains.
        Frames in such inner archives cannot be read.
        """
        endings = "|".join(map(re.escape, (*SUFFIXES, *COMPRESSED)))
        found = {}
        for archive in self.listed:
            names = archive.table.column("name")
            inner = names.filter(pc.match_substring_regex(names, f"(?i)(?:{endings})$"))
            if len(inner):
                found[archive.stamp.path] = str(inner[0])
        return found

    def may_be_a_file(self, path: str) -> bool:
        """True if a file of this path may exist: its top folder exists, or it has no folder."""
        top, slash, _ = path.partition("/")
        return not slash or top in self.folders


@dataclass(frozen=True)
class Packed:
    """Frames that are members of archives, by their path below the root.

    ``numbers``: each frame's column in ``places``. ``places``: int64 (2, n), the archive's number
    in ``archives.listed`` and the member's row in its table. ``twice``: frames that match two
    members, with a text for each that says where it is.
    """

    archives: Archives = field(default_factory=Archives)
    numbers: dict[str, int] = field(default_factory=dict, repr=False)
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    twice: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __contains__(self, path: str) -> bool:
        return path in self.numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def members(self, paths: Iterable[str]) -> dict[str, Member]:
        """The member for each of these frames that is in an archive; other frames are left out."""
        found = {}
        for path in dict.fromkeys(paths):
            if path in self.numbers:
                number, row = self.places[:, self.numbers[path]].tolist()
                archive = self.archives.listed[number]
                values = {
                    name: archive.table.column(name)[row].as_py()
                    for name in ("begin", "span", "size", "packed", "crc")
                }
                found[path] = Member(
                    archive=archive.stamp,
                    kind=Kind(archive.table.column("kind")[row].as_py()),
                    beside=self.archives.may_be_a_file(path),
                    **values,
                )
        return found
