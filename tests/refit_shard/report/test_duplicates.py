"""Frames and crops that are there twice, against sets and counts of plain Python."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.report.duplicates import EXAMPLES, Place, Seen, Twice, find_twice
from tests.refit_shard.report.indexes import made, table
from tests.searches import examples

# A shard: rows of (number of the frame, of the crop).
SHARD = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6)


def seen(shards: list[list[tuple[int, int]]]) -> Seen:
    found = Seen()
    for number, rows in enumerate(shards):
        columns: dict[str, Any] = made(len(rows), 0)
        columns["imgname"] = [f"frame {frame}" for frame, _ in rows]
        columns["jpg_crc32c"] = np.array([crop for _, crop in rows], np.uint32)
        columns["jpg_length"] = np.full(len(rows), 1000)
        found.add(table(columns), number, np.arange(len(rows)) * 3)
    return found


def crops(shards: list[list[tuple[int, int]]]) -> Counter[int]:
    return Counter(crop for rows in shards for _, crop in rows)


def frames(shards: list[list[tuple[int, int]]]) -> set[int]:
    return {frame for rows in shards for frame, _ in rows}


@settings(max_examples=examples(40))
@given(st.lists(st.lists(SHARD, max_size=3), min_size=1, max_size=3))
def test_what_is_there_twice(sets: list[list[list[tuple[int, int]]]]) -> None:
    found = {(one.kind, one.first, one.second): one for one in find_twice(list(map(seen, sets)))}
    wanted: dict[tuple[str, int, int], int] = {}
    for first, shards in enumerate(sets):
        wanted["crop", first, first] = sum(count - 1 for count in crops(shards).values())
        for second in range(first + 1, len(sets)):
            other = sets[second]
            wanted["frame", first, second] = len(frames(shards) & frames(other))
            wanted["crop", first, second] = len(crops(shards).keys() & crops(other).keys())
    assert {key: one.count for key, one in found.items()} == {
        key: count for key, count in wanted.items() if count
    }
    for (kind, first, second), one in found.items():
        assert len(one.examples) == min(EXAMPLES, one.count)
        at = 0 if kind == "frame" else 1
        for mine, theirs in one.examples:
            assert mine != theirs or first != second
            a = sets[first][mine.shard][mine.row // 3][at]
            assert a == sets[second][theirs.shard][theirs.row // 3][at]


def test_a_crop_of_another_length_is_another() -> None:
    columns: dict[str, Any] = made(2, 0)
    columns["jpg_crc32c"] = np.array([7, 7])
    columns["jpg_length"] = np.array([100, 101])
    one = Seen()
    one.add(table(columns), 0, np.arange(2))
    assert find_twice([one]) == []
    columns["jpg_length"] = np.array([100, 100])
    one = Seen()
    one.add(table(columns), 0, np.arange(2))
    pair = ((Place(0, 0), Place(0, 1)),)
    assert find_twice([one]) == [Twice(first=0, second=0, kind="crop", count=1, examples=pair)]
