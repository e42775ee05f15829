"""Verifies a dataset: reads all shards, and checks that every source row is accounted for."""

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError, ShardError
from refit_shard.shards_spec.fields import is_whole_record
from refit_shard.shards_spec.manifest import Manifest, ShardEntry
from refit_shard.shards_spec.names import quarantine_name
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.reader import (
    Sample,
    Shard,
    ShardSeal,
    ShardSet,
    read_index,
)
from refit_shard.shards_spec.records import NpyLayout
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.storage.paths import AnyPath
from refit_shard.shards_spec.writer import QUARANTINE_SCHEMA, Quarantined


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of verifying one shard.

    ``rows``: its source rows. ``problem``: the first error in the shard, or None. ``seal``: the
    metadata of its index, None if they could not be read.
    """

    shard: str
    rows: NDArray[np.int64]
    problem: str | None
    seal: ShardSeal | None = None


def _check_file(folder: Folder, name: str, size: int, sha256: str) -> None:
    found_sha256, found_size = folder.fingerprint(name)
    if found_size != size:
        raise ShardError(f"{name}: {found_size} bytes, the manifest says {size}")
    if found_sha256 != sha256:
        raise ShardError(f"{name}: its content has changed since the build (SHA-256 differs)")


def _member(members: Iterator[tarfile.TarInfo], name: str, where: str) -> tarfile.TarInfo:
    member = next(members, None)
    if member is None or member.name != name or not member.isreg():
        found = "the end" if member is None else repr(member.name)
        raise ShardError(f"{where}: the tar's next member must be {name!r}, found {found}")
    return member


def _same(left: Any, right: Any) -> bool:
    return bool(np.array_equal(np.asarray(left), np.asarray(right)))


def _check_npy(data: bytes, npy: NpyLayout, shard: Shard, row: int, where: str) -> None:
    """Check that the labels beside the image are equal to those of the index."""
    if len(data) != npy.size or not data.startswith(npy.header):
        raise ShardError(f"{where}: the .npy is damaged")
    if not is_whole_record(data[len(npy.header) :]):
        raise ShardError(f"{where}: the labels in the .npy are damaged (crc32c)")
    record = np.frombuffer(data, npy.dtype, offset=len(npy.header))[0]
    sample = shard.sample(row)
    for name, value in sample.labels.items():
        if not shard.fields[name].in_npy:
            continue
        stored = record[name]
        if isinstance(stored, bytes):
            same = stored.decode(errors="replace") == value
        else:  # as bytes, because an own label may be NaN
            same = np.asarray(stored).tobytes() == np.asarray(value, stored.dtype).tobytes()
        if not same:
            raise ShardError(f"{where}: {name!r} in the .npy differs from the index")


def checked_image(sample: Sample, where: str) -> NDArray[np.uint8]:
    """The stored crop as (H, W, 3) uint8 RGB. Its checksum and size are compared with the index.

    Raises:
        ShardError: the JPEG does not match the index, or cannot be decoded.
    """
    data = sample.jpeg
    if crc32c(data) != int(sample["jpg_crc32c"]):
        raise ShardError(f"{where}: the JPEG's crc32c differs from the index")
    stated = int(sample["height"]), int(sample["width"])
    try:
        height, width = jpeg.size(data)
        if (height, width) != stated:
            raise ShardError(
                f"{where}: the JPEG is {width}x{height}, the index says {stated[1]}x{stated[0]}"
            )
        jpeg.check_size(data, *stated)
        return jpeg.decode(data)
    except FrameError as error:
        raise ShardError(f"{where}: the JPEG cannot be decoded ({error})") from error


def _check_rows(folder: Folder, shard: Shard, npy: NpyLayout) -> None:
    """Compare the tar with the index: every member, every byte range, every image."""
    keys = shard.column("key").to_pylist()
    offsets, lengths = shard.view("jpg_offset"), shard.view("jpg_length")
    try:
        with folder.open(f"{shard.name}.tar") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = iter(tar)
            for row, key in enumerate(keys):
                where = f"{shard.name}: row {row} ({key})"
                image = _member(members, f"{key}.jpg", where)
                if (image.offset_data, image.size) != (int(offsets[row]), int(lengths[row])):
                    raise ShardError(f"{where}: the JPEG is not where the index says")
                labels = _member(members, f"{key}.npy", where)
                if labels.size != npy.size:
                    raise ShardError(
                        f"{where}: the .npy has {labels.size} bytes, must have {npy.size}"
                    )
                stream = tar.extractfile(labels)
                _check_npy(stream.read() if stream else b"", npy, shard, row, where)
                checked_image(shard.sample(row), where)
            extra = next(members, None)
            if extra is not None:
                raise ShardError(f"{shard.name}.tar: holds {extra.name!r}, not in the index")
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{shard.name}.tar: not a readable tar ({error})") from error


def _check_seal(seal: ShardSeal, manifest: Manifest, entry: ShardEntry) -> None:
    """Check that the metadata of the index agree with the manifest."""
    stated = (seal.plan_hash, seal.tar_sha256, seal.tar_bytes)
    if stated != (manifest.plan_hash, entry.tar_sha256, entry.tar_bytes):
        what = "plan" if seal.plan_hash != manifest.plan_hash else "tar"
        raise ShardError(f"{entry.name}.arrow: belongs to another {what} than the manifest's")


def verify_shard(folder: Folder, manifest: Manifest, entry: ShardEntry, *, quick: bool) -> Verdict:
    """Check one shard. ``quick``: True to check only hashes, not the tar's members and images."""
    rows = np.zeros(0, np.int64)
    index, tar = f"{entry.name}.arrow", f"{entry.name}.tar"
    try:
        with folder.local_copy(index, tar) as local:
            _check_file(local, index, entry.arrow_bytes, entry.arrow_sha256)
            _check_file(local, tar, entry.tar_bytes, entry.tar_sha256)
            shard = Shard(local, entry, manifest.fields)
            rows = shard.view("source_row")
            if not quick:
                _check_rows(local, shard, NpyLayout.of(manifest))
            seal = shard.seal()
            _check_seal(seal, manifest, entry)
    except ShardError as error:
        return Verdict(shard=entry.name, rows=rows, problem=str(error))
    return Verdict(shard=entry.name, rows=rows, problem=None, seal=seal)


