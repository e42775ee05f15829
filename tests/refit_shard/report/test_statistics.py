"""The statistics of a report against plain numpy, scipy and loops over single rows."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from refit_shard.report.statistics import SMPL_JOINTS, Counter, Histogram, Statistics
from refit_shard.shards_spec.own import TABLES
from tests.refit_shard.report.indexes import made, table
from tests.searches import examples

ROWS = 400


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    return made(ROWS, 3)


@pytest.fixture(scope="module")
def found(columns: dict[str, Any]) -> Statistics:
    counter = Counter()
    counter.add(table(columns))
    return counter.result()


def binned(values: NDArray[Any], edges: NDArray[Any]) -> list[int]:
    """Values in bins one by one; those beyond the edges in the first or the last."""
    counts = [0] * (len(edges) - 1)
    for value in values.tolist():
        at = sum(edge <= value for edge in edges.tolist()) - 1
        counts[min(max(at, 0), len(counts) - 1)] += 1
    return counts


def test_rows_frames_bytes_and_what_is_known(found: Statistics, columns: dict[str, Any]) -> None:
    assert (found.rows, found.frames) == (ROWS, ROWS // 2)
    assert found.jpeg_bytes == sum(columns["jpg_length"].tolist())
    assert found.smpl == sum(columns["has_smpl"].tolist())
    assert found.pose_3d == sum(columns["has_pose_3d"].tolist())
    assert found.camera == sum(columns["has_camcalib"].tolist())
    codes = columns["gender"].tolist()
    assert found.gender == (codes.count(0), codes.count(1), codes.count(-1))


def test_boxes(found: Statistics, columns: dict[str, Any]) -> None:
    """SPIN's scale is the box's side in pixels divided by 200."""
    sides = columns["scale"] * 200
    assert found.box.counts.tolist() == binned(sides, found.box.edges)
    assert found.box_range == (sides.min(), sides.max())
    low, median, high = found.box_sides([0.1, 0.5, 0.9])
    for value, share in ((low, 0.1), (median, 0.5), (high, 0.9)):
        assert value == pytest.approx(np.quantile(sides, share), rel=2**0.25 - 1)
    assert found.box_sides([0, 1]).tolist() == [sides.min(), sides.max()]


def test_joints_by_name_and_by_place(found: Statistics, columns: dict[str, Any]) -> None:
    points = columns["keypoints"].astype(np.float32)
    assert found.visible.tolist() == [
        sum(point[joint, 2] > 0 for point in points) for joint in range(49)
    ]
    inside = outside = 0
    places = np.zeros((60, 60), int)
    for x, y, seen in points.reshape(-1, 3).astype(float).tolist():
        if seen > 0:
            # The middle of the first pixel is at 0, so the frame begins half a pixel before it.
            right, down = (x + 0.5) / 640, (y + 0.5) / 480
            at = 0 <= right < 1 and 0 <= down < 1
            inside, outside = inside + at, outside + (not at)
            if -0.1 <= right < 1.1 and -0.1 <= down < 1.1:
                places[math.floor(down * 50 + 5), math.floor(right * 50 + 5)] += 1
    assert (found.joints, found.outside) == (inside + outside, outside)
    assert found.places.sum() == places.sum()
    assert np.abs(found.places - places).sum() <= 4  # on an edge, to a rounding


def test_poses_and_shapes_of_rows_that_have_them(
    found: Statistics, columns: dict[str, Any]
) -> None:
    poses = columns["pose"][columns["has_smpl"]].astype(np.float32)
    for joint in range(24):
        degrees = np.rad2deg(Rotation.from_rotvec(poses[:, 3 * joint : 3 * joint + 3]).magnitude())
        assert found.angles.counts[joint].tolist() == binned(degrees, found.angles.edges)
    betas = columns["betas"][columns["has_smpl"]].astype(np.float32).astype(float)
    for number in range(10):
        assert found.shape.counts[number].tolist() == binned(betas[:, number], found.shape.edges)


def test_fields_of_view(found: Statistics, columns: dict[str, Any]) -> None:
    for histogram, known in ((found.view, True), (found.view_guessed, False)):
        focal = columns["img_focal"].astype(np.float32)[columns["has_camcalib"] == known]
        degrees = np.array([math.degrees(2 * math.atan(320 / one)) for one in focal.tolist()])
        assert histogram.counts.tolist() == binned(degrees, histogram.edges)


@settings(max_examples=examples(12))
@given(st.lists(st.integers(0, ROWS), max_size=4))
def test_any_way_to_cut_the_rows_gives_the_same(columns: dict[str, Any], cuts: list[int]) -> None:
    batch = table(columns)
    whole, parts = Counter(), Counter()
    whole.add(batch)
    ends = sorted({0, ROWS, *(cut // 2 * 2 for cut in cuts)})  # rows of a frame are in one shard
    for begin, end in pairwise(ends):
        parts.add(batch.slice(begin, end - begin))
    one, other = whole.result(), parts.result()
    for name in Statistics.__dataclass_fields__:
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, Histogram):
            mine, theirs = mine.counts, theirs.counts
        assert np.array_equal(mine, theirs), name


def test_numbers_that_are_none_are_passed_over() -> None:
    """NaN, infinities and absurd values of any label count nowhere, or in the last bin."""
    columns = made(6, 1)
    columns["has_smpl"] = np.ones(6, bool)
    columns["scale"][:3] = np.nan, np.inf, 1e300
    columns["pose"][0] = np.nan
    columns["betas"][1] = np.inf
    columns["img_focal"][:2] = 0, np.nan
    columns["keypoints"][0, :, :2] = np.nan
    columns["keypoints"][1, :, :2] = 1e38
    columns["keypoints"][:2, :, 2] = 1
    columns["orig_shape"][2] = 0
    counter = Counter()
    counter.add(table(columns))
    found = counter.result()
    assert (found.box.total, found.box.unusable) == (4, 2)
    assert (found.angles.total, found.angles.unusable) == (5 * 24, 24)
    assert (found.shape.total, found.shape.unusable) == (5 * 10, 10)
    assert found.view.total + found.view_guessed.total == 5
    assert found.outside >= 2 * 49


def test_without_rows_there_is_nothing_and_no_error() -> None:
    counter = Counter()
    counter.add(table(made(0, 0)))
    found = counter.result()
    assert found.rows == found.joints == found.box.total == 0
    assert np.isnan(found.box_range).all()
    assert np.isnan(found.angles.quantiles([0.5])).all()


@settings(max_examples=examples(50))
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.floats(0, 1))
def test_quantiles_are_right_to_within_a_bin(counts: list[int], share: float) -> None:
    edges = np.arange(len(counts) + 1.0)
    values = np.repeat(np.arange(len(counts)) + 0.5, counts)
    found = float(Histogram(edges=edges, counts=np.array(counts)).quantiles([share])[0])
    if not len(values):
        assert math.isnan(found)
        return
    # The value itself, not a mean of two that lie apart.
    lower = np.quantile(values, share, method="inverted_cdf")
    assert abs(found - lower) <= 0.5 + 1e-6


def test_names_of_smpl_s_joints_mirror_as_its_table_does() -> None:
    sides = {"left": "right", "right": "left"}
    for place, name in enumerate(SMPL_JOINTS):
        side, _, rest = name.partition("_")
        other = f"{sides[side]}_{rest}" if side in sides else name
        assert SMPL_JOINTS.index(other) == TABLES["smpl"].flip[place]
