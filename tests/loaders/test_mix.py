"""Mixing: the ratios hold in every prefix, and any place of the stream can be asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from refit_shard.loaders.philox import generator
from refit_shard.loaders.stream import mix
from refit_shard.loaders.stream.mix import FARTHEST, Mixer, Origin, make_mixer
from tests.searches import examples

Ints = NDArray[np.int64]


@st.composite
def ratios(draw: st.DrawFn) -> list[float]:
    """One to seven ratios, some of them tiny or zero."""
    weight = st.one_of(st.floats(0.001, 1.0), st.sampled_from([0.0, 1e-6, 0.05, 0.5, 1.0]))
    weights = draw(st.lists(weight, min_size=1, max_size=7).filter(any))
    return [one / sum(weights) for one in weights]


def check_prefixes(mix: list[float], length: int) -> None:
    """In every prefix up to ``length`` each source has its share to within 1.5."""
    which, _ = make_mixer("exact", mix, 0).assign(0, length)
    n = np.arange(1, length + 1)
    for source, ratio in enumerate(mix):
        off = np.cumsum(which == source) - n * ratio
        assert np.abs(off).max() <= 1.5, (source, int(np.abs(off).argmax()) + 1)


@settings(max_examples=examples(300))
@given(ratios(), st.integers(1, 20_000))
def test_exact_ratios_hold_in_every_prefix(mix: list[float], length: int) -> None:
    """Whatever the ratios, no source is ever ahead or behind by more than 1.5."""
    check_prefixes(mix, length)


def test_exact_ratios_hold_for_many_mixes_of_seven() -> None:
    """Dirichlet mixes, even and very uneven: deep and flat trees."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        alpha = rng.choice([0.1, 0.5, 1.0, 5.0])
        check_prefixes(rng.dirichlet([alpha] * int(rng.integers(2, 8))).tolist(), 4000)


def check_draws(mixer: Mixer, sources: int, length: int) -> None:
    """Draws of each source count up from 0, and ``counts`` says how many came before."""
    which, numbers = mixer.assign(0, length)
    seen = [0] * sources
    for position, (source, number) in enumerate(zip(which.tolist(), numbers.tolist(), strict=True)):
        if position % 97 == 0:
            assert mixer.counts(position).tolist() == seen
        assert number == seen[source]
        seen[source] += 1
    assert mixer.counts(length).tolist() == seen


@settings(max_examples=examples(40))
@given(ratios(), st.sampled_from(["exact", "iid"]))
def test_draws_count_up_without_gaps(mix: list[float], mixing: str) -> None:
    """No draw of a source is left out or given twice; a source of ratio 0 never comes."""
    mixer = make_mixer(mixing, mix, 3)
    check_draws(mixer, len(mix), 1500)
    assert all(ratio > 0 or n == 0 for ratio, n in zip(mix, mixer.counts(1500), strict=True))


@settings(max_examples=examples(60))
@given(ratios(), st.sampled_from(["exact", "iid"]), st.integers(0, 70_000), st.integers(0, 400))
def test_any_window_is_the_slice_of_the_whole(
    mix: list[float], mixing: str, first: int, count: int
) -> None:
    """What lies at a position does not depend on where one begins to ask."""
    whole = make_mixer(mixing, mix, 1).assign(0, first + count)
    window = make_mixer(mixing, mix, 1).assign(first, count)
    for found, expected in zip(window, whole, strict=True):
        np.testing.assert_array_equal(found, expected[first:])


@pytest.mark.parametrize(
    "mix",
    [
        [0.95, 0.05],
        [0.50, 0.05, 0.05, 0.20, 0.20],
        [0.25, 0.05, 0.1, 0.4, 0.2],
        [0.05] * 20,
        [0.05, 0.35, 0.6],
    ],
)
def test_five_percent_is_in_every_second_batch_of_64(mix: list[float]) -> None:
    """Over 5000 batches a source of 5% is never absent from two in a row."""
    which, _ = make_mixer("exact", mix, 0).assign(0, 64 * 5000)
    batches = which.reshape(-1, 64)
    for source in np.flatnonzero(np.array(mix) == 0.05).tolist():
        here = (batches == source).any(axis=1)
        assert (here[1:] | here[:-1]).all()


