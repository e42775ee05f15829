"""Publishes a build: the only code that renames, replaces and deletes files in a dataset's folder.

Workers write files under temporary names, which nobody reads. A worker that finishes too late
leaves one more such file and changes nothing else. The published shards change in one rename, that
of the manifest; the files that are no longer needed are deleted afterwards.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from refit_shard.converter.build.generations import (
    Existing,
    Note,
    Target,
    candidates,
    choose_target,
    leftovers,
    name_of,
    parse_note,
    superseded,
)
from refit_shard.converter.build.identity import OTHERWISE, first_difference
from refit_shard.converter.build.task import ShardResult
from refit_shard.shards_spec.errors import FormatError, ShardError, StorageError, UsageError
from refit_shard.shards_spec.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    is_manifest,
    plan_hash,
    read_manifest,
)
from refit_shard.shards_spec.names import MANIFEST, OVERWRITE, generation_of, quarantine_name
from refit_shard.shards_spec.reader import is_shard, read_index, read_seal
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.writer import publish

_MAX_SMALL = 1 << 30
_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """The folder of one build. ``candidates``: existing shards that may be kept, by number."""

    folder: Folder
    existing: Existing
    target: Target
    candidates: Mapping[int, tuple[str, ...]]

    def publish(self, result: ShardResult) -> ShardResult:
        """Rename a new shard's files to their final names; returns the result with that name."""
        if result.attempt is None:
            return result
        stem = name_of(self.existing, self.target, result.index, result.whole)
        publish(self.folder, result.entry.name, result.attempt, stem)
        return replace(result, entry=replace(result.entry, name=stem))

    def switch(
        self, manifest: Manifest, quarantine: bytes, check: Callable[[str], None]
    ) -> Manifest:
        """Publish the quarantine and, last, the manifest; then delete files that it does not name.

        ``check`` is called with the quarantine's path before the manifest is published, and may
        raise an error to prevent that. Returns the manifest with its generation.
        """
        manifest = replace(manifest, generation=self._generation(manifest, quarantine))
        name = quarantine_name(manifest.generation)
        self._write(name, quarantine)
        check(f"{self.folder.url}/{name}")
        self._write(MANIFEST, manifest.to_json())
        now = replace(self.existing, names=self.folder.names())
        for name in superseded(now, self.target, manifest):
            self.folder.remove(name)
        return manifest

    def clear(self) -> None:
        """Delete temporary files, as far as the storage allows: a full disk needs the space."""
        with suppress(StorageError):
            now = replace(self.existing, names=self.folder.names())
            for name in leftovers(now):
                self.folder.remove(name)

    def _generation(self, manifest: Manifest, quarantine: bytes) -> int:
        """The manifest's generation: the highest one of its shards or, if the existing manifest has
        that generation and another content and another quarantine, a new one, so that the name of
        the quarantine file is new too.
        """
        existing = self.existing
        generations = [existing.generation(entry.name) or 0 for entry in manifest.shards]
        highest = max(generations, default=self.target.floor)
        old = existing.manifest
        if old is None or old.generation < highest:
            return highest
        same = replace(manifest, generation=old.generation).to_json() == old.to_json()
        if same or self._read(quarantine_name(old.generation)) == quarantine:
            return old.generation
        return self.target.fresh

    def _read(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name, limit=_MAX_SMALL)
        except ShardError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Write a small file, unless it has this content already."""
        if self._read(name) != data:
            self.folder.write(name, data)


def open_publisher(
    folder: Folder, dataset: str, plan: Mapping[str, Any], *, overwrite: bool
) -> Publisher:
    """Look at the existing files of the folder and decide which are kept.

    Temporary files of earlier attempts are deleted.

    Raises:
        UsageError: shards of another plan or version exist there, and may not be replaced.
    """
    existing, other_version = _survey(folder, dataset)
    target = choose_target(existing, plan_hash(plan), overwrite=overwrite)
    kept = candidates(existing, target)
    if not overwrite:
        foreign = _foreign(folder, existing)
        if foreign is not None:
            raise UsageError(
                f"{folder.url}/{foreign}: has the name of a shard of {dataset!r} but is none; "
                "choose another --out, or pass --overwrite to replace it"
            )
        if other_version is not None:
            raise UsageError(other_version)
        difference = _difference(folder, existing, kept, plan)
        if difference is not None:
            raise UsageError(
                f"{folder.url}: holds shards built {difference}; pass --overwrite to build new "
                "ones (the old ones stay until these are complete), or choose another --out"
            )
    if target.note is not None and target.note != existing.note:
        folder.write(OVERWRITE, target.note.to_json())
    for name in leftovers(existing):
        folder.remove(name)
    return Publisher(folder=folder, existing=existing, target=target, candidates=kept)


def pending_note(folder: Folder, dataset: str) -> Note | None:
    """The note of an interrupted ``--overwrite`` in the folder, or None."""
    return _survey(folder, dataset)[0].pending


def _survey(folder: Folder, dataset: str) -> tuple[Existing, str | None]:
    """The existing files of the folder; and the error text if their manifest is of another format
    version.
    """
    names = folder.names()
    manifest, other_version = None, None
    if MANIFEST in names:
        try:
            manifest = read_manifest(folder)
        except FormatError as error:
            if is_manifest(folder.read(MANIFEST, limit=MAX_MANIFEST_BYTES)):
                other_version = str(error)
        except ShardError:
            pass  # a damaged manifest is published again; the indexes identify the shards
    existing = Existing(
        dataset=dataset,
        names=frozenset(names),
        manifest=manifest,
        note=_read_note(folder) if OVERWRITE in names else None,
    )
    if MANIFEST in names and manifest is None and not existing.stems() and other_version is None:
        other_version = (
            f"{folder.url}/{MANIFEST}: not a manifest of shards, and there are no shards beside "
            "it; choose another --out, or pass --overwrite to replace it"
        )
    return existing, other_version


def _foreign(folder: Folder, existing: Existing) -> str | None:
    """The name of a file that a build would replace or delete but that no build of this dataset
    made; or None.

    A tar without an index, whose build was killed before the index was written, is recognised by
    its first sample.
    """
    published = existing.published
    for name in sorted(existing.names):
        if generation_of(existing.dataset, name) is None:
            continue
        stem, _, ending = name.rpartition(".")
        if stem in published or f"{stem}.arrow" in existing.names:
            continue
        if ending == "tar" and not is_shard(folder, name, existing.dataset):
            return name
    return None


def _read_note(folder: Folder) -> Note | None:
    try:
        where = f"{folder.url}/{OVERWRITE}"
        return parse_note(folder.read(OVERWRITE, limit=_MAX_SMALL), where)
    except ShardError:
        return None


def _difference(
    folder: Folder,
    existing: Existing,
    kept: Mapping[int, tuple[str, ...]],
    plan: Mapping[str, Any],
) -> str | None:
    """A text that says how the shards in the folder differ from the plan; None if they do not.

    Without a manifest the shards' indexes are compared; damaged ones are skipped and built again.
    """
    wanted = plan_hash(plan)
    if existing.manifest is not None:
        built = existing.manifest.plan
        return None if plan_hash(built) == wanted else first_difference(built, plan)
    stems = [stem for stems in kept.values() for stem in stems]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = pool.map(lambda stem: _plan_of(folder, stem), stems)
        return OTHERWISE if any(found not in (None, wanted) for found in hashes) else None


def _plan_of(folder: Folder, stem: str) -> str | None:
    """The plan's hash in an index; None if the index is damaged."""
    try:
        name = f"{stem}.arrow"
        return read_seal(read_index(folder, name), name).plan_hash
    except FormatError as error:
        return str(error)  # of another format version, so it differs from every plan
    except ShardError:
        return None
