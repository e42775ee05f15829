"""Crops to a half of the body: pixels, points and labels of the new box, and when it is refused."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    RenderOptions,
    StreamingLoader,
    StreamOptions,
    render,
)
from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.build.driver import build, prepare
from refit_shard.converter.build.request import BuildRequest
from refit_shard.loaders.items.body import shown_boxes
from refit_shard.loaders.items.draws import explicit
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import (
    CROPPED_ENVELOPE,
    FULL_ENVELOPE,
    Envelope,
    beyond_window,
    output_to_source,
    plan_crop,
)
from tests.loaders.photographs import OwnSet, Row, build_own, labels
from tests.loaders.test_markers import OPENPOSE, RADIUS, SPIN, draw_discs, find_disc
from tests.searches import examples
from tests.small import own

Floats = NDArray[np.float64]

NAMES = [*OPENPOSE, *SPIN]
# Of a standing body, in units of its height from the middle: heights of what the names speak of.
HEIGHTS = {
    **{"Top": -0.5, "Head": -0.45, "Eye": -0.45, "Ear": -0.44, "Nose": -0.43, "Jaw": -0.4},
    **{"Neck": -0.35, "Thorax": -0.33, "Shoulder": -0.32, "Elbow": -0.15, "Spine": -0.15},
    **{"Pelvis": -0.01, "Hip": 0.0, "Wrist": 0.02, "Knee": 0.22, "Ankle": 0.43, "Toe": 0.46},
    "Heel": 0.45,
}
LEGS = ("Knee", "Ankle", "Toe", "Heel")
LOWER = (*LEGS, "Hip", "Pelvis")
PLAIN = RenderOptions(image="uint8")


def standing(middle: tuple[float, float], height: float) -> Floats:
    """The 49 joints of a body (49, 2), right limbs on the left of the picture."""
    made = []
    for number, name in enumerate(NAMES):
        up = next(high for word, high in HEIGHTS.items() if word in name)
        side = {"R": -0.08, "L": 0.08}.get(name[0], 0.0) * (1 + number % 3)
        made.append((middle[0] + side * height, middle[1] + up * height))
    return np.array(made, np.float32).astype(np.float64)


def of_half(body: str) -> NDArray[np.bool_]:
    """Which of the 49 joints a half shows."""
    words = LOWER if body == "lower" else LEGS
    found = np.array([any(word in name for word in words) for name in NAMES])
    return found if body == "lower" else ~found


def expected_box(row: Row, body: str) -> tuple[Floats, float]:
    """Centre and scale of a half's box, of a row all of whose joints are visible."""
    points = np.concatenate([row["openpose"], row["part"]])[of_half(body), :2]
    side = min(max(1.2 * np.ptp(points, axis=0).max(), 100 * row["scale"]), 200 * row["scale"])
    room = 100 * row["scale"] - side / 2
    middle = (points.min(0) + points.max(0)) / 2
    return np.clip(middle, row["center"] - room, row["center"] + room), side / 200


def person(rng: np.random.Generator, points: Floats, center: Any, side: float) -> Row:
    """A row with all of these joints visible."""
    row = labels(rng, center, side)
    for name, some in (("openpose", points[:25]), ("part", points[25:])):
        row[name] = np.column_stack([some, np.ones(len(some))])
    return row


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> OwnSet:
    """Discs at the joints of one who stands, one whose legs leave the frame, and one of whom the
    head alone is visible; and of the first with little around it.
    """
    rng = np.random.default_rng(4)
    tall, low = standing((450.0, 350.0), 560.0), standing((300.0, 640.0), 500.0)
    rows = [
        person(rng, tall, (450.0, 350.0), 640.0),
        person(rng, low, (300.0, 600.0), 560.0),
        person(rng, tall, (450.0, 350.0), 640.0),
        person(rng, tall, (450.0, 350.0), 300.0),
    ]
    head = np.array([any(w in n for w in ("Eye", "Ear", "Nose", "Head", "Top")) for n in NAMES])
    rows[2]["openpose"][:, 2], rows[2]["part"][:, 2] = head[:25], head[25:]
    places = [{**row, "frame": int(number == 1)} for number, row in enumerate(rows)]
    frames = [draw_discs(700, 900, points) for points in (tall, low)]
    folder = tmp_path_factory.mktemp("people")
    return build_own(folder, frames, places, "--quality", 100, "--box-px", 512)


