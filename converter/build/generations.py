"""Decides which names a build gives its shards, which existing shards may be kept, and which files
are deleted.

Pure functions of the names in a folder, its manifest, and the note of an unfinished
``--overwrite``. A *generation* is a number in the names of shards. The first shards in a folder
have generation 0. ``--overwrite`` builds shards of a higher generation beside the existing ones,
which are deleted once the manifest names the new ones. A published shard that is complete but can
be improved (a frame was added since) is replaced in the same way, by a shard of a new generation.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.names import (
    MANIFEST,
    OVERWRITE,
    QUARANTINE,
    generation_of,
    is_attempt,
    quarantine_generation,
    quarantine_name,
    shard_stem,
)

_OLD_QUARANTINE = "quarantine.arrow"  # of format 2
_MAX_GENERATION = 10**8


def _number(stem: str) -> int:
    """A shard's number, from its stem."""
    return int(stem.rpartition("-")[2])


@dataclass(frozen=True, kw_only=True)
class Note:
    """The note of an ``--overwrite`` that was begun: the generation that it builds, and the plan's
    hash.

    The note is in the folder from before the first new shard is named until the old shards are
    deleted.
    """

    generation: int
    plan_hash: str

    def to_json(self) -> bytes:
        """The note as the bytes of its file."""
        content = {"generation": self.generation, "plan_hash": self.plan_hash}
        return (json.dumps(content, sort_keys=True) + "\n").encode()


def parse_note(data: bytes, where: str) -> Note:
    """The note in the bytes of a file; ``where``: the file, for errors.

    Raises:
        ShardError: the note is damaged.
    """
    try:
        content = json.loads(data)
        note = Note(**content)
        if type(note.generation) is int and 0 <= note.generation <= _MAX_GENERATION:
            return note
    except (ValueError, TypeError, RecursionError):
        pass
    raise ShardError(f"{where}: damaged")


