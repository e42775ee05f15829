"""Random numbers that are a function of a place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from refit_shard.loaders import philox
from refit_shard.loaders.philox import generator, permutation, uniforms


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 30), st.integers(0, 30))
def test_windows_agree(seed: int, first: int, skip: int, count: int) -> None:
    """The numbers of a place do not depend on which window holds it."""
    whole = uniforms(seed, "augment", first, skip + count, 8)
    np.testing.assert_array_equal(uniforms(seed, "augment", first + skip, count, 8), whole[skip:])


def test_places_do_not_overlap() -> None:
    """No number comes twice among places, seeds and purposes."""
    parts = [uniforms(s, p, 0, 1000, 8).ravel() for s in (0, 1, 10) for p in ("mix", "augment")]
    values = np.concatenate(parts)
    assert len(np.unique(values)) == len(values)


def test_numbers_are_uniform_and_independent() -> None:
    """Kolmogorov-Smirnov for each word of a place, and no correlation of any two."""
    values = uniforms(0, "augment", 0, 100_000, 8)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    for column in values.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    neighbours = np.corrcoef(np.column_stack([values[:-1], values[1:]]).T)
    assert np.abs(neighbours - np.eye(16)).max() < 4.5 / np.sqrt(100_000)


def test_literal_numbers() -> None:
    """Seed 0 means these numbers, for good."""
    assert generator(0, "mix").random_raw(3).tolist() == [
        15256706889904070547,
        5886183980810998044,
        13993817465170904702,
    ]
    np.testing.assert_array_equal(
        uniforms(0, "mix", 1, 1, 4),
        [[0.10721476406139396, 0.6803209136397604, 0.48651777350024494, 0.8202651738708328]],
    )
    assert permutation(0, "a", 10).tolist() == [5, 2, 7, 3, 6, 0, 9, 4, 1, 8]


def test_of_equal_words_the_first_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).integers(0, 50, 2000).astype(np.uint64)

    class Fixed:
        def random_raw(self, count: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
            return words[:count]

    monkeypatch.setattr(philox, "generator", lambda *_: Fixed())
    expected = sorted(range(2000), key=lambda place: (int(words[place]), place))
    assert permutation(0, "a", 2000).tolist() == expected
