"""Training and validation rows of one dataset: whole sequences, for ever on the same side."""

import math
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard import EvaluationLoader, StreamingLoader, StreamOptions
from refit_shard.loaders.stream.split import Split
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.streams import all_items, all_names, stream
from tests.searches import examples
from tests.small import index_rows, own

SETS = ("bedlam", "coco")
EVERY = {"bedlam": 0.5, "coco": 0.5}


def kept(split: Split, names: list[str], dataset: str = "own", shard: int = 3) -> NDArray[np.bool_]:
    """Which of the names are on a side, as shards of a few rows hold them."""
    parts = [names[begin : begin + shard] for begin in range(0, len(names), shard)]
    return split.keep(dataset, [pa.array(part).dictionary_encode() for part in parts]).rows


@pytest.mark.parametrize(
    ("dataset", "seed", "name", "trained"),
    [
        ("bedlam", 0, "scene/png/seq_{0:06d}/seq_{0:06d}_0005.png", [1, 2, *range(4, 12)]),
        ("bedlam", 1, "scene/png/seq_{0:06d}/seq_{0:06d}_0005.png", [2, 3, 5, 7, 8, 11]),
        ("agora", 0, "scene/png/seq_{0:06d}/seq_{0:06d}_0005.png", [0, 1, 2, 3, 5, 6, 7, 9]),
        ("mpii", 0, "images/{0:09d}.jpg", [0, 1, 3, 5, 6, 7, 9, 10, 11]),
    ],
)
def test_these_sequences_are_in_train_for_ever(
    dataset: str, seed: int, name: str, trained: list[int]
) -> None:
    """Literally, so that no version moves a sequence to the other side unseen."""
    names = [name.format(number) for number in range(12)]
    assert np.flatnonzero(kept(Split("train", 0.7, seed), names, dataset)).tolist() == trained


@pytest.mark.parametrize(
    ("names", "sequences", "by"),
    [
        (["a/1.jpg", "a/2.jpg", "b/1.jpg"], [0, 0, 1], "folder"),
        (["a/x/1.jpg", "a/x/2.jpg", "a/y/1.jpg"], [0, 0, 1], "folder"),
        (["1.jpg", "a/1.jpg"], [0, 1], "folder"),
        (
            ["images/S1_Eating.54138969_000001.jpg", "images/S1_Eating.54138969_000006.jpg",
             "images/S1_Eating.55011271_000001.jpg"],
            [0, 0, 1],
            "name without its number",
        ),
        (["train2014/COCO_train2014_000000000009.jpg", "train2014/COCO_train2014_000000000025.jpg",
          "train2014/COCO_train2014_000000000009.jpg"], [0, 1, 0], "frame"),
        (["images/000000001.jpg", "images/000000002.jpg"], [0, 1], "frame"),
        (["only.jpg", "only.jpg"], [0, 0], "frame"),
    ],
)  # fmt: skip
def test_what_is_a_sequence(names: list[str], sequences: list[int], by: str) -> None:
    """Rows of one are together whatever the share and the seed; two are told apart by some."""
    together = np.equal.outer(sequences, sequences)
    apart = np.zeros_like(together)
    for seed in range(40):
        split = Split("train", 0.5, seed)
        found = kept(split, names, shard=2)
        assert split.keep("own", [pa.array(names).dictionary_encode()]).by == by
        same = np.equal.outer(found, found)
        assert same[together].all()
        apart |= ~same
    assert apart[~together].all()


NAMES = st.lists(
    st.builds("{}/{}_{:03d}.jpg".format, st.sampled_from("abcdé/"), st.sampled_from("xy"),
              st.integers(0, 30)),
    min_size=1, max_size=60,
)  # fmt: skip
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)


@settings(max_examples=examples(100))
@given(NAMES, SHARES, SHARES, st.integers(0, 2**63 - 1), st.integers(1, 70))
def test_disjoint_complete_and_nested(
    names: list[str], share: float, other: float, seed: int, shard: int
) -> None:
    """Each row is on one side; with a larger share train only gains rows; shards decide nothing."""
    train = kept(Split("train", share, seed), names, shard=shard)
    assert (train != kept(Split("val", share, seed), names)).all()
    low, high = (kept(Split("train", one, seed), names) for one in sorted((share, other)))
    assert (low <= high).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_that_of_the_sequences(share: float) -> None:
    """Within four standard deviations of independent draws."""
    names = [f"{number}/1.jpg" for number in range(20_000)]
    found = int(kept(Split("train", share), names, shard=5000).sum())
    assert abs(found - share * 20_000) < 4 * math.sqrt(20_000 * share * (1 - share))


def rows_of(shards: Path, **options: Any) -> set[tuple[str, int]]:
    """All rows that a stream of two datasets has."""
    loader = stream(shards, EVERY, epoch_samples=96, **options)
    return set(all_names(loader)) | set(all_names(loader))


def test_together_the_two_sides_are_every_row(shards: Path) -> None:
    """With no row, frame or sequence on both; whatever the loaders' seeds and threads."""
    train = rows_of(shards, split=("train", 0.6, 2), seed=4)
    val = rows_of(shards, split=("val", 0.6, 2), seed=9, num_workers=5)
    every: dict[tuple[str, int], str] = {
        (name, row["source_row"]): row["imgname"]
        for name in SETS
        for row in index_rows(shards / name)
    }
    assert train | val == every.keys()
    assert not train & val
    for name, folders in (("bedlam", True), ("coco", False)):
        sides = [
            {Path(every[one]).parent if folders else every[one] for one in side if one[0] == name}
            for side in (train, val)
        ]
        assert all(sides)
        assert not sides[0] & sides[1]


