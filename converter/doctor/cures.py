"""Searches for frames that are not at the paths that the npz names, and proposes remaps or another
root.

Users unpack datasets in other layouts: with a doubled folder, a root one level too high or too
deep, renamed folders, or one folder for each subject; or with other file names: another prefix,
another ending. Missing frames are searched for below the root by their file name and, if no file
has that name, by the number in it. Remaps or another root are derived from the files that are
found. Each proposal is checked against the files on disk.

The search reads only folders and the lists of archives. How names differ from paths is computed in
:mod:`refit_shard.converter.doctor.differences`.
"""

import itertools
import os
import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refit_shard.converter.annotations.remaps import Remap, Remaps, parse_remaps
from refit_shard.converter.annotations.source import frame_path
from refit_shard.converter.archives.holdings import Archives
from refit_shard.converter.doctor.differences import (
    Difference,
    difference,
    general_remaps,
    key_number,
    prefix_remaps,
    shared,
)
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.files import is_of_a_mac

MAX_ENTRIES = 3_000_000
MAX_DEPTH = 8
SAMPLE = 4000
# Names that are searched for by number. Fewer, since several files may have a number and each is
# compared.
NUMBERED_SAMPLE = 200
_NO_ARCHIVES = Archives()
_NUMBERED = re.compile(r"(.+_)(\d+\.\w+)")


@dataclass(frozen=True, kw_only=True)
class Cure:
    """A proposal with which ``cured`` of ``tried`` missing frames are found.

    ``root``: another ROOT below which the frames have the paths that the npz names, or None.
    ``remaps``: remaps for the present ROOT, may be empty. ``example``: a name, and the path where
    its frame was found.
    """

    root: str | None
    remaps: Remaps
    cured: int
    tried: int
    example: tuple[str, str]


