"""The plan: which row goes into which shard. A pure function of the annotations and options."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.keep import Keep
from refit_shard.converter.annotations.remaps import Remaps
from refit_shard.converter.annotations.source import Annotations
from refit_shard.shards_spec.geometry import FULL_ENVELOPE
from refit_shard.shards_spec.values import hold, number, whole

Rows = NDArray[np.int64]

MAX_ENVELOPE = 4.0


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What decides the bytes of the shards, besides the source.

    ``box_px``: side in pixels that the person's box is stored at. ``envelope``: the largest factor
    on the box's side that the crops are to serve, at any rotation. ``quality``: of the JPEG.
    ``samples_per_shard``: rows that a shard holds, give or take a frame. ``limit``: only the
    first rows of the npz. ``seed``: of the permutation that spreads frames over shards.
    ``remaps``: of frame names. ``keep``: labels of one's own that are carried along.

    Raises:
        UsageError: a value is out of its bounds.
    """

    box_px: int = 256
    envelope: float = FULL_ENVELOPE.scale
    quality: int = 90
    samples_per_shard: int = 2048
    limit: int | None = None
    seed: int = 0
    remaps: Remaps = ()
    keep: tuple[Keep, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("box_px", 16, 4096),
            ("quality", 1, 100),
            ("samples_per_shard", 1, 1_000_000),
            ("seed", 0, 2**63 - 1),
            ("limit", 1, 2**63 - 1),
        ):
            value = getattr(self, name)
            if value is not None or name != "limit":
                option = "--" + name.replace("_", "-")
                hold(self, **{name: whole(option, value, low, high)})
        hold(self, envelope=number("--envelope", self.envelope, 1.0, MAX_ENVELOPE))


@dataclass(frozen=True)
class Plan:
    """``order``: source rows in the order in which they are stored; ``starts``: where each shard
    begins in it, and its end; ``frames``: distinct frames; ``frame_of_row`` by source row.
    """

    order: Rows
    starts: Rows
    frames: int
    frame_of_row: Rows

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.starts) - 1

    def rows_of(self, shard: int) -> Rows:
        """Source rows of a shard; the rows of one frame are adjacent."""
        return self.order[self.starts[shard] : self.starts[shard + 1]]


def frame_order(count: int, seed: int) -> Rows:
    """A seeded permutation of ``count`` frames; every version of numpy gives the same."""
    keys = np.random.Philox(key=seed).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)


def plan_order(
    frame_of_row: Rows, usable: NDArray[np.bool_], samples_per_shard: int, seed: int
) -> tuple[Rows, Rows]:
    """Order of the usable rows, and where the shards begin in it.

    Frames are permuted, so that a shard is a fair sample of the dataset; the rows of a frame
    stay together, in their own order, in one shard; shards are of nearly equal size.
    """
    rows = np.flatnonzero(usable)
    if not len(rows):
        return rows.astype(np.int64), np.zeros(1, np.int64)
    frames = np.flatnonzero(np.bincount(frame_of_row[rows]))
    rank = np.empty(frames[-1] + 1, np.int64)
    rank[frames[frame_order(len(frames), seed)]] = np.arange(len(frames))
    rank_of_row = rank[frame_of_row[rows]]
    order = rows[np.argsort(rank_of_row, kind="stable")].astype(np.int64)
    people = np.bincount(rank_of_row, minlength=len(frames))
    before = np.cumsum(people) - people
    shards = -(-len(rows) // samples_per_shard)
    shard_of_frame = before * shards // len(rows)
    first = np.searchsorted(shard_of_frame, np.unique(shard_of_frame))
    starts = np.concatenate([before[first], [len(rows)]]).astype(np.int64)
    return order, starts


def make_plan(source: Annotations, options: BuildOptions) -> Plan:
    """Plan the shards of a source."""
    usable = np.ones(source.rows, bool)
    usable[list(source.faults)] = False
    frame_of_row = source.frame_of_row
    order, starts = plan_order(frame_of_row, usable, options.samples_per_shard, options.seed)
    frames = int(np.count_nonzero(np.bincount(frame_of_row[order])))
    return Plan(order=order, starts=starts, frames=frames, frame_of_row=frame_of_row)


def frame_groups(frames: Sequence[int] | Rows) -> list[tuple[int, int]]:
    """Runs (begin, end) of equal values: the rows of each frame within a shard."""
    values = np.asarray(frames)
    if not len(values):
        return []
    cuts = np.flatnonzero(np.diff(values)) + 1
    edges = [0, *cuts.tolist(), len(values)]
    return list(itertools.pairwise(edges))


def pieces(groups: Sequence[tuple[int, int]], most: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Runs of adjacent groups of together at most ``most`` rows, or of one group."""
    first = 0
    for index, (_, end) in enumerate(groups):
        if end - groups[first][0] > most and index > first:
            yield groups[first:index]
            first = index
    if groups:
        yield groups[first:]