def test_a_split_is_a_part_of_the_stream(shards: Path) -> None:
    """The same for any number of threads and after a resume; another side is refused."""
    split = ("train", 0.6, 2)
    loader = stream(shards, EVERY, split=split, epoch_samples=60)
    iterator = iter(loader)
    first = next(iterator)
    state = loader.state_dict()
    rest = all_items(iterator)
    again = stream(shards, EVERY, split=list(split), epoch_samples=60, num_workers=5)
    assert all_items(again) == all_items([first]) + rest
    again.load_state_dict(state)
    assert all_items(again) == rest
    for other in (None, ("val", 0.6, 2), ("train", 0.6, 3)):
        changed = stream(shards, EVERY, split=other, epoch_samples=60)
        with pytest.raises(UsageError, match=r"bedlam\.(rows|filter) is "):
            changed.load_state_dict(state)


def test_with_a_filter_and_under_another_name(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that both keep; what the loader calls a dataset does not matter."""
    split = ("train", 0.6, 2)
    few = {"bedlam": pc.field("source_row") < 20}
    both = rows_of(shards, split=split, where=few)
    train = rows_of(shards, split=split)
    assert both == {one for one in train if one[0] == "coco" or one[1] < 20}
    renamed = {"mine": (str(shards / "bedlam"), 1.0)}
    options = StreamOptions(batch_size=5, res=16, num_workers=0, rank=0, world_size=1, split=split)
    with caplog.at_level("INFO"):
        loader = StreamingLoader(renamed, options)
    rows = {row for name, row in train if name == "bedlam"}
    assert {row for _, row in all_names([*loader, *loader])} <= rows
    (line,) = [one.getMessage() for one in caplog.records if "split" in one.getMessage()]
    said = "mine: split ('train', 0.6, 2) keeps 2 of 4 sequences (by folder), "
    assert line == f"{said}{len(rows)} of 40 rows"


def test_an_evaluation_of_the_other_side(shards: Path) -> None:
    """Each row once, in the npz's order."""
    options = StreamOptions(res=16, num_workers=0, rank=0, world_size=1, split=("val", 0.6, 2))
    loader = EvaluationLoader("bedlam", str(shards / "bedlam"), options)
    rows = [row for _, row in all_names(loader)]
    assert rows == sorted(
        row for name, row in rows_of(shards, split=("val", 0.6, 2)) if name == "bedlam"
    )
    assert len(loader.dataset) == len(rows)


@pytest.mark.parametrize("count", [2, 3, 11])
@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_each_side_has_a_sequence_where_there_are_two(count: int, share: float) -> None:
    """Of a small set, too; the one whose number is nearest to the other side."""
    names = [f"{number}/1.jpg" for number in range(count)]
    numbers = [sha256(f"split/0/own/{number}/".encode()).hexdigest() for number in range(count)]
    alone = numbers.index(max(numbers) if share > 0.5 else min(numbers))
    for side, rest in (("train", share > 0.5), ("val", share < 0.5)):
        found = kept(Split(side, share), names)
        assert found[alone] != rest
        assert (np.delete(found, alone) == rest).all()


def test_a_side_without_rows_is_said(tmp_path: Path) -> None:
    """One frame has nothing for the other side; with the ways out."""
    tree = own(tmp_path, rows=2)
    assert tree.build().code == 0
    source = {"own": (str(tree.out), 1.0)}
    some = {"own": pc.field("source_row") >= 0}
    for filters, also in ((None, ""), (some, " and where")):
        options: dict[str, Any] = {"where": filters, "batch_size": 1, "rank": 0, "world_size": 1}
        said = rf"own: .* holds no rows under split \('val', 0\.999, 0\){also}; another share, or"
        with pytest.raises(UsageError, match=said):
            StreamingLoader(source, StreamOptions(split=("val", 0.999), **options))
        StreamingLoader(source, StreamOptions(split=("train", 0.999), **options))


@pytest.mark.parametrize(
    ("split", "named"),
    [
        ("train", "split: must be .* got 'train'"),
        (("train",), r"split: must be \('train', share\)"),
        (("train", 0.9, 0, 0), "split: must be"),
        (0.9, "split: must be .* got 0.9"),
        ({"train": 0.9}, "split: must be"),
        (("test", 0.9), "split: must begin with 'train' or 'val', got 'test'"),
        ((["train"], 0.9), "split: must begin with"),
        (("train", 0.0), "share must be a number between 0 and 1, .* got 0"),
        (("val", 1), "share must be .* got 1"),
        (("val", 90), "share must be .* got 90"),
        (("val", math.nan), "share must be .* got nan"),
        (("val", "0.9"), "share must be .* got '0.9'"),
        (("val", True), "share must be .* got True"),
        (("train", 0.9, -1), "split: the seed: must be a whole number .* got -1"),
        (("train", 0.9, None), "split: the seed: .* got None"),
        (("train", 0.9, 1.5), "split: the seed: .* got 1.5"),
    ],
)
def test_wrong_splits(split: Any, named: str) -> None:
    """By name, with what was expected and what came."""
    with pytest.raises(UsageError, match=named):
        StreamOptions(split=split)
