"""Mixing: the ratios hold in every prefix, and any place of the stream can be asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from loaders.mix import ExactMixer, IidMixer, Mixer, make_mixer
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
    which, _ = ExactMixer(mix).assign(0, length)
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
    which, _ = ExactMixer(mix).assign(0, 64 * 5000)
    batches = which.reshape(-1, 64)
    for source in np.flatnonzero(np.array(mix) == 0.05).tolist():
        here = (batches == source).any(axis=1)
        assert (here[1:] | here[:-1]).all()


def test_literal_sequences() -> None:
    """The order is part of the format of a state: it must not change with a version."""
    which, numbers = ExactMixer([0.5, 0.3, 0.2]).assign(0, 20)
    assert which.tolist() == [1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0]
    assert numbers.tolist() == [0, 0, 0, 1, 1, 2, 1, 3, 2, 4, 3, 5, 2, 6, 4, 7, 3, 8, 5, 9]
    which, _ = ExactMixer([0.95, 0.05]).assign(0, 64)
    assert np.flatnonzero(which == 1).tolist() == [10, 30, 50]
    which, numbers = IidMixer([0.5, 0.3, 0.2], 0).assign(0, 20)
    assert which.tolist() == [2, 0, 1, 0, 0, 1, 0, 2, 0, 0, 2, 0, 2, 0, 0, 1, 1, 2, 0, 0]
    assert numbers.tolist() == [0, 0, 0, 1, 2, 1, 3, 1, 4, 5, 2, 6, 3, 7, 8, 2, 3, 4, 9, 10]


def test_far_positions_are_exact_and_quick_to_ask_for() -> None:
    """At the end of the longest run the counts still add up, without walking there."""
    mix = [0.50, 0.05, 0.05, 0.20, 0.20]
    for position in (250_000 * 64, 10**12):
        counts = ExactMixer(mix).counts(position)
        assert counts.sum() == position
        assert np.abs(counts - position * np.array(mix)).max() <= 1.5
        which, numbers = ExactMixer(mix).assign(position, 1)
        assert numbers[0] == counts[which[0]]


@pytest.mark.parametrize("mix", [[0.25, 0.05, 0.1, 0.4, 0.2], [0.95, 0.05], [0.0, 0.7, 0.3, 0.0]])
def test_iid_draws_follow_the_ratios_independently(mix: list[float]) -> None:
    """Chi-squared over 1e6 draws, of single draws and of neighbours."""
    which, _ = IidMixer(mix, 0).assign(0, 1_000_000)
    used = np.flatnonzero(np.array(mix) > 0)
    counts = np.bincount(which, minlength=len(mix))
    assert counts.sum() == counts[used].sum()
    expected = np.array(mix)[used] * 1_000_000
    assert stats.chisquare(counts[used], expected).pvalue > 1e-3
    pairs = np.bincount(which[:-1:2] * len(mix) + which[1::2], minlength=len(mix) ** 2)
    likely = np.outer(mix, mix).ravel() * 500_000
    kept = likely > 0
    assert stats.chisquare(pairs[kept], likely[kept]).pvalue > 1e-3


@settings(max_examples=examples(30))
@given(ratios(), st.integers(0, 200_000), st.integers(1, 300))
def test_iid_resumes_from_saved_counts(mix: list[float], position: int, count: int) -> None:
    """A mixer that was told the counts goes on as one that walked from zero."""
    walked = IidMixer(mix, 5)
    saved = walked.counts(position)
    resumed = IidMixer(mix, 5)
    resumed.resume(position, saved)
    for found, expected in zip(
        resumed.assign(position, count), walked.assign(position, count), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        resumed.counts(position + 150_000), walked.counts(position + 150_000)
    )


def test_iid_seeds_differ() -> None:
    """Another seed is another stream."""
    streams = [IidMixer([0.5, 0.5], seed).assign(0, 200)[0].tolist() for seed in range(3)]
    assert len({tuple(stream) for stream in streams}) == 3
