"""Computes how the names of frames in an npz differ from the frames' paths on disk, and the remaps
from one to the other. Pure functions.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from refit_shard.converter.annotations.remaps import Remap, Remaps

# The part by which an old prefix grows if it has several new ones: up to the next mark.
_TOKEN = re.compile(r"[^/_.]*[/_.]")
_LONG_NUMBER = re.compile(r"\d{5,}")
_NUMBER = re.compile(r"\d+")


class Difference(NamedTuple):
    """A name ``old + kept + ending`` whose frame is at ``new + kept + new_ending``."""

    old: str
    new: str
    kept: str
    ending: str = ""
    new_ending: str = ""

    @property
    def path(self) -> str:
        """The frame's path below the root."""
        return self.new + self.kept + self.new_ending


def shared(one: str, other: str) -> int:
    """The number of letters at the beginning that are equal in both."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def alignment(name: str, path: str) -> tuple[str, str]:
    """The leading folders of a name and of a path up to where the rest is equal: ``a/b/x`` and
    ``c/x`` give ``a/b/`` and ``c/``.
    """
    ours, theirs = name.split("/"), path.split("/")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    rest = len("/".join(ours[len(ours) - same :]))
    return name[: len(name) - rest], path[: len(path) - rest]


def key_number(base: str) -> tuple[tuple[str, ...], int]:
    """The numbers that identify a file among its neighbours, and the position where the last of
    them ends. They are the numbers of five digits or more or, if there are none, the last number.
    """
    runs = list(_LONG_NUMBER.finditer(base)) or list(_NUMBER.finditer(base))[-1:]
    return tuple(run.group() for run in runs), runs[-1].end() if runs else 0


def _begins_word(text: str, at: int) -> bool:
    """True if a word or a number begins at this position of a text."""
    if at == 0 or at == len(text) or not text[at - 1].isalnum():
        return True
    return text[at - 1].isdigit() != text[at].isdigit()


def _common_end(one: str, other: str) -> int:
    """Length of the longest common ending that begins with a whole word in both."""
    length = shared(one[::-1], other[::-1])
    while not (_begins_word(one, len(one) - length) and _begins_word(other, len(other) - length)):
        length -= 1
    return length


def difference(name: str, path: str) -> Difference:
    """How a name differs from the path of its frame: in its folders or, if the file names differ
    too, before and after the number that both contain.
    """
    base, other = posixpath.basename(name), posixpath.basename(path)
    if base == other:
        old, new = alignment(name, path)
        return Difference(old, new, name[len(old) :])
    ends = [key_number(text)[1] or len(posixpath.splitext(text)[0]) for text in (base, other)]
    ending, new_ending = base[ends[0] :], other[ends[1] :]
    same = shared(ending, new_ending)
    if ending != new_ending:  # the replaced ending begins at a mark, such as the last dot
        same = max(0, *(ending.rfind(mark, 0, same) for mark in "._-"))
    ending, new_ending = ending[same:], new_ending[same:]
    ours, theirs = name[: len(name) - len(ending)], path[: len(path) - len(new_ending)]
    kept = _common_end(ours, theirs)
    old, new = ours[: len(ours) - kept], theirs[: len(theirs) - kept]
    return Difference(old, new, ours[len(old) :], ending, new_ending)


def prefix_remaps(differences: Sequence[Difference]) -> Remaps:
    """The shortest prefixes, each with its ending, that map every name to its path. The longest
    comes first, because the first remap that matches a name is used.

    If one old prefix had several new ones, it is extended by the next part of the kept text.
    """
    found: dict[tuple[str, str], tuple[str, str]] = {}
    waiting = list(differences)
    while waiting:
        groups: dict[tuple[str, str], list[Difference]] = {}
        for one in waiting:
            groups.setdefault((one.old, one.ending), []).append(one)
        waiting = []
        for key, members in groups.items():
            if len({(one.new, one.new_ending) for one in members}) == 1:
                found[key] = members[0].new, members[0].new_ending
                continue
            for one in members:
                token = _TOKEN.match(one.kept)
                if token is not None:
                    word = token.group()
                    old, new, kept = one.old + word, one.new + word, one.kept[len(word) :]
                    waiting.append(Difference(old, new, kept, one.ending, one.new_ending))
    remaps = [Remap(old, new) for old, new in found.items() if old != new]
    return tuple(sorted(remaps, key=_longest_first))


def _longest_first(remap: Remap) -> tuple[int, tuple[str, ...]]:
    return -sum(map(len, remap.old)), remap.old


def general_remaps(remaps: Remaps) -> Remaps:
    """The remaps with one remap in place of all those that change the same words after different
    beginnings: ``*/png/*=*/*`` in place of ``a/png/=a/`` and ``b/png/=b/``.
    """
    alike: dict[tuple[str, ...], list[Remap]] = {}
    for remap in remaps:
        lead = remap.old[0][: shared(remap.old[0], remap.new[0])]
        while lead and lead[-1].isalnum():
            lead = lead[:-1]
        old, new = remap.old[0][len(lead) :], remap.new[0][len(lead) :]
        mark = lead[-1:]
        key = (mark + old, remap.old[1], mark + new, remap.new[1]) if mark else (remap.text,)
        alike.setdefault(key, []).append(remap)
    found = [
        Remap(("", key[0], key[1]), ("", key[2], key[3])) if len(members) > 1 else members[0]
        for key, members in alike.items()
    ]
    return tuple(sorted(found, key=_longest_first))
