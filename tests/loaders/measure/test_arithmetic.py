"""What is computed from measurements, with figures that can be counted by hand."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refit_shard.loaders.measure.bench import thread_counts, threads_for
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread
from refit_shard.loaders.measure.stream import waiting_share

RATES = {1: 2000.0, 2: 4000.0, 4: 6000.0}


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (4, [1, 2, 4]),
        (6, [1, 2, 4, 6]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_thread_counts_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.parametrize(
    ("wanted", "threads", "measured"),
    [
        (1, 1, True),
        (2000, 1, True),
        (2001, 2, True),
        (4000, 2, True),
        (4500, 3, True),
        (5001, 4, True),
        (6000, 4, True),
        (6001, 5, False),  # each thread gives 1500 there
        (12000, 8, False),
    ],
)
def test_threads_that_a_rate_needs(wanted: float, threads: int, measured: bool) -> None:
    assert threads_for(RATES, wanted) == (threads, measured)


def test_more_threads_that_are_slower_are_passed_over() -> None:
    assert threads_for({1: 1000.0, 2: 900.0, 4: 1100.0}, 1050) == (4, True)


@given(
    st.lists(st.floats(1, 1e6), min_size=1, max_size=6),
    st.floats(0.1, 1e7),
)
def test_the_threads_are_never_fewer_than_a_measurement_says(
    rates: list[float], wanted: float
) -> None:
    by_threads = {1 << power: rate for power, rate in enumerate(rates)}
    threads, measured = threads_for(by_threads, wanted)
    assert measured == (max(rates) >= wanted)
    enough = [count for count, rate in by_threads.items() if rate >= wanted]
    assert threads >= 1
    if measured:
        assert min(enough) // 2 <= threads <= min(enough)
    else:
        assert threads == math.ceil(wanted * max(by_threads) / rates[-1])


@pytest.mark.parametrize(
    ("drawn", "share"),
    [
        ([], 1.0),
        ([(10.0, 20.0), (10.0, 20.0)], 0.0),
        ([(10.0, 20.0)], 0.5),
        ([(0.0, 11.0), (19.0, 99.0)], 0.9),  # begun before, ended after
        ([(0.0, 9.0), (21.0, 22.0)], 1.0),
    ],
)
def test_the_share_of_waiting_is_what_no_thread_drew(
    drawn: list[tuple[float, float]], share: float
) -> None:
    assert waiting_share(drawn, 10.0, 20.0, threads=2) == pytest.approx(share)


def test_cases_take_turns() -> None:
    done: list[str] = []

    def case(name: str) -> int:
        done.append(name)
        return len(done)

    cases = {name: partial(case, name) for name in "ab"}
    measured = interleaved(cases, 2)
    assert "".join(done) == "ab" + "ab" + "ba"
    assert measured == {"a": [3, 6], "b": [4, 5]}


def test_spreads() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert ratios([2.0, 9.0], [1.0, 3.0]) == Spread(2.5, 2.0, 3.0)
