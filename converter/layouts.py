"""Frames that lie elsewhere than their names say: where they are, and what would cure it.

Users unpack data sets in other layouts: a doubled folder, a root that points one level off, other
names of folders, a folder a subject. Missing frames are looked for by their file name below the
root; from what is found follow prefixes to replace, or another root. The search reads folders
only; :func:`prefix_remaps` and :func:`alignment` are pure.
"""

import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.source import frame_path
from shards_spec.files import is_of_a_mac

Remaps = tuple[tuple[str, str], ...]
Alignment = tuple[str, str, str]  # old, new, rest: a name old + rest is at new + rest

MAX_ENTRIES = 3_000_000
MAX_DEPTH = 8
SAMPLE = 4000
# Up to here a name may be lengthened where one old prefix has several new ones.
_TOKEN = re.compile(r"[^/_.]*[/_.]")
_NUMBERED = re.compile(r"(.+_)(\d+\.\w+)")


@dataclass(frozen=True, kw_only=True)
class Cure:
    """``root``: the ROOT under which the names hold as they are, or None; ``remaps``: prefixes
    that do it under the present one, maybe none. ``cured`` of ``tried`` missing frames are then
    found. ``example``: a name and where its frame is.
    """

    root: str | None
    remaps: Remaps
    cured: int
    tried: int
    example: tuple[str, str]


def spread(values: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[index * (len(values) - 1) // max(1, count - 1)] for index in range(count)]


def alignment(name: str, path: str) -> tuple[str, str]:
    """The prefixes in which a name and a path differ, whole folders: ``a/b/x``, ``c/x`` give
    ``a/b/``, ``c/``. What follows is the same in both.
    """
    ours, theirs = name.split("/"), path.split("/")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    rest = len("/".join(ours[len(ours) - same :]))
    return name[: len(name) - rest], path[: len(path) - rest]


def prefix_remaps(pairs: Sequence[Alignment]) -> Remaps:
    """The fewest prefixes that lead from every (old, new, rest), name ``old + rest``, to its path
    ``new + rest``; the longest first, because the first that fits is used.

    Where one old prefix would need several new ones it grows by a part of a word of ``rest``.
    """
    found: dict[str, str] = {}
    waiting = list(pairs)
    while waiting:
        groups: dict[str, list[Alignment]] = {}
        for pair in waiting:
            groups.setdefault(pair[0], []).append(pair)
        waiting = []
        for old, members in groups.items():
            if len({new for _, new, _ in members}) == 1:
                found[old] = members[0][1]
                continue
            for _, new, rest in members:
                token = _TOKEN.match(rest)
                if token is not None:
                    word = token.group()
                    waiting.append((old + word, new + word, rest[len(word) :]))
    return tuple(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder below the root, its path relative to it and its files; links are followed."""
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


def _search(root: str, names: Sequence[str]) -> dict[str, Alignment]:
    """Where the frames of names are below the root, the path most like the name; a draw is none.

    A frame ``a/S1_Walk_000001.jpg`` may also be number 000001 in a folder ``S1_Walk``.
    """
    wanted: dict[str, list[str]] = {}
    numbered: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        base = posixpath.basename(name)
        wanted.setdefault(base, []).append(name)
        parts = _NUMBERED.fullmatch(base)
        if parts is not None:
            numbered.setdefault(parts[1].rstrip("_"), []).append((name, parts[2]))
    best: dict[str, tuple[tuple[int, int], set[Alignment]]] = {}

    def offer(name: str, old: str, new: str) -> None:
        alike = zip(old.split("/"), new.split("/"), strict=False)
        score = len(name) - len(old), sum(one == other for one, other in alike)
        if name not in best or score > best[name][0]:
            best[name] = score, {(old, new, name[len(old) :])}
        elif score == best[name][0]:
            best[name][1].add((old, new, name[len(old) :]))

    for folder, files in _walk(root):
        for file in files:
            for name in wanted.get(file, ()):
                offer(name, *alignment(name, posixpath.join(folder, file)))
        for name, tail in numbered.get(posixpath.basename(folder), ()):
            for file in files:
                if file.endswith(tail) and name not in best:
                    path = posixpath.join(folder, file)
                    offer(name, name[: -len(tail)], path[: -len(tail)])
    return {name: next(iter(ways)) for name, (_, ways) in best.items() if len(ways) == 1}


def _present(root: str, names: Sequence[str], remaps: Remaps = ()) -> int:
    """How many of the names have a file below the root, each one of its own."""
    paths = {frame_path(name, root, remaps) for name in names} - {None}
    return sum(os.path.isfile(os.path.join(root, str(path))) for path in paths)


def _rooted(root: str, remaps: Remaps) -> tuple[str | None, Remaps]:
    """A remap of the empty prefix, which the option cannot say, is another root."""
    if len(remaps) == 1 and remaps[0][0] == "":
        return posixpath.join(root, remaps[0][1]).rstrip("/"), ()
    return None, tuple((old, new) for old, new in remaps if old)


def _common_remap(names: Sequence[str], new: str) -> Remaps:
    """The remap that does what a root at ``new`` does, if the names, sorted, begin alike."""
    pairs = itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(names[0], names[-1], strict=False)
    )
    common = "".join(letter for letter, _ in pairs)
    common = common[: common.rfind("/") + 1] or common
    return ((common, new + common),) if common and new else ()


def find_cure(root: str, names: Sequence[str]) -> Cure | None:
    """What would make the missing frames of these names be found, tried out; None if nothing does.

    ``root``: a local folder. ``names``: of missing frames, as in the npz, sorted; some
    of them are looked for. A cure holds for more than half of those.
    """
    tried = spread(names, SAMPLE)
    parent = str(Path(root).parent)
    cured = _present(parent, tried)
    if cured > len(tried) // 2:
        example = tried[0], posixpath.join("..", tried[0])
        folder = Path(root).name + "/"
        off = all(name.startswith(folder) for name in tried)
        off_by_one: Remaps = ((folder, ""),) if off else ()
        return Cure(root=parent, remaps=off_by_one, cured=cured, tried=len(tried), example=example)
    found = _search(root, tried)
    if not found:
        return None
    new_root, remaps = _rooted(root, prefix_remaps(list(found.values())))
    cured = _present(new_root or root, tried, remaps)
    if new_root is not None:
        remaps = _common_remap(names, next(iter(found.values()))[1])
    if cured <= len(tried) // 2:
        return None
    name = min(found)
    example = name, found[name][1] + found[name][2]
    return Cure(root=new_root, remaps=remaps, cured=cured, tried=len(tried), example=example)
