"""Plans an export: which rows of which datasets go into which file. Nothing is written here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.names import shard_stem
from refit_shard.shards_spec.reader import ShardSet
from refit_shard.shards_spec.storage.paths import location
from refit_shard.shards_spec.values import hold, one_of, whole

FORMATS = ("shards", "json", "parquet", "wids", "energon")

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The exported rows of one existing shard: the shard's number, and its rows, int64
    (n,), sorted.
    """

    shard: int
    rows: Rows


@dataclass(frozen=True, kw_only=True)
class SetExport:
    """A dataset and its exported rows: a part for each shard with such rows, in the order of the
    shards.
    """

    data_set: ShardSet
    parts: tuple[Part, ...]

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest."""
        return self.data_set.manifest

    @property
    def dataset(self) -> str:
        """The name of the dataset."""
        return self.manifest.dataset

    @property
    def rows(self) -> int:
        """The number of exported rows."""
        return sum(len(part.rows) for part in self.parts)

    @cached_property
    def files(self) -> tuple[tuple[Part, ...], ...]:
        """For each new shard, the parts of which it is made."""
        counts = [len(part.rows) for part in self.parts]
        most = max(entry.rows for entry in self.manifest.shards)
        return tuple(self.parts[begin:end] for begin, end in pack(counts, most))

    def rows_of(self, index: int) -> int:
        """The number of rows of a new shard."""
        return sum(len(part.rows) for part in self.files[index])

    def stem(self, index: int) -> str:
        """The name of a new shard without its ending."""
        return shard_stem(self.dataset, index)

    def bytes(self, *, images: bool) -> int:
        """About how many bytes the rows have: their share of the tars or, without ``images``, of
        the indexes.
        """
        entries = [self.manifest.shards[part.shard] for part in self.parts]
        sizes = [entry.tar_bytes if images else entry.arrow_bytes for entry in entries]
        return sum(
            size * len(part.rows) // entry.rows
            for size, part, entry in zip(sizes, self.parts, entries, strict=True)
        )

    def identity(self, where: str | None) -> dict[str, Any]:
        """What decides the bytes of the export: the dataset's content, and which rows are exported.

        ``where``: the expression that chose the rows, for people who read it.
        """
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(np.array([part.shard, len(part.rows)], "<i8").tobytes())
            digest.update(part.rows.astype("<i8").tobytes())
        return {
            "content_hash": self.manifest.content_hash,
            "rows": self.rows,
            "rows_sha256": digest.hexdigest(),
            "where": where or "",
        }


def pack(counts: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Runs [begin, end) of existing shards whose chosen rows are put into one new shard, at most
    ``most`` rows together. A shard is never divided, so the rows of one frame stay in one shard.

    ``counts``: number of chosen rows of each existing shard.
    """
    cuts, filled = [0], 0
    for index, count in enumerate(counts):
        if filled and filled + count > most:
            cuts.append(index)
            filled = 0
        filled += count
    return list(pairwise([*cuts, len(counts)])) if counts else []


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What is exported, and where.

    Args:
        form: one of :data:`FORMATS`.
        out: folder or URL.
        sets: the datasets and their chosen rows; those without rows are left out.
        where: the expression that chose the rows, None for all rows.
        workers: number of threads, None for one a core.

    Raises:
        UsageError: a value is out of its bounds, no row is chosen, or two datasets have one name.
    """

    form: str
    out: str
    sets: tuple[SetExport, ...]
    where: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        one_of("--format", self.form, FORMATS)
        hold(self, out=location(self.out, "--out"))
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 1, 4096))
        hold(self, sets=tuple(one for one in self.sets if one.parts))
        if not self.sets:
            raise UsageError("--where: no row of these datasets is chosen, so nothing is exported")
        names = [one.dataset for one in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(
                f"two of the datasets are called {twice!r}; export each to its own --out"
            )

    @property
    def rows(self) -> int:
        """The number of rows of all datasets."""
        return sum(one.rows for one in self.sets)