@pytest.mark.parametrize("body", ["upper", "lower"])
def test_a_half_is_shown_and_its_joints_are_where_they_say(people: OwnSet, body: Any) -> None:
    """Turned, scaled and mirrored too; the other half's joints lie beyond the edge."""
    half = of_half(body)
    for flip, rot, sc in itertools.product((False, True), (0.0, 35.0), (0.8, 1.0, 1.25)):
        one = Augmentation(body=body, flip=flip, rot=rot, sc=sc)
        item = render(people.samples[0], one, PLAIN)
        points = (item["keypoints"].numpy()[:, :2] + 1) * 128 - 0.5
        reach = round(RADIUS * 256 / (200 * float(item["scale"]))) + 4
        seen = 0
        for x, y in points[half]:
            if reach < min(x, y) and max(x, y) < 255 - reach:
                try:
                    place, _ = find_disc(item["img"].numpy(), x, y, reach)
                except AssertionError:
                    raise AssertionError((one, x, y)) from None
                seen += 1
                assert np.hypot(*(place - (x, y))) < RADIUS, "discs of neighbours overlap"
        assert seen > (3 if sc < 1 else 8)
        if rot == 0.0 and sc == 1.0:
            assert np.abs(points[half] - 127.5).max() < 127.5, "the half is all in view"
            feet = points[[name.endswith(("Heel", "Toe")) for name in NAMES]]
            assert (feet[:, 1] > 256).all() == (body == "upper")
        assert int(item["body_crop"]) == {"upper": 1, "lower": 2}[body]


@pytest.mark.parametrize("body", ["upper", "lower"])
def test_a_half_is_the_item_of_an_npz_with_that_box(
    people: OwnSet, tmp_path: Path, body: Any
) -> None:
    """Every label is what it would be if the half's box had been annotated; pixels nearly so."""
    row = people.rows[0]
    center, scale = expected_box(row, body)
    boxed = {**row, "center": center, "scale": scale, "frame": 0}
    twin = build_own(tmp_path, [people.frames[0]], [boxed], "--quality", 100, "--box-px", 512)
    kinds = PLAIN, RenderOptions(image="uint8", compat="refit")
    for flip, rot, sc, options in itertools.product(
        (False, True), (0.0, -40.0), (0.75, 1.25), kinds
    ):
        geometry: dict[str, Any] = {"flip": flip, "rot": rot, "sc": sc}
        found = render(people.samples[0], Augmentation(body=body, **geometry), options)
        wanted = render(twin.samples[0], Augmentation(**geometry), options)
        for name, value in wanted.items():
            if name not in ("img", "imgname", "sample_index"):
                np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-5, err_msg=name)
        off = found["img"].numpy().astype(float) - wanted["img"].numpy()
        assert np.abs(off).mean() < 3.0


def test_too_few_visible_joints_leave_the_sample_whole(people: OwnSet) -> None:
    """A head says nothing of either half; joints beyond the frame are not visible."""
    whole = render(people.samples[2], Augmentation(sc=1.1), PLAIN)
    for one in (Augmentation(sc=1.1, body="upper"), Augmentation(sc=1.1, body="lower")):
        item = render(people.samples[2], one, PLAIN)
        assert int(item["body_crop"]) == 0
        for name, value in whole.items():
            same = item[name] == value
            assert same if isinstance(same, bool) else same.all(), name
    legs = render(people.samples[1], Augmentation(body="lower"), PLAIN)
    assert int(legs["body_crop"]) == 0, "its knees lie below the frame"
    assert int(render(people.samples[1], Augmentation(body="upper"), PLAIN)["body_crop"]) == 1


def test_a_half_stays_inside_the_stored_box(people: OwnSet) -> None:
    """Also where the body is larger than its box."""
    item = render(people.samples[3], Augmentation(body="lower"), PLAIN)
    assert float(item["scale"]) == pytest.approx(expected_box(people.rows[3], "lower")[1])
    assert float(item["scale"]) <= people.rows[3]["scale"]
    render(people.samples[3], Augmentation(body="lower", sc=1.25, rot=45.0), PLAIN)


boxes = st.tuples(st.floats(0, 640), st.floats(0, 480), st.floats(20, 900))


