"""What an export writes: which rows of which sets go into which file. Nothing is written here."""

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
    """Rows of one standing shard: its number in its set, and the rows, int64 (n,), ascending."""

    shard: int
    rows: Rows


@dataclass(frozen=True, kw_only=True)
class SetExport:
    """A set and the rows of it that are exported: one part a shard, in the order of the shards,
    none without rows.
    """

    data_set: ShardSet
    parts: tuple[Part, ...]

    @property
    def manifest(self) -> Manifest:
        """Of the set."""
        return self.data_set.manifest

    @property
    def dataset(self) -> str:
        """The name of the set."""
        return self.manifest.dataset

    @property
    def rows(self) -> int:
        """How many rows are exported."""
        return sum(len(part.rows) for part in self.parts)

    @cached_property
    def files(self) -> tuple[tuple[Part, ...], ...]:
        """The parts that each new shard is made of."""
        counts = [len(part.rows) for part in self.parts]
        most = max(entry.rows for entry in self.manifest.shards)
        return tuple(self.parts[begin:end] for begin, end in pack(counts, most))

    def rows_of(self, index: int) -> int:
        """How many rows a new shard has."""
        return sum(len(part.rows) for part in self.files[index])

    def stem(self, index: int) -> str:
        """The name of a new shard without its ending."""
        return shard_stem(self.dataset, index)

    def bytes(self, *, images: bool) -> int:
        """About how many bytes the rows have: their share of the indexes and, with their images,
        of the tars.
        """
        entries = [self.manifest.shards[part.shard] for part in self.parts]
        sizes = [entry.tar_bytes if images else entry.arrow_bytes for entry in entries]
        return sum(
            size * len(part.rows) // entry.rows
            for size, part, entry in zip(sizes, self.parts, entries, strict=True)
        )

    def identity(self, where: str | None) -> dict[str, Any]:
        """What decides the bytes of the export: the content of the set, and which rows of it.

        ``where``: the expression that chose them, for a person who reads it.
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
    """Runs [begin, end) of standing shards whose rows are put together in one new shard: as many
    as make no more than ``most`` rows. A shard is never divided, so that the rows of one frame,
    which are in one shard, stay in one shard.
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
    """``form``: one of :data:`FORMATS`. ``out``: folder or URL. ``sets``: at least one, each with
    rows. ``where``: the expression that chose the rows, None for all. ``workers``: threads, None
    for all cores.

    Raises:
        UsageError: a value is out of its bounds, no row is chosen, or two sets have one name.
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
            raise UsageError("--where: no row of these sets is chosen, so nothing is exported")
        names = [one.dataset for one in self.sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(
                f"two of the sets are called {twice!r}; export each of them to an --out of its own"
            )

    @property
    def rows(self) -> int:
        """Of all sets."""
        return sum(one.rows for one in self.sets)
