"""What a worker is given and what it gives back: plain data, sent between processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.archives.members import Member
from refit_shard.shards_spec.fields import Field
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.manifest import ShardEntry
from refit_shard.shards_spec.writer import Quarantined


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all shards of one build share."""

    dataset: Dataset
    root: str
    out: str
    envelope: Envelope
    box_px: int
    quality: int
    plan_hash: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """The rows of one shard: every sequence and label has one entry a row, frames adjacent.

    ``candidates``: stems of shards that stand and may be kept instead, in the order of preference.
    ``members``: those of the paths that are members of archives.
    """

    index: int
    source_rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    imgnames: Sequence[str]
    paths: Sequence[str]
    labels: dict[str, NDArray[Any]]
    candidates: tuple[str, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """A shard that was built now or kept.

    ``rows``: the source rows that its index holds. ``warned``: how many of them were read with a
    warning, by its text. ``attempt``: of a new one, which still has the names of this attempt; None
    for one that was kept. ``whole``: stems of whole shards in whose place a new one comes.
    """

    index: int
    entry: ShardEntry
    rows: NDArray[np.int64]
    frames: int
    quarantined: tuple[Quarantined, ...]
    warned: Mapping[str, int]
    attempt: str | None = None
    whole: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether it stood already."""
        return self.attempt is None