@settings(max_examples=examples(100), deadline=None)
@given(
    boxes,
    st.integers(0, 2**32 - 1),
    st.sampled_from(["upper", "lower"]),
    st.floats(-180, 180),
    st.floats(0.75, 1.6),
    st.sampled_from([FULL_ENVELOPE, Envelope(scale=1.6), Envelope(scale=1.0), CROPPED_ENVELOPE]),
)
def test_what_holds_the_box_holds_its_half(
    box: tuple[float, float, float],
    seed: int,
    body: Any,
    rot: float,
    sc: float,
    envelope: Envelope,
) -> None:
    """Whatever the joints are: any rotation, and any scale that the crop was made for."""
    cx, cy, side = box
    rng = np.random.default_rng(seed)
    joints = rng.normal((cx, cy), side * rng.uniform(0.05, 1), (49, 2))
    keypoints = np.column_stack([joints, rng.integers(0, 2, 49)]).astype(np.float32)
    columns = {
        "center": np.array([[cx, cy]]),
        "scale": np.array([side / 200]),
        "keypoints": keypoints[None],
        "orig_shape": np.array([[480, 640]], np.int32),
    }
    found = shown_boxes(columns, explicit([Augmentation(body=body)]))
    half = 200 * found["scale"]
    assert side / 2 - 1e-6 <= half[0] <= side + 1e-6
    assert (np.abs(found["center"] - columns["center"]) <= (side - half) / 2 + 1e-6).all()
    if not found["body_crop"][0]:
        assert half[0] == pytest.approx(side)
        assert (found["center"] == columns["center"]).all()
    window = np.array(plan_crop(cx, cy, side, 480, 640, envelope, 256).window)
    degrees = np.array([rot if envelope.rotation else 0.0])
    wide = np.array([min(sc, envelope.scale)])
    (affine,) = output_to_source(found["center"], wide * half, degrees, np.zeros(1, bool), 256)
    margin = 0.0 if envelope.margin else 1.0  # a window of whole pixels about a box that is cut
    assert beyond_window(affine, window, np.array([480, 640]), 256) <= margin + 1e-6


def test_damaged_labels_lead_nowhere() -> None:
    """Numbers that no build writes give no box that could be drawn as if it were one."""
    for bad in (np.nan, np.inf, -np.inf):
        columns = {
            "center": np.array([[bad, 10.0]]),
            "scale": np.array([bad]),
            "keypoints": np.full((1, 49, 3), bad, np.float32),
            "orig_shape": np.array([[480, 640]], np.int32),
        }
        found = shown_boxes(columns, explicit([Augmentation(body="upper")]))
        assert found["body_crop"].tolist() == [0]
        assert not np.isfinite(found["scale"]).any()


def test_too_few_stored_pixels_are_refused_with_the_numbers(people: OwnSet, tmp_path: Path) -> None:
    """When the loader is made, by what the policy may draw; in render, by what it shows."""
    policy = AugmentationPolicy(upper_body=0.1)
    policy.check_pixels(256, 256, "bedlam")
    policy.check_pixels(256, 288, "bedlam")
    AugmentationPolicy().check_pixels(16, 4096, "bedlam")
    with pytest.raises(
        UsageError,
        match=r"bedlam: .* few as 96 of the 256 px .*, enlarged 5\.33 times at res=512; at most "
        r"3 times .*; build the shards with --box-px 456 or more",
    ):
        policy.check_pixels(256, 512, "bedlam")
    policy.check_pixels(456, 512, "bedlam")
    AugmentationPolicy(lower_body=0.1, scale_sigma=0).check_pixels(256, 384, "bedlam")
    small = build_own(tmp_path, people.frames[:1], people.rows[:1], "--box-px", 64)
    source = {"own": (str(small.shards), 1.0)}
    with pytest.raises(UsageError, match=r"own: .* few as 24 of the 64 px"):
        StreamingLoader(source, StreamOptions(policy=policy, batch_size=1, res=96))
    StreamingLoader(source, StreamOptions(batch_size=1, res=96))
    with pytest.raises(
        UsageError, match=r"body='upper' with sc=0\.75 shows 2\d\.\d+ px .* res=256"
    ):
        render(small.samples[0], Augmentation(body="upper", sc=0.75), PLAIN)
    render(small.samples[0], Augmentation(sc=0.75), PLAIN)
    render(small.samples[0], Augmentation(body="upper", sc=0.75), RenderOptions(res=64))


def test_images_that_are_crops_already_are_not_refused_for_their_pixels(tmp_path: Path) -> None:
    """A build can give them no more; their halves are shown, from inside the crop."""
    tree = own(tmp_path, rows=4)
    points = np.concatenate([standing((48.0, 32.0), 50.0)] * 4).reshape(4, 49, 2)
    visible = np.concatenate([points, np.ones((4, 49, 1))], 2)
    tree.save(openpose=visible[:, :25], part=visible[:, 25:], scale=np.full(4, 0.3))
    cropped = Dataset(name="own", root_variable="--root", cropped=True)
    places: dict[str, Any] = {"npz": str(tree.npz), "root": str(tree.root), "out": str(tree.out)}
    build(prepare(BuildRequest(dataset=cropped, workers=0, **places)), lambda _: None)
    policy = AugmentationPolicy(upper_body=1.0, rot_sigma=0, scale_sigma=0)
    alone: dict[str, Any] = {"rank": 0, "world_size": 1, "num_workers": 0, "batch_size": 4}
    options = StreamOptions(policy=policy, res=1024, image="uint8", **alone)
    batch = next(iter(StreamingLoader({"own": (str(tree.out), 1.0)}, options)))
    assert batch["body_crop"].tolist() == [1] * 4
    assert (batch["scale"] < 0.3).all()