@dataclass(frozen=True, kw_only=True)
class Existing:
    """The existing files of a dataset's folder.

    ``manifest``: None if it is missing or unreadable. ``note``: None if there is no
    ``--overwrite``.
    """

    dataset: str
    names: Collection[str]
    manifest: Manifest | None
    note: Note | None

    @property
    def published(self) -> frozenset[str]:
        """Stems that the manifest names."""
        return frozenset(self.published_as.values())

    @cached_property
    def published_as(self) -> dict[int, str]:
        """Stems that the manifest names, by the shard's number."""
        entries = self.manifest.shards if self.manifest is not None else ()
        return {_number(entry.name): entry.name for entry in entries}

    @property
    def pending(self) -> Note | None:
        """The note of an ``--overwrite`` that is not published yet, or None.

        It is None for the first shards in an empty folder, even if ``--overwrite`` was given.
        """
        note, manifest = self.note, self.manifest
        if note is None or note.generation == 0:
            return None
        if manifest is None or manifest.plan_hash != note.plan_hash:
            return note
        stems = (entry.name + ".tar" for entry in manifest.shards)
        generations = [generation_of(self.dataset, file) or 0 for file in stems]
        return note if min(generations) < note.generation else None

    def generation(self, stem: str) -> int | None:
        """The generation of a shard by its stem; None if the shard is not of this dataset."""
        return generation_of(self.dataset, f"{stem}.tar")

    def stems(self) -> list[str]:
        """Stems of the shards of which both files exist, complete or not; the newest generation
        first.
        """
        found = {
            name.removesuffix(".arrow"): generation
            for name in self.names
            if name.endswith(".arrow")
            and name.removesuffix(".arrow") + ".tar" in self.names
            and (generation := generation_of(self.dataset, name)) is not None
        }
        return sorted(found, key=lambda stem: (-found[stem], stem))

    def highest(self) -> int:
        """The highest generation of any file; -1 if there is none."""
        found = [generation_of(self.dataset, name) for name in self.names]
        found += [quarantine_generation(name) for name in self.names]
        if self.note is not None:
            found.append(self.note.generation)
        if self.manifest is not None:
            found.append(self.manifest.generation)
        return max((one for one in found if one is not None), default=-1)

    def mine(self) -> set[str]:
        """Files of builds of this dataset, of any generation, including temporary ones."""
        fixed = (MANIFEST, QUARANTINE, OVERWRITE, _OLD_QUARANTINE)
        return {
            name
            for name in self.names
            if name in fixed
            or generation_of(self.dataset, name) is not None
            or quarantine_generation(name) is not None
            or is_attempt(self.dataset, name)
        }


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which generations a build writes and keeps.

    ``floor``: generation of new shards, and the lowest that a kept one may have. ``fresh``:
    generation of a shard that replaces a complete, published one. ``hidden``: a generation that an
    unfinished ``--overwrite`` builds, which this build ignores. ``note``: the note of this build's
    own ``--overwrite``.
    """

    floor: int
    fresh: int
    hidden: int | None = None
    note: Note | None = None


def choose_target(existing: Existing, plan_hash: str, *, overwrite: bool) -> Target:
    """Which generations this build writes; an interrupted ``--overwrite`` is continued."""
    if overwrite:
        note = existing.note
        if note is None or note.plan_hash != plan_hash:
            note = Note(generation=existing.highest() + 1, plan_hash=plan_hash)
        return Target(floor=note.generation, fresh=_fresh(existing, None), note=note)
    hidden = existing.pending.generation if existing.pending is not None else None
    return Target(floor=0, fresh=_fresh(existing, hidden), hidden=hidden)


def _fresh(existing: Existing, hidden: int | None) -> int:
    """The generation after the published one; the same each time an interrupted build continues."""
    if existing.manifest is None:
        return 0
    fresh = existing.manifest.generation + 1
    return fresh + 1 if fresh == hidden else fresh


def candidates(existing: Existing, target: Target) -> dict[int, tuple[str, ...]]:
    """For each shard's number, the stems of existing shards that may be kept, the newest generation
    first.
    """
    found: dict[int, tuple[str, ...]] = {}
    for stem in existing.stems():
        generation = existing.generation(stem) or 0
        hidden = generation == target.hidden and stem not in existing.published
        if generation >= target.floor and not hidden:
            index = _number(stem)
            found[index] = (*found.get(index, ()), stem)
    return found


def name_of(existing: Existing, target: Target, index: int, whole: Collection[str]) -> str:
    """The stem for a new shard. ``whole``: the complete shards that exist in its place.

    A complete, published shard is not touched before the manifest names the new one. A damaged one
    is replaced under its own name.
    """
    if existing.published.intersection(whole):
        return shard_stem(existing.dataset, index, target.fresh)
    published = existing.published_as.get(index)
    if published is not None and (existing.generation(published) or 0) >= target.floor:
        return published
    return shard_stem(existing.dataset, index, target.floor)


def superseded(existing: Existing, target: Target, manifest: Manifest) -> list[str]:
    """Files that ``manifest``, which is now published, does not name and no other build uses.

    The note of this build's own ``--overwrite`` comes last, so that an interrupted deletion
    continues.
    """
    stems = {entry.name for entry in manifest.shards}
    kept = {MANIFEST, quarantine_name(manifest.generation)}
    kept |= {stem + ending for stem in stems for ending in (".tar", ".arrow")}
    if target.hidden is not None:
        kept.add(OVERWRITE)
        kept |= {
            name
            for name in existing.names
            if target.hidden in (generation_of(existing.dataset, name), quarantine_generation(name))
        }
    return sorted(existing.mine() - kept, key=lambda name: (name == OVERWRITE, name))


def leftovers(existing: Existing) -> list[str]:
    """Temporary files of earlier attempts, which no build uses."""
    return sorted(name for name in existing.names if is_attempt(existing.dataset, name))
