"""The archives of a root, and which frames lie in them.

A member ``m`` of ``a.tar`` is the frame ``m`` and the frame ``a/m``, whichever an npz names: some
archives hold their own folder and some do not. Where the archive lies in a folder ``f``, it is
``f/m`` too, as if it were unpacked there.
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
        """The paths below the root that each member may be the frame of: its own name, that below
        the archive's stem and, where the archive lies in a folder, that in this folder.
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
    """``listed``: the archives below a root. ``compressed``: paths of those that are compressed as
    a whole, of which no member can be read by itself. ``folders``: the root's own.
    """

    listed: tuple[Archive, ...] = ()
    compressed: tuple[str, ...] = ()
    folders: frozenset[str] = frozenset()

    def find(self, paths: Sequence[str]) -> "Packed":
        """Which of these frames lie in archives.

        ``paths``: distinct, below the root.
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
        """Every folder of the archives, its path below the root, and the files in it.

        Each member has one path here: its own name, or that below the archive's stem where it has
        no folder of its own, or other archives hold the same name.
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
        """Archives that hold archives, out of which nothing is read: the path of each, and a member
        that is one.
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
        """Whether a file of this path may lie below the root, by the root's own folders."""
        top, slash, _ = path.partition("/")
        return not slash or top in self.folders


@dataclass(frozen=True)
class Packed:
    """Frames that lie in archives, by their path below the root.

    ``numbers``: each one's column in ``places``, int64 (2, n): its archive's number and its row
    there. ``twice``: frames that two members may be, and where these are.
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
        """The members that these frames are; other frames are left out."""
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