def test_literal_sequences() -> None:
    """The order is part of the format of a state: it must not change with a version."""
    which, numbers = make_mixer("exact", [0.5, 0.3, 0.2], 0).assign(0, 20)
    assert which.tolist() == [1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0]
    assert numbers.tolist() == [0, 0, 0, 1, 1, 2, 1, 3, 2, 4, 3, 5, 2, 6, 4, 7, 3, 8, 5, 9]
    which, _ = make_mixer("exact", [0.95, 0.05], 0).assign(0, 64)
    assert np.flatnonzero(which == 1).tolist() == [10, 30, 50]
    which, numbers = make_mixer("iid", [0.5, 0.3, 0.2], 0).assign(0, 20)
    assert which.tolist() == [1, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert numbers.tolist() == [0, 0, 1, 1, 2, 0, 3, 4, 2, 5, 6, 7, 8, 9, 10, 1, 11, 12, 13, 2]
    far, numbers = make_mixer("iid", [0.5, 0.3, 0.2], 0).assign(10**9, 6)
    assert far.tolist() == [1, 0, 1, 1, 1, 0]
    assert numbers[:2].tolist() == [300008231, 500008842]


def test_far_positions_are_exact_and_quick_to_ask_for() -> None:
    """At the end of the longest run the counts still add up, without walking there."""
    mix = [0.50, 0.05, 0.05, 0.20, 0.20]
    for position in (250_000 * 64, 10**12):
        counts = make_mixer("exact", mix, 0).counts(position)
        assert counts.sum() == position
        assert np.abs(counts - position * np.array(mix)).max() <= 1.5
        which, numbers = make_mixer("exact", mix, 0).assign(position, 1)
        assert numbers[0] == counts[which[0]]


@pytest.mark.parametrize("mix", [[0.25, 0.05, 0.1, 0.4, 0.2], [0.95, 0.05], [0.0, 0.7, 0.3, 0.0]])
def test_iid_draws_follow_the_ratios_independently(mix: list[float]) -> None:
    """Chi-squared over 1e6 draws, of single draws and of neighbours."""
    which, _ = make_mixer("iid", mix, 0).assign(0, 1_000_000)
    used = np.flatnonzero(np.array(mix) > 0)
    counts = np.bincount(which, minlength=len(mix))
    assert counts.sum() == counts[used].sum()
    expected = np.array(mix)[used] * 1_000_000
    assert stats.chisquare(counts[used], expected).pvalue > 1e-3
    pairs = np.bincount(which[:-1:2] * len(mix) + which[1::2], minlength=len(mix) ** 2)
    likely = np.outer(mix, mix).ravel() * 500_000
    kept = likely > 0
    assert stats.chisquare(pairs[kept], likely[kept]).pvalue > 1e-3


def test_iid_seeds_differ() -> None:
    """Another seed is another stream."""
    streams = [make_mixer("iid", [0.5, 0.5], seed).assign(0, 200)[0].tolist() for seed in range(3)]
    assert len({tuple(stream) for stream in streams}) == 3


MIXES = [[0.25, 0.05, 0.1, 0.4, 0.2], [0.5, 0.5], [0.999, 0.001]]


def spread(counts: Ints, block: int, ratio: float) -> float:
    """How likely counts of ``block`` items each are to vary so much or so little, by their law."""
    off = (counts - block * ratio) ** 2 / (block * ratio * (1 - ratio))
    below = float(stats.chi2(counts.size).cdf(off.sum()))
    return 2 * min(below, 1 - below)


@pytest.mark.parametrize("mix", MIXES)
def test_iid_counts_vary_as_they_should_at_every_scale(mix: list[float]) -> None:
    """Counts of blocks next to each other, from a few items to many of the leaves of the walk."""
    which, _ = make_mixer("iid", mix, 1).assign(0, 1 << 21)
    for source, ratio in enumerate(mix):
        here = which == source
        for block in (1 << 6, 1 << 10, 3 << 9, 1 << 12, 1 << 15):
            if block * ratio * (1 - ratio) < 3:  # too few for the law of their squares
                continue
            counts = here[: here.size // block * block].reshape(-1, block).sum(axis=1)
            assert spread(counts, block, ratio) > 1e-3, (source, block)


@pytest.mark.parametrize("mix", MIXES)
def test_iid_draws_do_not_know_each_other(mix: list[float]) -> None:
    """No correlation at any distance, also over the ends of leaves, and runs as long as by chance.

    Sums of products of neighbours that are independent are nearly normal.
    """
    which, _ = make_mixer("iid", mix, 2).assign(5_000_000, 1 << 20)
    ratio = mix[0]
    off = ((which == 0) - ratio) / np.sqrt(ratio * (1 - ratio))
    for lag in (1, 2, 3, 7, 63, 64, 512, 1023, 1024, 1025, 2048, 4096, 65536):
        assert abs(np.mean(off[:-lag] * off[lag:])) < 4 / np.sqrt(off.size - lag), lag
    changes = np.count_nonzero(np.diff(which == 0))
    expected = 2 * ratio * (1 - ratio) * (off.size - 1)
    assert abs(changes - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("mix", MIXES)
def test_iid_counts_vary_as_they_should_far_away(mix: list[float]) -> None:
    """Of intervals of up to 2**32 items, anywhere up to 2**45."""
    rng = np.random.default_rng(3)
    mixer = make_mixer("iid", mix, 4)
    for block in (1 << 12, 1 << 20, 1 << 32):
        begins = rng.integers(0, 1 << 45, 150).tolist()
        counts = np.array([mixer.counts(one + block) - mixer.counts(one) for one in begins])
        for source, ratio in enumerate(mix):
            if block * ratio > 30:
                assert spread(counts[:, source], block, ratio) > 1e-3, (source, block)


def test_iid_prefixes_of_many_seeds_follow_the_binomial_law() -> None:
    """The first items depend on every level of the walk."""
    found = [int(make_mixer("iid", [0.7, 0.3], seed).counts(100)[1]) for seed in range(600)]
    assert stats.kstest(np.array(found) + 0.5, stats.binom(100, 0.3).cdf).statistic < 0.12
    assert spread(np.array(found), 100, 0.3) > 1e-3
    assert abs(np.mean(found) - 30) < 4 * np.sqrt(21 / 600)


@pytest.mark.parametrize(
    ("chosen", "half"),
    [(5, 1 << 20), (700, 1024), (2000, 1024), (1500, 2048), (3000, 4096), (40_000, 1 << 16)],
)
def test_halves_follow_the_hypergeometric_law(chosen: int, half: int) -> None:
    """Exactly where few are chosen, else nearly: no test of some thousand draws sees it."""
    found = [mix._in_first_half(chosen, half, generator(one, "t")) for one in range(4000)]
    law = stats.hypergeom(2 * half, chosen, half)
    edges = np.unique(law.ppf(np.linspace(0.05, 0.95, 19)))
    seen = np.bincount(np.searchsorted(edges, found), minlength=len(edges) + 1)
    likely = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]]))
    assert stats.chisquare(seen, likely * len(found)).pvalue > 1e-3
    assert set(found) <= set(range(max(0, chosen - half), min(chosen, half) + 1))