def spread(values: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the values, evenly spaced, with the first and the last."""
    if len(values) <= count:
        return list(values)
    return [values[index * (len(values) - 1) // max(1, count - 1)] for index in range(count)]


# --------------------------------------------------------------------------- files on disk


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder below the root: its path relative to the root, and its file names. Links are
    followed.
    """
    seen: set[tuple[int, int]] = set()
    entries = 0
    waiting = [("", 0)]
    while waiting and entries < MAX_ENTRIES:
        folder, depth = waiting.pop()
        try:
            place = os.stat(os.path.join(root, folder))
            with os.scandir(os.path.join(root, folder)) as scan:
                listed = [(one.name, one.is_dir()) for one in scan if not is_of_a_mac(one.name)]
        except OSError:
            continue
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        entries += len(listed)
        yield folder, [name for name, is_folder in listed if not is_folder]
        if depth < MAX_DEPTH:
            below = sorted((name for name, is_folder in listed if is_folder), reverse=True)
            waiting += [(posixpath.join(folder, name), depth + 1) for name in below]


@dataclass
class _Wanted:
    """The names that are searched for, by what their files may be called: by the file name, the
    file name without its ending, the numbers in it, and the folder that its words may have become.
    """

    by_base: dict[str, list[str]]
    by_stem: dict[str, list[str]]
    by_number: dict[tuple[str, ...], list[str]]
    by_folder: dict[str, list[tuple[str, str]]]

    @classmethod
    def of(cls, names: Sequence[str]) -> "_Wanted":
        """The lookup tables for these names. Only a sample of the names is searched for by
        number.
        """
        wanted = cls({}, {}, {}, {})
        for name in names:
            base = posixpath.basename(name)
            wanted.by_base.setdefault(base, []).append(name)
            wanted.by_stem.setdefault(posixpath.splitext(base)[0], []).append(name)
            parts = _NUMBERED.fullmatch(base)
            if parts is not None:
                folder = parts[1].rstrip("_")
                wanted.by_folder.setdefault(folder, []).append((name, parts[2]))
        for name in spread(names, NUMBERED_SAMPLE):
            key, _ = key_number(posixpath.basename(name))
            if key:
                wanted.by_number.setdefault(key, []).append(name)
        return wanted

    def like(self, folder: str, file: str) -> Iterator[tuple[str, int, Difference]]:
        """The names whose frame this file may be, each with how certain that is (2: same file name,
        1: a folder in place of a prefix, 0: same number or ending aside), and the difference.
        """
        path = posixpath.join(folder, file)
        for name in self.by_base.get(file, ()):
            yield name, 2, difference(name, path)
        for name, tail in self.by_folder.get(posixpath.basename(folder), ()):
            if file.endswith(tail):
                old, new = name[: -len(tail)], path[: -len(tail)]
                yield name, 1, Difference(old, new, tail)
        similar = {*self.by_stem.get(posixpath.splitext(file)[0], ())}
        similar.update(self.by_number.get(key_number(file)[0], ()))
        for name in similar:
            if posixpath.basename(name) != file:
                yield name, 0, difference(name, path)


def _likeness(name: str, path: str) -> tuple[int, int]:
    """How similar a name and a path are: equal letters at both ends of the file names, then equal
    folders.
    """
    (folder, base), (other_folder, other) = posixpath.split(name), posixpath.split(path)
    ends = [[base, other], [base[::-1], other[::-1]]]
    letters = sum(shared(*pair) for pair in ends)
    ours, theirs = folder.split("/"), other_folder.split("/")
    folders = sum(one == two for one, two in zip(ours, theirs, strict=False))
    folders += sum(one == two for one, two in zip(ours[::-1], theirs[::-1], strict=False))
    return min(letters, len(base), len(other)), folders


def _search(
    root: str, names: Sequence[str], taken: Collection[str], archives: Archives
) -> dict[str, Difference]:
    """For each name, how it differs from the most similar path below the root. A name with several
    equally similar paths is left out.

    A frame ``a/S1_Walk_000001.jpg`` may also be the file 000001.jpg in a folder ``S1_Walk``, or a
    file with the same number and other words. ``taken``: paths of other rows' frames.
    """
    wanted = _Wanted.of(names)
    best: dict[str, tuple[tuple[int, ...], set[Difference]]] = {}
    for folder, files in itertools.chain(_walk(root), archives.tree()):
        for file in files:
            for name, sure, found in wanted.like(folder, file):
                if found.path in taken:
                    continue
                kept = len(found.kept) if sure else 0
                score = sure, kept, *_likeness(name, found.path)
                if name not in best or score > best[name][0]:
                    best[name] = score, {found}
                elif score == best[name][0]:
                    best[name][1].add(found)
    return {name: next(iter(ways)) for name, (_, ways) in best.items() if len(ways) == 1}


def _present(
    root: str, names: Sequence[str], remaps: Remaps = (), archives: Archives = _NO_ARCHIVES
) -> int:
    """The number of distinct paths, of these names, that exist below the root or in an archive."""
    paths = sorted({path for name in names if (path := frame_path(name, root, remaps))})
    packed = archives.find(paths)
    return sum(path in packed or os.path.isfile(os.path.join(root, path)) for path in paths)


# ------------------------------------------------------------------------------------ cures


def _candidates(found: Sequence[Difference], located: Sequence[str]) -> Iterator[Remaps]:
    """Lists of remaps that lead to the found paths, the shortest first. The last list does not
    change the names of ``located``, whose frames are where the npz says.
    """
    plain = prefix_remaps(found)
    yield general_remaps(plain)
    yield plain
    endings = sorted({one.ending for one in found})
    spared = [
        Difference("", "", name[: len(name) - len(ending)], ending, ending)
        for name in located
        for ending in endings
        if name.endswith(ending)
    ]
    if spared:
        yield prefix_remaps([*found, *spared])


def _is_sayable(remaps: Remaps) -> bool:
    """True if ``--remap`` can express the remaps, which is not so if a name contains ``=`` or
    ``*``.
    """
    try:
        return parse_remaps([remap.text for remap in remaps]) == remaps
    except UsageError:
        return False


def _root_of(root: str, remaps: Remaps) -> str | None:
    """The root that has the same effect as the remaps, if they only put a folder before every name;
    else None.
    """
    if len(remaps) == 1 and remaps[0].old == ("", ""):
        return posixpath.join(root, remaps[0].new[0]).rstrip("/")
    return None


def _parent_cure(root: str, names: Sequence[str]) -> Cure | None:
    """The cure for a root that is one level too deep: its parent; None if that does not help."""
    parent = str(Path(root).parent)
    cured = _present(parent, names)
    if cured <= len(names) // 2:
        return None
    folder = Path(root).name + "/"
    off = all(name.startswith(folder) for name in names)
    remaps = (Remap((folder, ""), ("", "")),) if off else ()
    example = names[0], posixpath.join("..", names[0])
    return Cure(root=parent, remaps=remaps, cured=cured, tried=len(names), example=example)


def find_cure(
    root: str,
    names: Sequence[str],
    located: Sequence[str] = (),
    given: Remaps = (),
    archives: Archives = _NO_ARCHIVES,
) -> Cure | None:
    """Remaps or another root with which the missing frames are found; None if there are none.

    A cure finds more than half of the names that are tried, and does not change the path of a frame
    that is found already.

    Args:
        root: a local folder.
        names: of missing frames, as in the npz, sorted; a sample of them is tried.
        located: names whose frames are found already.
        given: remaps that are already used; a cure ends with them.
        archives: the archives below the root.
    """
    tried = spread(names, SAMPLE)
    parent = _parent_cure(root, tried)
    if parent is not None and not located:
        return parent
    taken = {str(frame_path(name, root, given)) for name in located}
    found = _search(root, tried, taken, archives)
    if not found:
        return None
    kept = {name: frame_path(name, root, given) for name in spread(located, SAMPLE)}
    best: Remaps = ()
    most = len(tried) // 2
    for candidate in _candidates(list(found.values()), list(kept)):
        remaps = candidate + given
        cured = _present(root, tried, remaps, archives)
        spares = all(frame_path(name, root, remaps) == path for name, path in kept.items())
        if cured > most and spares and _is_sayable(remaps):
            best, most = remaps, cured
    if not best:
        return None
    name = min(found)
    return Cure(
        root=_root_of(root, best),
        remaps=best,
        cured=most,
        tried=len(tried),
        example=(name, found[name].path),
    )
