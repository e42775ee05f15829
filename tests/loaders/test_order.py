"""The order of a source: passes that are permutations, and differ."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refit_shard.loaders.stream.order import Passes, Sequential


@given(st.integers(1, 500), st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_every_pass_is_a_permutation(rows: int, seed: int, number: int) -> None:
    """Within a pass each row comes once."""
    draws = np.arange(number * rows, (number + 1) * rows)
    assert sorted(Passes([rows], seed, "bedlam").locate(draws).tolist()) == list(range(rows))


def test_passes_sources_and_seeds_differ() -> None:
    """No order is used twice, whichever of the three changes."""
    orders = {
        tuple(Passes([50], seed, name).locate(np.arange(p * 50, p * 50 + 50)).tolist())
        for seed in (0, 1)
        for name in ("bedlam", "agora")
        for p in range(4)
    }
    assert len(orders) == 16


def test_a_pass_is_shuffled_evenly() -> None:
    """Over many passes each row stands in each place about equally often."""
    rows, passes = 10, 4000
    order = Passes([rows], 0, "x").locate(np.arange(rows * passes)).reshape(passes, rows)
    counts = np.array([np.bincount(order[:, place], minlength=rows) for place in range(rows)])
    assert np.abs(counts - passes / rows).max() < 5 * np.sqrt(passes / rows)


@given(st.integers(1, 60), st.lists(st.integers(0, 400), min_size=1, max_size=40))
def test_draws_in_any_order_are_the_same(rows: int, draws: list[int]) -> None:
    """Jumping between passes, back and forth, changes nothing."""
    whole = Passes([rows], 2, "x").locate(np.arange(401))
    found = Passes([rows], 2, "x").locate(np.array(draws))
    np.testing.assert_array_equal(found, whole[draws])


def test_draws_from_many_threads_are_the_same() -> None:
    """Threads that work on different passes at once do not disturb each other."""
    passes = Passes([300], 0, "x")
    expected = Passes([300], 0, "x").locate(np.arange(300 * 40)).reshape(40, 300)
    with ThreadPoolExecutor(8) as pool:
        jobs = [np.arange(p * 300, (p + 1) * 300) for p in [*range(40), *range(40)]]
        found = list(pool.map(passes.locate, jobs))
    np.testing.assert_array_equal(np.array(found), np.concatenate([expected, expected]))


def test_literal_sequence() -> None:
    """Passes of seed 0 stay what they are under any version of numpy."""
    found = Passes([8], 0, "bedlam").locate(np.arange(24)).reshape(3, 8).tolist()
    assert found == [
        [3, 5, 7, 0, 2, 1, 6, 4],
        [0, 2, 6, 5, 3, 4, 7, 1],
        [6, 0, 7, 5, 2, 4, 3, 1],
    ]


def test_sequential_order_repeats() -> None:
    """An evaluation reads row after row."""
    assert Sequential(3).locate(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


shard_rows = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


@given(shard_rows, st.integers(1, 12), st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_a_windowed_pass_is_a_permutation_that_reads_few_shards(
    sizes: list[int], window: int, seed: int, number: int
) -> None:
    """Each row once; at no draw are more than window + 1 shards begun and not ended."""
    rows = sum(sizes)
    draws = np.arange(number * rows, (number + 1) * rows)
    order = Passes(sizes, seed, "bedlam", window).locate(draws)
    assert sorted(order.tolist()) == list(range(rows))
    shards = np.repeat(np.arange(len(sizes)), sizes)[order].tolist()
    first = {shard: shards.index(shard) for shard in set(shards)}
    last = {shard: rows - 1 - shards[::-1].index(shard) for shard in set(shards)}
    for draw in range(rows):
        assert sum(first[shard] <= draw <= last[shard] for shard in first) <= window + 1


def test_a_window_of_one_reads_shards_nearly_one_by_one() -> None:
    """And a wider one mixes more of them, in passes that differ."""
    mixed = []
    for window in (1, 2, 4, 8, 16):
        passes = Passes([100] * 32, 0, "x", window)
        orders = passes.locate(np.arange(3 * 3200)).reshape(3, 3200) // 100
        assert len({tuple(order.tolist()) for order in orders}) == 3
        batches = orders[0][800:2400].reshape(-1, 64)
        mixed.append(np.mean([len(set(batch.tolist())) for batch in batches]))
    assert mixed[0] < 3
    assert mixed == sorted(mixed)
    assert mixed[-1] > 14


def test_rows_of_a_shard_spread_evenly_over_its_window() -> None:
    """In the middle of a pass each of the window's shards gives about as many rows."""
    order = Passes([1000] * 12, 0, "x", 4).locate(np.arange(12000)) // 1000
    _, counts = np.unique(order[5500:6500], return_counts=True)
    assert len(counts) in (4, 5, 6)
    assert np.sort(counts)[-3:].min() > 150


def test_literal_sequence_of_a_window() -> None:
    """What a window makes of seed 0 stays what it is under any version of numpy."""
    found = Passes([3, 2, 4, 1], 0, "bedlam", 2).locate(np.arange(20)).reshape(2, 10).tolist()
    assert found == [
        [9, 5, 7, 8, 6, 0, 2, 1, 3, 4],
        [6, 5, 0, 8, 2, 7, 1, 3, 4, 9],
    ]
