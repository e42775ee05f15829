"""Makes shards from the samples of other shards. No image is decoded, and every sample that is
copied is compared with its checksums.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.converter.build.publish import Publisher
from refit_shard.converter.build.task import ShardResult
from refit_shard.converter.build.work import find_shard, rows_of
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.fields import Field
from refit_shard.shards_spec.manifest import Manifest, plan_hash
from refit_shard.shards_spec.names import sample_key, shard_stem
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.reader import Shard
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.verify import verify_shard
from refit_shard.shards_spec.writer import Quarantined, shard_content, write_shard

Samples = Iterator[tuple[NDArray[np.void], bytes]]


@dataclass(frozen=True, kw_only=True)
class Account:
    """What the index of a shard states besides its rows."""

    frames: int
    quarantined: tuple[Quarantined, ...] = ()
    warned: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Remake:
    """One shard to make.

    ``rows``: number of its samples. ``samples``: returns an iterator over them, (record, JPEG).
    ``account``: called after the last sample; returns what the index states besides the rows.
    """

    rows: int
    samples: Callable[[], Samples]
    account: Callable[[], Account]


@dataclass(frozen=True, kw_only=True)
class NewShards:
    """What all new shards share: ``content``, which is everything that decides their bytes (the
    plan), and their columns.
    """

    dataset: str
    content: Mapping[str, Any]
    fields: tuple[Field, ...]


def whole_sample(shard: Shard, row: int, dataset: str) -> tuple[NDArray[np.void], bytes]:
    """A stored sample's record and JPEG, with both checksums verified.

    Raises:
        ShardError: the record or the JPEG is damaged.
    """
    sample = shard.sample(row)
    record, jpeg = sample.record(), bytes(sample.jpeg)
    key = sample_key(dataset, int(record["source_row"]))
    if sample["key"] != key:
        raise ShardError(f"{shard.where}.arrow: row {row}: its key is not {key}; damaged")
    if crc32c(jpeg) != int(record["jpg_crc32c"]):
        raise ShardError(
            f"{shard.where}.tar: row {row}: the JPEG is damaged (crc32c); build the dataset again, "
            "then run this command again"
        )
    return record, jpeg


def remake_shards(
    publisher: Publisher,
    new: NewShards,
    wanted: Sequence[Remake],
    workers: int | None,
    on_shard: Callable[[ShardResult], None],
) -> list[ShardResult]:
    """Make the wanted shards, except those that an interrupted run has made. Returns all results in
    order.

    Each shard gets its final name as soon as it is made; ``on_shard`` is then called with it.
    ``workers``: threads, None for one a core.

    Raises:
        ShardError: a sample is damaged.
        StorageError: reading or writing failed.
    """
    results: dict[int, ShardResult] = {}
    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        futures = [
            pool.submit(_remake, publisher, new, index, one) for index, one in enumerate(wanted)
        ]
        for future in as_completed(futures):
            result = publisher.publish(future.result())
            results[result.index] = result
            on_shard(result)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[index] for index in range(len(wanted))]


def _remake(publisher: Publisher, new: NewShards, index: int, wanted: Remake) -> ShardResult:
    """One shard: the one that an interrupted run has made, or a new attempt."""
    folder, hash_of_plan = publisher.folder, plan_hash(new.content)
    for stem in publisher.candidates.get(index, ()):
        found = find_shard(hash_of_plan, folder, index, stem)
        if found is not None and found.entry.rows == wanted.rows:
            return found
    attempt = secrets.token_hex(8)
    accounts: list[Account] = []

    def seal(tar_sha256: str, tar_bytes: int) -> dict[str, Any]:
        accounts.append(wanted.account())
        return shard_content(
            plan_hash=hash_of_plan,
            tar_sha256=tar_sha256,
            tar_bytes=tar_bytes,
            frames=accounts[0].frames,
            quarantined=accounts[0].quarantined,
            warned=accounts[0].warned,
        )

    stem = shard_stem(new.dataset, index)
    made, batch = write_shard(folder, stem, attempt, new.fields, wanted.samples(), seal)
    return ShardResult(
        index=index,
        entry=made,
        rows=rows_of(batch),
        frames=accounts[0].frames,
        quarantined=accounts[0].quarantined,
        warned=accounts[0].warned,
        attempt=attempt,
    )


def check_remade(folder: Folder, manifest: Manifest) -> None:
    """Read all new shards again and check their hashes and what their indexes state.

    Raises:
        ShardError: a file differs from what was written.
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        verdicts = pool.map(
            lambda entry: verify_shard(folder, manifest, entry, quick=True), manifest.shards
        )
        for verdict in verdicts:
            if verdict.problem is not None:
                raise ShardError(f"{folder.url}: a new shard is damaged: {verdict.problem}")
