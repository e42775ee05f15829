"""Duplicate frames and crops, found from index tables.

Frames are equal if their names are; crops are equal if the CRC-32C and the length of their JPEGs
are. For each, 16 bytes are kept: a 64-bit number that stands for it, and the place where it was
first seen.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.shards_spec.fields import FIELD, numpy_view

EXAMPLES = 5
_ROW_BITS = 40


class Place(NamedTuple):
    """A row of a shard: the shard's number and the row's number in it."""

    shard: int
    row: int


@dataclass(frozen=True, kw_only=True)
class Twice:
    """Frames or crops that are in two datasets, or twice in one.

    Attributes:
        first: number of a dataset.
        second: number of the other dataset, or of the same one.
        kind: ``"frame"`` or ``"crop"``.
        count: the number of duplicate frames or crops.
        examples: places of some of them, in the first and in the second dataset.
    """

    first: int
    second: int
    kind: str
    count: int
    examples: tuple[tuple[Place, Place], ...]


class Seen:
    """The frames and crops of one dataset, collected from its index tables."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[np.uint64]]] = {"frame": [], "crop": []}

    def add(self, batch: pa.RecordBatch, shard: int, rows: NDArray[np.int64]) -> None:
        """Add rows of an index table. ``rows`` (n,): their numbers in shard number ``shard``."""
        places = (np.uint64(shard) << np.uint64(_ROW_BITS)) | rows.astype(np.uint64)
        names = batch.column("imgname").dictionary_encode()
        first = np.unique(names.indices.to_numpy(), return_index=True)[1]
        frames = np.array([_number(name) for name in names.dictionary.to_pylist()], np.uint64)
        self._parts["frame"].append(np.stack([frames, places[first]]))
        crc, length = (
            numpy_view(FIELD[name], batch.column(name)).astype(np.uint64)
            for name in ("jpg_crc32c", "jpg_length")
        )
        self._parts["crop"].append(np.stack([crc << np.uint64(32) | length, places]))

    def all(self, kind: str) -> NDArray[np.uint64]:
        """Numbers and places of one kind, (2, n) uint64, sorted by number, then by place."""
        parts = self._parts[kind]
        found = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.uint64)
        return found[:, np.lexsort(found[::-1])]


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _place(packed: np.uint64) -> Place:
    shard, row = divmod(int(packed), 1 << _ROW_BITS)
    return Place(shard, row)


def find_twice(sets: Sequence[Seen]) -> list[Twice]:
    """Duplicates: frames that are in two datasets, crops that are in two datasets or twice in one.

    Several rows of one frame in one dataset are several people, and are not counted.
    """
    found = []
    for kind in ("frame", "crop"):
        every = [seen.all(kind) for seen in sets]
        if kind == "crop":
            found += [_within(number, one) for number, one in enumerate(every)]
        found += [
            _between(first, second, kind, every[first], every[second])
            for first, second in combinations(range(len(every)), 2)
        ]
    return [one for one in found if one.count]


def _within(number: int, crops: NDArray[np.uint64]) -> Twice:
    """Crops of a dataset that equal an earlier one in it."""
    again = np.flatnonzero(crops[0, 1:] == crops[0, :-1])
    examples = [(_place(crops[1, at]), _place(crops[1, at + 1])) for at in again[:EXAMPLES]]
    return Twice(
        first=number, second=number, kind="crop", count=len(again), examples=tuple(examples)
    )


def _between(
    first: int, second: int, kind: str, one: NDArray[np.uint64], other: NDArray[np.uint64]
) -> Twice:
    """Frames or crops that two datasets share; repetitions within a dataset count once."""
    numbers, at_one = np.unique(one[0], return_index=True)
    others, at_other = np.unique(other[0], return_index=True)
    _, mine, theirs = np.intersect1d(numbers, others, assume_unique=True, return_indices=True)
    examples = [
        (_place(one[1, at_one[a]]), _place(other[1, at_other[b]]))
        for a, b in zip(mine[:EXAMPLES], theirs[:EXAMPLES], strict=True)
    ]
    return Twice(first=first, second=second, kind=kind, count=len(mine), examples=tuple(examples))
