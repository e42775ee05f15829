"""Carrying out the plan of new labels: each tar is written anew from its members, no image is
decoded, and the new set takes the old one's place once it is whole.

The new shards have a generation of their own beside those that stand, as of a build that
overwrites; so does what is interrupted go on.
"""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.build.publish import Publisher, open_publisher, pending_note
from refit_shard.converter.build.task import ShardResult
from refit_shard.converter.build.work import find_shard, rows_of
from refit_shard.converter.labels.plan import LabelsPlan
from refit_shard.shards_spec.errors import RefitShardError, ShardError, UsageError
from refit_shard.shards_spec.fields import RECORD_CRC, npy_dtype
from refit_shard.shards_spec.manifest import Manifest, ShardEntry, read_manifest
from refit_shard.shards_spec.names import OVERWRITE, quarantine_name, sample_key
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.reader import Shard
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.verify import verify_shard
from refit_shard.shards_spec.writer import shard_content, write_shard

_MAX_QUARANTINE = 1 << 30

OnShard = Callable[[ShardResult], None]


@dataclass(frozen=True, kw_only=True)
class LabelsSummary:
    """What stands on disk afterwards. ``kept_shards``: that an interrupted run had made, or all
    where the set had the labels already. ``joined_by``: what told which row is which.
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
    """Write the set with its new labels beside the old one, then put it in its place.

    Killed at any time, the old set or the new one is whole, and the same call goes on.

    Raises:
        UsageError: another build is writing there, or waits to be ended.
        ShardError: a shard that stands is damaged, or a new one is not what was written.
        StorageError: writing failed; the same call goes on.
    """
    folder, standing = open_folder(plan.request.shards, "SET"), plan.standing
    with build_lock(folder):
        if read_manifest(folder) != standing:
            raise UsageError(f"{folder.url}: the set was built again meanwhile; run the same again")
        note = pending_note(folder, standing.dataset)
        if note is not None and note.plan_hash != plan.plan_hash:
            raise UsageError(
                f"{folder.url}: a build --overwrite or other labels that did not end wait: give "
                f"that command again, or drop it by deleting {folder.url}/{OVERWRITE}"
            )
        if plan.done and OVERWRITE not in folder.names():
            return _summary(plan, folder, standing, kept=len(standing.shards))
        quarantine = folder.read(quarantine_name(standing.generation), limit=_MAX_QUARANTINE)
        publisher = open_publisher(folder, standing.dataset, plan.content, overwrite=True)
        try:
            results = [] if plan.done else _rewrite_all(plan, publisher, on_shard)
            manifest = _manifest(plan, results)
            _check(folder, manifest)
            manifest = publisher.switch(manifest, quarantine, lambda _: None)
        except RefitShardError:
            publisher.clear()
            raise
    kept = len(standing.shards) if plan.done else sum(result.kept for result in results)
    return _summary(plan, folder, manifest, kept)


def _rewrite_all(plan: LabelsPlan, publisher: Publisher, on_shard: OnShard) -> list[ShardResult]:
    """Every shard in the order of the set; each has its name as soon as it is made."""
    entries = plan.standing.shards
    results: dict[int, ShardResult] = {}
    pool = ThreadPoolExecutor(plan.request.workers or available_cores())
    try:
        futures = [
            pool.submit(_rewrite, plan, publisher, index, entry)
            for index, entry in enumerate(entries)
        ]
        for future in as_completed(futures):
            result = publisher.publish(future.result())
            results[result.index] = result
            on_shard(result)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[index] for index in range(len(entries))]


def _rewrite(plan: LabelsPlan, publisher: Publisher, index: int, entry: ShardEntry) -> ShardResult:
    """A shard with the new labels: one that an interrupted run had made, or a new attempt."""
    folder, standing = publisher.folder, plan.standing
    for stem in publisher.candidates.get(index, ()):
        found = find_shard(plan.plan_hash, folder, index, stem)
        if found is not None and found.entry.rows == entry.rows:
            return found
    attempt = secrets.token_hex(8)
    with folder.local_copy(f"{entry.name}.arrow", f"{entry.name}.tar") as local:
        shard = Shard(local, entry, standing.fields)
        seal = shard.seal()

        def content(tar_sha256: str, tar_bytes: int) -> dict[str, Any]:
            return shard_content(
                plan_hash=plan.plan_hash,
                tar_sha256=tar_sha256,
                tar_bytes=tar_bytes,
                frames=seal.frames,
                quarantined=seal.quarantined,
                warned=seal.warned,
            )

        samples = _samples(plan, shard)
        made, batch = write_shard(folder, entry.name, attempt, plan.fields, samples, content)
    return ShardResult(
        index=index,
        entry=made,
        rows=rows_of(batch),
        frames=seal.frames,
        quarantined=seal.quarantined,
        warned=seal.warned,
        attempt=attempt,
    )


def _samples(plan: LabelsPlan, shard: Shard) -> Iterator[tuple[NDArray[np.void], bytes]]:
    """Each sample's record with the new labels, and its JPEG; both are compared with their CRC."""
    dtype = npy_dtype(plan.fields)
    added = plan.kept.take(plan.places[shard.view("source_row")])
    for row in range(len(shard)):
        sample = shard.sample(row)
        old, jpeg = sample.record(), bytes(sample.jpeg)
        key = sample_key(plan.standing.dataset, int(old["source_row"]))
        if sample["key"] != key:
            raise ShardError(f"{shard.where}.arrow: row {row}: its key is not {key}; damaged")
        if crc32c(jpeg) != int(old["jpg_crc32c"]):
            raise ShardError(
                f"{shard.where}.tar: row {row}: the JPEG is damaged (crc32c); build the set again, "
                "then add the labels"
            )
        record = np.zeros((), dtype)
        for name in old.dtype.names or ():
            if name != RECORD_CRC:
                record[name] = old[name]
        for name, values in added.items():
            record[name] = values[row]
        yield record, jpeg


def _manifest(plan: LabelsPlan, results: list[ShardResult]) -> Manifest:
    if plan.done:
        return plan.standing
    return replace(
        plan.standing,
        plan=plan.content,
        fields=plan.fields,
        shards=tuple(result.entry for result in results),
    )


def _check(folder: Folder, manifest: Manifest) -> None:
    """Read all files of the new set again: their hashes, and what the indexes state."""
    with ThreadPoolExecutor(available_cores()) as pool:
        verdicts = pool.map(
            lambda entry: verify_shard(folder, manifest, entry, quick=True), manifest.shards
        )
        for verdict in verdicts:
            if verdict.problem is not None:
                raise ShardError(f"{folder.url}: the new shards are not whole: {verdict.problem}")


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
