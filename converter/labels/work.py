"""Carries out the plan of ``add-labels``: new shards are written from the samples of the old ones,
without decoding an image, and replace them once all are complete.

The new shards are written beside the old ones with a new generation, as in a build with
``--overwrite``, and an interrupted run is continued in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.build.publish import Publisher, open_publisher, pending_note
from refit_shard.converter.build.remake import (
    Account,
    NewShards,
    Remake,
    Samples,
    check_remade,
    remake_shards,
    whole_sample,
)
from refit_shard.converter.build.task import ShardResult
from refit_shard.converter.labels.plan import LabelsPlan
from refit_shard.shards_spec.errors import RefitShardError, UsageError
from refit_shard.shards_spec.fields import RECORD_CRC, npy_dtype
from refit_shard.shards_spec.manifest import Manifest, ShardEntry, read_manifest
from refit_shard.shards_spec.names import OVERWRITE, quarantine_name
from refit_shard.shards_spec.reader import Shard, open_index, read_seal
from refit_shard.shards_spec.storage.folder import Folder, open_folder

_MAX_QUARANTINE = 1 << 30

OnShard = Callable[[ShardResult], None]


@dataclass(frozen=True, kw_only=True)
class LabelsSummary:
    """The dataset with its new labels.

    ``joined_by``: how rows were matched. ``kept_shards``: shards that an interrupted run has
    written; all if the dataset had the labels already.
    """

    dataset: str
    out: str
    labels: tuple[str, ...]
    joined_by: str
    rows: int
    shards: int
    kept_shards: int
    bytes: int


def add_labels(plan: LabelsPlan, on_shard: OnShard) -> LabelsSummary:
    """Write the shards with the new labels beside the old ones, then replace those.

    If killed at any time, the old shards or the new ones are complete, and the same call continues;
    so it does after a StorageError.

    Raises:
        UsageError: another build is writing there, or was interrupted.
        ShardError: an existing or a new shard is damaged.
        StorageError: reading or writing failed.
    """
    folder, existing = open_folder(plan.request.shards, "SET"), plan.existing
    with build_lock(folder):
        if read_manifest(folder) != existing:
            raise UsageError(
                f"{folder.url}: the dataset was built again meanwhile; run the same command again"
            )
        note = pending_note(folder, existing.dataset)
        if note is not None and note.plan_hash != plan.plan_hash:
            raise UsageError(
                f"{folder.url}: a build --overwrite or another add-labels was interrupted: run "
                f"that command again, or give it up by deleting {folder.url}/{OVERWRITE}"
            )
        if plan.done and OVERWRITE not in folder.names():
            return _summary(plan, folder, existing, kept=len(existing.shards))
        quarantine = folder.read(quarantine_name(existing.generation), limit=_MAX_QUARANTINE)
        publisher = open_publisher(folder, existing.dataset, plan.content, overwrite=True)
        try:
            results = [] if plan.done else _remake_all(plan, publisher, on_shard)
            manifest = _manifest(plan, results)
            check_remade(folder, manifest)
            manifest = publisher.switch(manifest, quarantine, lambda _: None)
        except RefitShardError:
            publisher.clear()
            raise
    kept = len(existing.shards) if plan.done else sum(result.kept for result in results)
    return _summary(plan, folder, manifest, kept)


def _remake_all(plan: LabelsPlan, publisher: Publisher, on_shard: OnShard) -> list[ShardResult]:
    """Make every shard again with the new labels, in the dataset's order."""
    existing = plan.existing
    new = NewShards(dataset=existing.dataset, content=plan.content, fields=plan.fields)
    remakes = [
        Remake(
            rows=entry.rows,
            samples=partial(_samples, plan, publisher.folder, entry),
            account=partial(_account, plan, publisher.folder, entry),
        )
        for entry in existing.shards
    ]
    return remake_shards(publisher, new, remakes, plan.request.workers, on_shard)


def _account(plan: LabelsPlan, folder: Folder, entry: ShardEntry) -> Account:
    """What the index of an existing shard states besides its rows."""
    name = f"{entry.name}.arrow"
    seal = read_seal(open_index(folder, entry, plan.existing.fields), name)
    return Account(frames=seal.frames, quarantined=seal.quarantined, warned=seal.warned)


def _samples(plan: LabelsPlan, folder: Folder, entry: ShardEntry) -> Samples:
    """Each sample's record with the new labels, and its JPEG."""
    dtype = npy_dtype(plan.fields)
    with folder.local_copy(f"{entry.name}.arrow", f"{entry.name}.tar") as local:
        shard = Shard(local, entry, plan.existing.fields)
        added = plan.kept.take(plan.places[shard.view("source_row")])
        for row in range(len(shard)):
            old, jpeg = whole_sample(shard, row, plan.existing.dataset)
            record = np.zeros((), dtype)
            for name in old.dtype.names or ():
                if name != RECORD_CRC:
                    record[name] = old[name]
            for name, values in added.items():
                record[name] = values[row]
            yield record, jpeg


def _manifest(plan: LabelsPlan, results: list[ShardResult]) -> Manifest:
    if plan.done:
        return plan.existing
    return replace(
        plan.existing,
        plan=plan.content,
        fields=plan.fields,
        shards=tuple(result.entry for result in results),
    )


def _summary(plan: LabelsPlan, folder: Folder, manifest: Manifest, kept: int) -> LabelsSummary:
    return LabelsSummary(
        dataset=manifest.dataset,
        out=folder.url,
        labels=tuple(map(str, plan.kept.fields)),
        joined_by=plan.joined_by,
        rows=manifest.rows,
        shards=len(manifest.shards),
        kept_shards=kept,
        bytes=sum(entry.tar_bytes + entry.arrow_bytes for entry in manifest.shards),
    )
