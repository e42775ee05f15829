"""Large datasets of finished shards, made in a minute, for benchmarks of starts, queries and
reports.

Every shard has its own valid Arrow index, with keys, names and rows of the npz that no other shard
has. The tars are hard links to a few written ones, which hold stored crops of
:mod:`benchmarks.crops` and their records. So shards share tars: JPEGs, checksums and labels at the
offsets that the indexes state. The loader reads only offsets from an index and everything else from
the tar, so it works as with real shards; ``refit-shard verify`` would find that the keys differ.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.build_cases import SEED, made_by
from benchmarks.crops import Crops
from refit_shard import ShardSet
from refit_shard.shards_spec.fields import FIELD, arrow_column
from refit_shard.shards_spec.manifest import Manifest, ShardEntry
from refit_shard.shards_spec.names import MANIFEST, QUARANTINE, sample_key, shard_stem
from refit_shard.shards_spec.records import OpenTars, RecordReader
from refit_shard.shards_spec.writer import (
    ShardWriter,
    arrow_bytes,
    quarantine_bytes,
    shard_content,
    shard_metadata,
)

_ROWS_A_FRAME = 2


@dataclass(frozen=True)
class Written:
    """A written tar and its index."""

    path: Path
    sha256: str
    size: int
    index: pa.RecordBatch


def _write_tar(path: Path, crops: Crops, rows: Sequence[int]) -> Written:
    """Write a tar of the given crops in order; a crop may be given more than once."""
    data_set = ShardSet.open(str(crops.shards))
    reader = RecordReader(data_set, OpenTars())
    with path.open("wb") as stream:
        writer = ShardWriter(stream, data_set.manifest.fields)
        for number, row in enumerate(rows):
            stored = reader.read(row)
            record = np.frombuffer(bytearray(stored.record), reader.dtype)[0:1].reshape(())
            record["key"] = sample_key(data_set.manifest.dataset, number)
            record["source_row"] = number
            writer.add(record, stored.jpeg)
        sha256, size, index = writer.finish()
    return Written(path, sha256, size, index)


def _write_index(path: Path, tar: Written, manifest: Manifest, first_row: int) -> ShardEntry:
    """The index of a shard that is ``tar`` under another name, with rows from ``first_row`` on."""
    rows = range(first_row, first_row + tar.index.num_rows)
    own = {
        "key": [sample_key(manifest.dataset, row) for row in rows],
        "imgname": [f"made/{row // _ROWS_A_FRAME:08d}.png" for row in rows],
        "source_row": np.array(rows),
    }
    columns = [
        arrow_column(FIELD[name], own[name]) if name in own else tar.index.column(name)
        for name in tar.index.schema.names
    ]
    index = pa.RecordBatch.from_arrays(columns, schema=tar.index.schema)
    content = shard_content(
        plan_hash=manifest.plan_hash,
        tar_sha256=tar.sha256,
        tar_bytes=tar.size,
        frames=len(rows) // _ROWS_A_FRAME,
        quarantined=(),
        warned={},
    )
    data = arrow_bytes(index.replace_schema_metadata(shard_metadata(index, content)))
    path.write_bytes(data)
    return ShardEntry(
        name=path.stem,
        rows=len(rows),
        tar_bytes=tar.size,
        tar_sha256=tar.sha256,
        arrow_bytes=len(data),
        arrow_sha256=hashlib.sha256(data).hexdigest(),
    )


def _make_set(folder: Path, crops: Crops, tars: Sequence[Written], shards: int) -> None:
    base = ShardSet.open(str(crops.shards)).manifest
    rows = shards * tars[0].index.num_rows
    plan = {**base.plan, "made": rows}
    manifest = replace(base, plan=plan, source_rows=rows, rows=rows, quarantined={})
    entries = []
    for number in range(shards):
        tar = tars[number % len(tars)]
        path = folder / f"{shard_stem(base.dataset, number)}.arrow"
        entries.append(_write_index(path, tar, manifest, number * tar.index.num_rows))
        os.link(tar.path, path.with_suffix(".tar"))
    finished = replace(manifest, frames=rows // _ROWS_A_FRAME, shards=tuple(entries))
    (folder / QUARANTINE).write_bytes(quarantine_bytes([]))
    (folder / MANIFEST).write_bytes(finished.to_json())


def cached_sets(
    crops: Crops, *, shards: Sequence[int], rows_a_shard: int, tars: int
) -> dict[int, Path]:
    """Folders of datasets by number of shards, which are links to ``tars`` tars; made once."""
    key = made_by([Path(__file__)])
    sizes = "-".join(map(str, shards))
    folder = crops.shards.parent / f"many-{sizes}-{rows_a_shard}-{tars}-{key}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        rng = np.random.default_rng(SEED)
        written = []
        for number in range(tars):
            rows = rng.permutation(np.arange(rows_a_shard) % crops.rows).tolist()
            written.append(_write_tar(partial / f"{number}.tar", crops, rows))
        for count in shards:
            (partial / str(count)).mkdir()
            _make_set(partial / str(count), crops, written, count)
        partial.rename(folder)
    return {count: folder / str(count) for count in shards}