def read_quarantine(folder: Folder, manifest: Manifest) -> pa.RecordBatch:
    """The quarantine of a dataset: one row for each source row that could not be made into a
    sample.

    Raises:
        ShardError: the file is missing or damaged, or has other rows than the manifest counts.
    """
    name = quarantine_name(manifest.generation)
    table = read_index(folder, name)
    if not table.schema.equals(QUARANTINE_SCHEMA):
        raise ShardError(f"{name}: its columns are not those of the format")
    counts = Counter(table.column("reason").to_pylist())
    if counts != manifest.quarantined:
        raise ShardError(
            f"{name}: {table.num_rows} rows, the manifest counts {dict(manifest.quarantined)}, "
            f"the table {dict(counts)}"
        )
    return table


def _check_sums(
    manifest: Manifest, seals: Sequence[ShardSeal], quarantined: Sequence[Quarantined]
) -> None:
    """Check that the manifest and the quarantine agree with the shards' indexes."""
    frames = sum(seal.frames for seal in seals)
    if frames != manifest.frames:
        raise ShardError(f"manifest.json: says {manifest.frames} frames, the indexes {frames}")
    listed = {row.source_row: row for row in quarantined}
    warned: Counter[str] = Counter()
    for seal in seals:
        warned.update(seal.warned)
        for row in seal.quarantined:
            if listed.get(row.source_row) != row:
                raise ShardError(
                    f"{quarantine_name(manifest.generation)}: source row {row.source_row} is "
                    "missing or differs from the index of its shard"
                )
    if warned != manifest.warned:
        raise ShardError(
            f"manifest.json: counts the warnings {dict(manifest.warned)}, the indexes "
            f"{dict(warned)}"
        )


def _account(folder: Folder, manifest: Manifest, verdicts: Sequence[Verdict]) -> None:
    """Check that every source row is exactly once in a shard, in quarantine or left out."""
    listed = read_quarantine(folder, manifest).to_pylist()
    quarantined = [Quarantined(**row) for row in listed]
    left_out = [np.arange(begin, end) for begin, end in manifest.left_out]
    bad = np.array([row.source_row for row in quarantined], np.int64)
    every = np.sort(np.concatenate([*(verdict.rows for verdict in verdicts), bad, *left_out]))
    if not _same(every, np.arange(manifest.source_rows)):
        found = np.unique(every)
        raise ShardError(
            f"of {manifest.source_rows} source rows {len(found)} are in shards, in quarantine or "
            f"left out, {len(every) - len(found)} of them twice"
        )
    seals = [verdict.seal for verdict in verdicts if verdict.seal is not None]
    _check_sums(manifest, seals, quarantined)


def verify(
    path_or_url: AnyPath, *, quick: bool = False, on_shard: Callable[[Verdict], None] | None = None
) -> list[str]:
    """The errors in a dataset, at most one line for each shard, in the shards' order.

    Args:
        path_or_url: the dataset's folder.
        quick: True to check only hashes, not the tars' members and images.
        on_shard: called after each shard.

    Raises:
        ShardError: the manifest is missing or damaged.
        FormatError: the manifest has another format version.
    """
    data_set = ShardSet.open(path_or_url)
    folder, manifest = data_set.folder, data_set.manifest

    def check(entry: ShardEntry) -> Verdict:
        return verify_shard(folder, manifest, entry, quick=quick)

    verdicts = []
    with ThreadPoolExecutor(available_cores()) as pool:
        for verdict in pool.map(check, manifest.shards):
            verdicts.append(verdict)
            if on_shard is not None:
                on_shard(verdict)
    problems = [verdict.problem for verdict in verdicts if verdict.problem is not None]
    if not problems:
        try:
            _account(folder, manifest, verdicts)
        except ShardError as error:
            problems.append(str(error))
    return problems
