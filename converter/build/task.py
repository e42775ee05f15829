"""The tasks and results of workers, which are sent between processes."""

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
    """The options that all shards of one build share."""

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
    """The rows of one shard. Sequences and labels have one entry for each row; the rows of a frame
    are adjacent.

    ``candidates``: stems of existing shards that may be kept instead, in order of preference.
    ``members``: the archive members, by path, of those frames that are in archives.
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
    """A shard that was built or kept.

    ``rows``: the source rows in its index. ``warned``: how many rows were read with a warning, by
    the warning's text. ``attempt``: the attempt whose temporary names a new shard still has; None
    for a kept one. ``whole``: stems of complete shards that the new one replaces.
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
        """True if the shard existed already."""
        return self.attempt is None
