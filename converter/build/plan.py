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
    """The options that decide the bytes of the shards, besides the dataset.

    Args:
        box_px: side in pixels at which the person's box is stored.
        envelope: the largest factor on the box's side for which a crop is stored completely, at any
            rotation.
        quality: of the JPEGs, 1 to 100.
        samples_per_shard: number of rows in a shard, except that a frame's rows stay together.
        limit: build only this many first rows of the npz; None for all.
        seed: of the permutation that spreads frames over the shards.
        remaps: replacements in the frames' names.
        keep: own labels of the npz that are stored too.

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
    """Which rows are in which shard.

    ``order``: source rows in the order in which they are stored. ``starts``: index in ``order`` at
    which each shard begins, and the end of the last one. ``frames``: number of distinct frames.
    ``frame_of_row``: the frame's number for each source row.
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
    """A seeded permutation of ``count`` frames, the same with every version of numpy."""
    keys = np.random.Philox(key=seed).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)


def plan_order(
    frame_of_row: Rows, usable: NDArray[np.bool_], samples_per_shard: int, seed: int
) -> tuple[Rows, Rows]:
    """``order`` and ``starts`` of a :class:`Plan`, for the usable rows.

    Frames are permuted, so that each shard is a random sample of the dataset. The rows of a frame
    stay together in one shard, in the npz's order. Shards have nearly equal numbers of rows.
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
    """Runs of adjacent groups with at most ``most`` rows together; a larger group is a run by
    itself.
    """
    first = 0
    for index, (_, end) in enumerate(groups):
        if end - groups[first][0] > most and index > first:
            yield groups[first:index]
            first = index
    if groups:
        yield groups[first:]
