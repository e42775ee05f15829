"""Computes which shards a stream reads and when, from its order.

The prefetcher of shards and ``refit-shard simulate`` use it.

The shards of several datasets are numbered consecutively.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.stream.mix import Mixer
from refit_shard.loaders.stream.source import Source

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Visits:
    """When the shards of a dataset are read: once in each pass, from a first draw to a last."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._spans: dict[int, tuple[Floats, Floats]] = {}

    def _span(self, number: int) -> tuple[Floats, Floats]:
        """First and last place in a pass that reads each shard; infinity and -1 for a shard that is
        not read.
        """
        if number not in self._spans:
            rows = self._source.rows
            places = np.arange(rows)
            shards = self._source.shards_of(number * rows + places)
            first = np.full(len(self._source.shards.manifest.shards), np.inf)
            last = np.full(len(first), -1.0)
            first[shards[::-1]] = places[::-1]
            last[shards] = places
            self._spans = {one: span for one, span in self._spans.items() if one >= number - 1}
            self._spans[number] = first, last
        return self._spans[number]

    def following(self, draw: int) -> Floats:
        """Next draw, at or after ``draw``, for which each shard is needed.

        It is ``draw`` itself for a shard that the pass has begun and not finished, and infinity for
        a shard none of whose rows are used.
        """
        number, place = divmod(draw, self._source.rows)
        first, last = self._span(number)
        again, _ = self._span(number + 1)
        following = np.where(place <= last, np.maximum(first, place), self._source.rows + again)
        return np.asarray(following + number * self._source.rows, np.float64)


class Needs:
    """The shards that a stream needs, of those sources whose indices are ``far``.

    ``spare``: how many draws beyond its own a damaged sample's replacement may be.
    """

    def __init__(
        self, sources: Sequence[Source], mixer: Mixer, far: Sequence[int], spare: int
    ) -> None:
        self._mixer = mixer
        self._far = [index for index in far if sources[index].ratio > 0]
        self._sources = [sources[index] for index in self._far]
        self._visits = [Visits(source) for source in self._sources]
        self._spare = spare
        shards = [source.shards.manifest.shards for source in self._sources]
        self._starts = np.cumsum([0, *map(len, shards)])
        self.sizes: Ints = np.array(
            [one.tar_bytes + one.arrow_bytes for entries in shards for one in entries], np.int64
        )

    def locate(self, number: int) -> tuple[Source, int]:
        """The source of a shard, and its index there."""
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._sources[index], number - int(self._starts[index])

    def _draws(self, position: int) -> list[int]:
        """Number of draws of each source before a position."""
        found: list[int] = self._mixer.counts(position)[self._far].tolist()
        return found

    def of(self, begin: int, end: int) -> Ints:
        """The shards that the positions begin … end - 1 read, including those from which a damaged
        sample may be replaced.
        """
        found = [np.zeros(0, np.int64)]
        for source, start, first, last in zip(
            self._sources, self._starts, self._draws(begin), self._draws(end), strict=False
        ):
            if last > first:
                draws = np.arange(first, last + self._spare)
                found.append(start + np.unique(source.shards_of(draws)))
        return np.concatenate(found)

    def following(self, position: int) -> Floats:
        """Approximate position at which each shard is next read, at or after ``position``; infinity
        if never.
        """
        found = [np.zeros(0)]
        for source, visits, draw in zip(
            self._sources, self._visits, self._draws(position), strict=True
        ):
            found.append(position + (visits.following(draw) - draw) / source.ratio)
        return np.concatenate(found)

    def working_bytes(self, positions: int) -> int:
        """An upper bound for the bytes of the shards in use at a time.

        ``positions``: number of positions in flight. Of each dataset the largest shards count: as
        many as are in its window, and as many as these positions may open.
        """
        total = 0
        for index, source in enumerate(self._sources):
            sizes = np.sort(self.sizes[self._starts[index] : self._starts[index + 1]])[::-1]
            count = len(sizes)
            if source.window is not None:
                draws = positions * source.ratio + self._spare
                count = source.window + 2 + math.ceil(draws * len(sizes) / source.rows)
            total += int(sizes[:count].sum())
        return total