@settings(max_examples=examples(60))
@given(ratios(), st.sampled_from(["exact", "iid"]), st.integers(0, 1 << 45), st.integers(0, 200))
def test_assign_and_counts_agree_anywhere(
    mix: list[float], mixing: str, first: int, count: int
) -> None:
    """The draws of a slice begin at the counts before it and end at those after it."""
    mixer = make_mixer(mixing, mix, 6)
    before, after = mixer.counts(first), make_mixer(mixing, mix, 6).counts(first + count)
    assert before.sum() == first
    which, numbers = make_mixer(mixing, mix, 6).assign(first, count)
    for source in range(len(mix)):
        mine = numbers[which == source].tolist()
        assert mine == list(range(before[source], after[source]))


@settings(max_examples=examples(60))
@given(ratios(), st.integers(FARTHEST - 10_000, FARTHEST - 1))
def test_the_last_positions_are_as_good_as_the_first(mix: list[float], position: int) -> None:
    """Counts add up to the position and are those of the ratios."""
    for mixing in ("exact", "iid"):
        counts = make_mixer(mixing, mix, 0).counts(position)
        assert counts.sum() == position
        assert np.abs(counts / position - mix).max() < 1e-6


def test_any_place_takes_as_many_steps_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """42 splits a node of the tree for a place that is new, next to none for the one after it."""
    splits: list[int] = []
    split = mix._in_first_half

    def counted(chosen: int, half: int, bits: np.random.Philox) -> int:
        splits.append(half)
        return split(chosen, half, bits)

    monkeypatch.setattr(mix, "_in_first_half", counted)
    for position in (0, 64, 100 * 10**6, 1 << 45, FARTHEST - 64):
        splits.clear()
        make_mixer("iid", [1 / 7] * 7, 0).assign(position, 64)
        assert len(splits) <= 6 * 42 + 6 * 2
    mixer = make_mixer("iid", [0.5, 0.3, 0.2], 0)
    mixer.counts(10**9)
    splits.clear()
    for step in range(1000):
        mixer.assign(10**9 + 64 * step, 64)
    assert len(splits) < 300


@settings(max_examples=examples(100))
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    st.sampled_from(["exact", "iid"]),
    st.integers(0, 2**32),
)
def test_ratios_that_change_go_on_from_each_source_s_own_draw(
    changes: list[int], mixing: str, seed: int
) -> None:
    """Draws count up without gaps through all changes, and exact ratios hold since the last one."""
    rng = np.random.default_rng(seed)
    origin = Origin(0, (0, 0, 0))
    for length in changes:
        mix = rng.dirichlet([0.5] * 3)
        mix[rng.integers(3)] = 0.0
        mix = (mix / mix.sum()).tolist()
        mixer = make_mixer(mixing, mix, 0, origin)
        np.testing.assert_array_equal(mixer.counts(origin.position), origin.draws)
        which, numbers = mixer.assign(origin.position, length)
        for source in range(3):
            mine = numbers[which == source]
            np.testing.assert_array_equal(mine, origin.draws[source] + np.arange(len(mine)))
            since = np.cumsum(which == source) - np.arange(1, length + 1) * mix[source]
            if mixing == "exact":
                assert np.abs(since).max(initial=0) <= 1.5
        end = origin.position + length
        origin = Origin(end, tuple(mixer.counts(end).tolist()))
        assert sum(origin.draws) == end


def test_iid_after_a_change_is_another_sequence() -> None:
    """Also with the same ratios: what comes from an origin on is not the beginning once more."""
    begun = make_mixer("iid", [0.5, 0.5], 0).assign(0, 200)[0]
    again = make_mixer("iid", [0.5, 0.5], 0, Origin(400, (200, 200))).assign(400, 200)[0]
    assert begun.tolist() != again.tolist()
