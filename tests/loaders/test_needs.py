"""What a stream reads and when: as counted draw by draw."""

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.loaders.stream.mix import make_mixer
from refit_shard.loaders.stream.needs import Needs, Visits
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.loaders.stream.source import Source, open_sources
from tests.loaders.manifests import ROW_BYTES, make_manifest
from tests.searches import examples

shard_rows = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any)
windows = st.none() | st.integers(1, 5)


def made(folder: str, sizes: list[list[int]], window: int | None, seed: int = 0) -> list[Source]:
    """Sources of equal shares, with only a manifest."""
    places = {
        f"s{index}": (make_manifest(Path(folder), f"s{index}", rows), 1 / len(sizes))
        for index, rows in enumerate(sizes)
    }
    options = StreamOptions(seed=seed, window=window, augment=False, rank=0, world_size=1)
    return open_sources(places, options, sequential=False, cache=None)


@settings(max_examples=examples(40))
@given(shard_rows, windows, st.integers(0, 200))
def test_following_is_the_next_draw_or_now_in_a_visit(
    sizes: list[int], window: int | None, draw: int
) -> None:
    """Never later than the next draw of a shard; the same, where it is not between two of them."""
    with tempfile.TemporaryDirectory() as folder:
        (source,) = made(folder, [sizes], window)
        following = Visits(source).following(draw)
        shards = source.shards_of(np.arange(draw + 2 * source.rows)).tolist()
        begin = draw // source.rows * source.rows
        for shard, rows in enumerate(sizes):
            exact = [d for d in range(draw, len(shards)) if shards[d] == shard]
            if not rows:
                assert following[shard] == math.inf
            elif shard in shards[begin:draw] and exact[0] < begin + source.rows:
                assert following[shard] == draw
            else:
                assert following[shard] == exact[0]


@settings(max_examples=examples(40))
@given(
    st.lists(shard_rows, min_size=1, max_size=3), windows, st.integers(0, 300), st.integers(1, 40)
)
def test_needs_are_the_shards_of_the_draws(
    sizes: list[list[int]], window: int | None, begin: int, count: int
) -> None:
    """The shards of a slice are those that its positions draw from, each once."""
    with tempfile.TemporaryDirectory() as folder:
        sources = made(folder, sizes, window)
        mixer = make_mixer("exact", [source.ratio for source in sources], 0)
        needs = Needs(sources, mixer, range(len(sources)), 0)
        which, draws = mixer.assign(begin, count)
        expected = {
            (sources[one].name, int(sources[one].shards_of(draws[[place]])[0]))
            for place, one in enumerate(which.tolist())
        }
        numbers = needs.of(begin, begin + count).tolist()
        located = [needs.locate(number) for number in numbers]
        assert len(set(numbers)) == len(numbers)
        assert {(source.name, shard) for source, shard in located} == expected
        for number, (source, shard) in zip(numbers, located, strict=True):
            assert needs.sizes[number] == ROW_BYTES * source.shards.manifest.shards[shard].rows
            assert needs.following(begin)[number] <= begin + count + len(sources) * 2


@settings(max_examples=examples(40))
@given(
    st.lists(st.integers(8, 12), min_size=1, max_size=30),
    windows,
    st.integers(1, 60),
    st.integers(0, 2**40),
)
def test_working_bytes_hold_all_that_is_in_use(
    sizes: list[int], window: int | None, positions: int, seed: int
) -> None:
    """Shards that are begun and not ended, with those that the positions in flight read."""
    with tempfile.TemporaryDirectory() as folder:
        sources = made(folder, [sizes], window, seed)
        needs = Needs(sources, make_mixer("exact", [1.0], seed), [0], 0)
        rows = sources[0].rows
        for number in range(2):
            shards = sources[0].shards_of(np.arange(number * rows, (number + 1) * rows))
            first = [int(np.flatnonzero(shards == one)[0]) for one in range(len(sizes))]
            last = [int(np.flatnonzero(shards == one)[-1]) for one in range(len(sizes))]
            for draw in range(0, rows, 3):
                in_use = [
                    size * ROW_BYTES
                    for begin, end, size in zip(first, last, sizes, strict=True)
                    if begin < draw + positions and end >= draw
                ]
                assert sum(in_use) <= needs.working_bytes(positions)


def test_a_source_of_no_share_needs_nothing(tmp_path: Path) -> None:
    """Its shards are not even counted; a spare draw may need one shard more."""
    places = {
        "used": (make_manifest(tmp_path, "used", [5] * 4), 1.0),
        "unused": (make_manifest(tmp_path, "unused", [5] * 4), 0.0),
    }
    options = StreamOptions(window=1, augment=False, rank=0, world_size=1)
    sources = open_sources(places, options, sequential=False, cache=None)
    mixer = make_mixer("exact", [1.0, 0.0], 0)
    needs = Needs(sources, mixer, range(2), 0)
    assert needs.sizes.tolist() == [500] * 4
    spare = Needs(sources, mixer, range(2), 20)
    assert len(spare.of(0, 1)) == 4
    assert len(needs.of(0, 1)) == 1
