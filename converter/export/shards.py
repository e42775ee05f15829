"""Writes chosen rows as a new dataset of shards. Samples are copied without decoding; new shards
have as many rows as the old ones.

Rows that were not chosen, and those in quarantine, count as left out of the new dataset.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.build.publish import open_publisher
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
from refit_shard.converter.export.plan import Part, SetExport
from refit_shard.shards_spec.errors import RefitShardError, ShardError, UsageError
from refit_shard.shards_spec.manifest import MAX_MANIFEST_BYTES, Manifest
from refit_shard.shards_spec.reader import Shard
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.writer import quarantine_bytes

SUBSET = "subset"  # the entry of a plan that states from which rows a subset was made


@dataclass(kw_only=True)
class _Frames:
    """Counts the frames of a new shard while its samples are read."""

    names: set[str] = field(default_factory=set)

    def account(self) -> Account:
        """What the index states. Which rows were read with a warning is not known here."""
        return Account(frames=len(self.names), warned={})


def write_subset(
    chosen: SetExport,
    folder: Folder,
    where: str | None,
    workers: int | None,
    on_shard: Callable[[ShardResult], None],
) -> list[ShardResult]:
    """Write the chosen rows as shards; the manifest is written last. If stopped, the same call
    continues.

    Raises:
        UsageError: the folder holds other shards, or the rows are too scattered for a manifest.
        ShardError: a sample or a new shard is damaged.
        StorageError: reading or writing failed.
    """
    content = subset_content(chosen, where)
    new = NewShards(dataset=chosen.dataset, content=content, fields=chosen.manifest.fields)
    with build_lock(folder):
        publisher = open_publisher(folder, chosen.dataset, content, overwrite=False)
        try:
            wanted = [_remake(chosen, index) for index in range(len(chosen.files))]
            results = remake_shards(publisher, new, wanted, workers, on_shard)
            manifest = _manifest(chosen, content, results)
            if len(manifest.to_json()) > MAX_MANIFEST_BYTES:
                raise UsageError(
                    f"{folder.url}: the {len(manifest.left_out)} runs of rows that are left out "
                    "do not fit into a manifest; export fewer rows, or whole sequences"
                )
            check_remade(folder, manifest)
            publisher.switch(manifest, quarantine_bytes([]), lambda _: None)
        except RefitShardError:
            publisher.clear()
            raise
    return results


def subset_content(chosen: SetExport, where: str | None) -> dict[str, Any]:
    """The plan of the new dataset: the old plan, and which of its rows were chosen.

    Raises:
        ShardError: the old plan is damaged.
    """
    plan = chosen.manifest.plan
    earlier = plan.get(SUBSET, [])
    if not isinstance(earlier, list):
        raise ShardError(
            f"{chosen.data_set.folder.url}: damaged: {SUBSET!r} of the plan is not a list"
        )
    return {**plan, SUBSET: [*earlier, chosen.identity(where)]}


def left_out_runs(source_rows: int, kept: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """The runs [begin, end) of rows, of 0 … ``source_rows`` - 1, that are not in ``kept``, int64
    (n,).
    """
    missing = np.ones(source_rows + 2, bool)
    missing[[0, -1]] = False
    missing[kept + 1] = False
    edges = np.flatnonzero(np.diff(missing.astype(np.int8)))
    return tuple((int(begin), int(end)) for begin, end in edges.reshape(-1, 2).tolist())


def _remake(chosen: SetExport, index: int) -> Remake:
    frames = _Frames()
    return Remake(
        rows=chosen.rows_of(index),
        samples=partial(_samples, chosen, chosen.files[index], frames),
        account=frames.account,
    )


def _samples(chosen: SetExport, parts: tuple[Part, ...], frames: _Frames) -> Samples:
    manifest, folder = chosen.manifest, chosen.data_set.folder
    for part in parts:
        entry = manifest.shards[part.shard]
        with folder.local_copy(f"{entry.name}.arrow", f"{entry.name}.tar") as local:
            shard = Shard(local, entry, manifest.fields)
            for row in part.rows.tolist():
                record, jpeg = whole_sample(shard, row, chosen.dataset)
                frames.names.add(shard.sample(row)["imgname"])
                yield record, jpeg


def _manifest(chosen: SetExport, content: dict[str, Any], results: list[ShardResult]) -> Manifest:
    kept = np.concatenate([result.rows for result in results])
    return replace(
        chosen.manifest,
        plan=content,
        generation=0,  # replaced when the manifest is published
        left_out=left_out_runs(chosen.manifest.source_rows, kept),
        rows=len(kept),
        frames=sum(result.frames for result in results),
        quarantined={},
        warned={},
        shards=tuple(result.entry for result in results),
    )
