"""Properties of the plan and of the stored crop's geometry, for any input."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.build.driver import prepare
from refit_shard.converter.build.plan import BuildOptions, frame_groups, frame_order, plan_order
from refit_shard.converter.build.request import BuildRequest
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import FULL_ENVELOPE, box_meets_image, plan_crop
from tests.converter.reference import window_of
from tests.searches import examples
from tests.small import error_line, own, refit

_WHOLE = ("box_px", "quality", "samples_per_shard", "limit", "seed")
SIZES = st.integers(1, 3000)
PLACES = st.floats(-4000, 7000)
SCALES = st.floats(0.02, 40.0)


@settings(max_examples=examples(400))
@given(PLACES, PLACES, SCALES, SIZES, SIZES, st.integers(16, 1024))
def test_window_and_size_are_the_formulas(
    cx: float, cy: float, scale: float, width: int, height: int, box_px: int
) -> None:
    side = 200.0 * scale
    assume(box_meets_image(cx, cy, side, height, width))
    crop = plan_crop(cx, cy, side, height, width, FULL_ENVELOPE, box_px)
    wanted = window_of((cx, cy), scale, (width, height), box_px)
    x0, y0, x1, y1 = crop.window
    assert crop.window == wanted.box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert 1 <= crop.width <= x1 - x0
    assert 1 <= crop.height <= y1 - y0
    assert abs(crop.width - wanted.width) <= 0.5 or (crop.width == 1 and wanted.width < 0.5)
    assert abs(crop.height - wanted.height) <= 0.5 or (crop.height == 1 and wanted.height < 0.5)
    assert (crop.kx, crop.ky) == (crop.width / (x1 - x0), crop.height / (y1 - y0))


@settings(max_examples=examples(300))
@given(PLACES, PLACES, SCALES, SIZES, SIZES)
def test_a_box_meets_the_image_where_their_areas_overlap(
    cx: float, cy: float, scale: float, width: int, height: int
) -> None:
    half = 100.0 * scale
    overlap_x = min(cx + half, width - 0.5) - max(cx - half, -0.5)
    overlap_y = min(cy + half, height - 0.5) - max(cy - half, -0.5)
    meets = overlap_x > 0 and overlap_y > 0
    assert box_meets_image(cx, cy, 200.0 * scale, height, width) == meets


@given(
    frames=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    unusable=st.sets(st.integers(0, 59)),
    per_shard=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_usable_row_is_planned_once_and_frames_stay_together(
    frames: list[int], unusable: set[int], per_shard: int, seed: int
) -> None:
    frame_of_row = np.array(frames, np.int64)
    usable = np.array([row not in unusable for row in range(len(frames))])
    order, starts = plan_order(frame_of_row, usable, per_shard, seed)
    assert sorted(order.tolist()) == np.flatnonzero(usable).tolist()
    assert (starts[0], starts[-1]) == (0, usable.sum())
    people = np.bincount(frame_of_row[usable], minlength=1).max() if usable.any() else 0
    where: dict[int, set[int]] = {}
    for shard, rows in enumerate(np.split(order, starts[1:-1])[: len(starts) - 1]):
        assert 0 < len(rows) <= per_shard + people
        groups = frame_groups(frame_of_row[rows])
        assert len(groups) == len(set(frame_of_row[rows].tolist()))
        for row in rows.tolist():
            where.setdefault(frames[row], set()).add(shard)
        for first, last in groups:
            assert rows[first:last].tolist() == sorted(rows[first:last].tolist())
    assert all(len(shards) == 1 for shards in where.values())
    again = plan_order(frame_of_row, usable, per_shard, seed)
    assert np.array_equal(order, again[0])


def test_the_permutation_is_the_same_for_ever() -> None:
    assert frame_order(12, 0).tolist() == [0, 2, 11, 9, 1, 8, 5, 4, 3, 10, 6, 7]
    assert frame_order(12, 1).tolist() == [3, 5, 2, 9, 7, 10, 0, 8, 6, 11, 1, 4]
    assert sorted(frame_order(100, 7).tolist()) == list(range(100))


def test_shards_mix_the_frames_of_the_whole_data_set() -> None:
    frames = np.repeat(np.arange(400), 3)
    order, starts = plan_order(frames, np.ones(1200, bool), 300, 0)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        chosen = frames[order[begin:end]]
        assert abs(chosen.mean() - 199.5) < 40
        assert chosen.min() < 40
        assert chosen.max() > 360


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--box-px", 8, "--box-px: must be a whole number from 16 to 4096, got 8"),
        ("--quality", 0, "--quality: must be a whole number from 1 to 100, got 0"),
        ("--quality", 101, "--quality: must be a whole number from 1 to 100, got 101"),
        ("--samples-per-shard", 0, "--samples-per-shard: must be a whole number from 1 to"),
        ("--limit", 0, "--limit: must be a whole number from 1 to"),
        ("--limit", -3, "--limit: must be a whole number from 1 to"),
        ("--seed", -1, "--seed: must be a whole number from 0 to"),
        ("--max-bad", "nan", "--max-bad: must be a number from 0 to 1, got nan"),
        ("--max-bad", 1.5, "--max-bad: must be a number from 0 to 1, got 1.5"),
        ("--workers", -1, "--workers: must be a whole number from 0 to 4096, got -1"),
        ("--remap", "nothing", "--remap 'nothing': must be OLD=NEW"),
        ("--remap", "=new", "--remap '=new': must be OLD=NEW"),
        ("--shard-timeout", 5, "cannot be combined with --shard-timeout"),
        ("--address", "auto", "builds in this process and cannot be combined with --address"),
    ],
)
def test_options_out_of_their_bounds_are_refused_before_anything_is_written(
    tmp_path: Any, option: str, value: object, said: str
) -> None:
    tree = own(tmp_path)
    result = refit(*tree.command(f"{option}={value}"))
    assert result.code == 2
    assert said in error_line(result)
    assert not tree.out.exists()


def test_numpys_numbers_and_paths_of_any_kind_plan_the_same(tmp_path: Path) -> None:
    """Held as Python's own, so that the identity can be written and hashed."""
    tree = own(tmp_path)
    dataset = Dataset(name="own", root_variable="--root")
    plain = BuildOptions(box_px=64, quality=80, samples_per_shard=2, limit=5, seed=3)
    given: dict[str, Any] = {name: getattr(plain, name) for name in _WHOLE}
    numpys: dict[str, Any] = {name: np.int64(value) for name, value in given.items()}
    options = BuildOptions(**numpys)
    assert options == plain
    assert {type(getattr(options, name)) for name in _WHOLE} == {int}
    texts: dict[str, Any] = {"npz": str(tree.npz), "root": str(tree.root), "out": str(tree.out)}
    wanted = BuildRequest(dataset=dataset, **texts, options=plain, workers=0, max_bad=0.5)
    for kind in (Path, os.fsencode, lambda text: f"file://{text}"):
        paths: dict[str, Any] = {name: kind(text) for name, text in texts.items()}
        request = BuildRequest(
            dataset=dataset,
            **paths,
            options=options,
            workers=np.int64(0),  # type: ignore[arg-type]
            max_bad=np.float32(0.5),  # type: ignore[arg-type]
        )
        assert request == wanted
        assert prepare(request).recipe == prepare(wanted).recipe


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"box_px": 64.5}, "--box-px: must be a whole number from 16 to 4096, got 64.5"),
        ({"seed": None}, "--seed: must be a whole number"),
        ({"quality": True}, "--quality: must be a whole number"),
    ],
)
def test_options_that_are_no_whole_numbers(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        BuildOptions(**changed)
