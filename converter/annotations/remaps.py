"""Remaps: replacements that turn names of frames in an npz into names of files."""

from collections.abc import Sequence
from dataclasses import dataclass

from refit_shard.shards_spec.errors import UsageError

STAR = "*"
_FORM = (
    "must be OLD=NEW, a prefix of imgname and its new one, "
    "or 'PRE*SUF=NEWPRE*NEWSUF', where each * is a part of the name that is kept"
)


@dataclass(frozen=True)
class Remap:
    """Replaces parts of a name and keeps the rest.

    ``old``: the texts that are replaced. ``new``: as many texts that replace them. The first text
    of ``old`` must be at the beginning of the name and the last at its end; those between are
    searched from the end of the name. The parts of the name between them are kept.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def text(self) -> str:
        """The remap as a value of ``--remap``."""
        if len(self.old) == 2 and self.old[0] and not (self.old[1] or self.new[1]):
            return f"{self.old[0]}={self.new[0]}"
        return f"{STAR.join(self.old)}={STAR.join(self.new)}"

    def apply(self, name: str) -> str | None:
        """The new name, or None if the remap does not match the name."""
        begin, *middle, ending = self.old
        end = len(name) - len(ending)
        if end < len(begin) or not (name.startswith(begin) and name.endswith(ending)):
            return None
        found = self.new[-1]
        for old, new in zip(reversed(middle), reversed(self.new[1:-1]), strict=True):
            at = name.rfind(old, len(begin), end)
            if at < 0:
                return None
            found = new + name[at + len(old) : end] + found
            end = at
        return self.new[0] + name[len(begin) : end] + found


Remaps = tuple[Remap, ...]


def prefix_remap(old: str, new: str) -> Remap:
    """A remap that replaces the beginning ``old`` of a name by ``new``."""
    return Remap((old, ""), (new, ""))


def parse_remaps(texts: Sequence[str]) -> Remaps:
    """The remaps of texts ``OLD=NEW``: prefixes, or patterns with the same number of ``*`` on both
    sides. The first ``=`` separates OLD and NEW.

    Raises:
        UsageError: a text does not have that form.
    """
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Remap:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise UsageError(f"--remap {text!r}: {_FORM}")
    if STAR not in text:
        return prefix_remap(old, new)
    remap = Remap(tuple(old.split(STAR)), tuple(new.split(STAR)))
    if len(remap.old) != len(remap.new) or "" in remap.old[1:-1]:
        raise UsageError(
            f"--remap {text!r}: OLD and NEW must hold * equally often, and OLD no two * in a row"
        )
    return remap


def remapped(name: str, remaps: Sequence[Remap]) -> str:
    """The name as changed by the first remap that matches it; unchanged if none matches."""
    for remap in remaps:
        new = remap.apply(name)
        if new is not None:
            return new
    return name
