"""What an augmentation shows of a frame is in the stored crop, or it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard import Augmentation, RenderOptions, Sample, ShardSet, render
from refit_shard.shards_spec.errors import RefitShardError, UsageError
from refit_shard.shards_spec.geometry import (
    FULL_ENVELOPE,
    beyond_window,
    box_meets_image,
    output_to_source,
    plan_crop,
    plan_cropped,
)
from tests.small import Own, encoded, error_line, own, refit

RAW = RenderOptions(res=64, image="uint8")
WIDTH, HEIGHT = 640, 480


@pytest.fixture(scope="module")
def white(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """People in white frames: the middle, a corner, and one larger than the frame."""
    folder = tmp_path_factory.mktemp("held")
    tree = Own(folder, ["a/0.png", "a/1.png", "a/2.png"])
    for name in tree.names:
        tree.put(name, encoded(".png", np.full((HEIGHT, WIDTH, 3), 255, np.uint8)))
    center = np.array([[320.0, 240.0], [25.0, 460.0], [300.0, 200.0]])
    tree.save(center=center, scale=np.array([0.4, 0.4, 3.0]))
    assert tree.build("--skip-checks").code == 0
    found: Any = ShardSet.open(str(tree.out))
    return sorted(found, key=lambda sample: int(sample["source_row"]))


def black(item: dict[str, Any]) -> int:
    """Pixels that are not the frame's."""
    return int((item["img"].max(dim=-1).values < 64).sum())


def test_too_wide_an_augmentation_is_refused(white: list[Sample]) -> None:
    """It would show black where the frame goes on."""
    with pytest.raises(UsageError, match=r"sc=3 shows up to 4\d\.\d+ px .*lower it .*scale_clip\)"):
        render(white[0], Augmentation(sc=3.0), RAW)
    with pytest.raises(UsageError, match=r"sc=2 with rot=45 .*scale_clip or rot_clip"):
        render(white[0], Augmentation(sc=2.0, rot=45.0), RAW)
    for sc in (0.5, 1.0, 1.25):
        for rot in (-180.0, -45.0, 0.0, 30.0, 45.0, 90.0):
            for flip in (True, False):
                item = render(white[0], Augmentation(sc=sc, rot=rot, flip=flip), RAW)
                assert black(item) == 0


def test_black_outside_the_frame_is_not_refused(white: list[Sample]) -> None:
    """A box that leaves its frame, and one whose crop holds the whole frame."""
    assert black(render(white[1], Augmentation(sc=1.25, rot=30.0), RAW)) > 500
    assert black(render(white[2], Augmentation(sc=4.0, rot=77.0), RAW)) > 1000
    with pytest.raises(UsageError, match="of the frame outside the stored crop"):
        render(white[1], Augmentation(sc=2.5), RAW)


def shown(affine: NDArray[np.float64], res: int, steps: int = 160) -> NDArray[np.float64]:
    """Source pixels at points all over an output, from the first pixel's middle to the last's."""
    u, v = np.meshgrid(*[np.linspace(0, res - 1, steps)] * 2)
    return np.stack([u.ravel(), v.ravel()], -1) @ affine[:, :2].T + affine[:, 2]


boxes = st.tuples(
    st.floats(-100, 700), st.floats(-100, 600), st.floats(4, 2000), st.floats(-180, 180)
)


@settings(max_examples=300, deadline=None)
@given(boxes, st.floats(0.3, 3.0), st.booleans(), st.sampled_from([16, 256]))
def test_the_rule_is_what_the_points_say(
    box: tuple[float, float, float, float], sc: float, flip: bool, res: int
) -> None:
    """Of points all over the output: those in the frame lie in the window, or as far beyond it as
    is said, to within the points' distance.
    """
    cx, cy, side, rot = box
    if not box_meets_image(cx, cy, side, HEIGHT, WIDTH):
        return
    window = np.array(plan_crop(cx, cy, side, HEIGHT, WIDTH, FULL_ENVELOPE, 256).window)
    (affine,) = output_to_source(
        np.array([[cx, cy]]), np.array([sc * side]), np.array([rot]), np.array([flip]), res
    )
    found = beyond_window(affine, window, np.array([HEIGHT, WIDTH]), res)
    points = shown(affine, res)
    inside = ((points >= -0.5) & (points <= np.array([WIDTH, HEIGHT]) - 0.5)).all(1)
    over = np.maximum(window[:2] - 0.5 - points, points - (window[2:] - 0.5)).max(1)
    seen = max(0.0, float(over[inside].max(initial=0.0)))
    apart = float(np.abs(affine[:, :2]).sum() * res / 159)
    assert seen <= found + 1e-6
    assert found <= seen + 2 * apart or inside.sum() < 200
    if sc <= FULL_ENVELOPE.scale:
        assert found <= 1e-6, "the build's own envelope holds every augmentation in it"


@settings(max_examples=200, deadline=None)
@given(boxes, st.booleans(), st.sampled_from([16, 224, 256]))
def test_a_cropped_set_holds_what_is_not_augmented(
    box: tuple[float, float, float, float], flip: bool, res: int
) -> None:
    """Its window is the box at whole pixels, and may leave the frame."""
    cx, cy, side, rot = box
    window = np.array(plan_cropped(cx, cy, side, 224, 224).window)
    center, sides, frame = np.array([[cx, cy]]), np.array([side]), np.array([HEIGHT, WIDTH])
    (plain,) = output_to_source(center, sides, np.zeros(1), np.array([flip]), res)
    assert beyond_window(plain, window, frame, res) <= 1e-6
    (wide,) = output_to_source(center, 2 * sides, np.array([rot]), np.array([flip]), res)
    if 100 < cx < 540 and 100 < cy < 380 and 20 < side < 80:
        assert beyond_window(wide, window, frame, res) > 1.0


def test_labels_of_the_index_are_checked(tmp_path: Path) -> None:
    """A flipped bit in any column of the index, for every byte of a row in turn: an error that
    names the shard and the row, or the item as it was."""
    tree = own(tmp_path, rows=2)
    assert tree.build("--skip-checks").code == 0
    whole = [render(sample, Augmentation(), RAW) for sample in ShardSet.open(str(tree.out))]  # type: ignore[attr-defined]
    (index,) = tree.out.glob("*-000000.arrow")
    data = index.read_bytes()
    refused = 0
    for at in range(0, len(data), 31):
        index.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        for row in range(2):
            try:
                item = render(ShardSet.open(str(tree.out))[row], Augmentation(), RAW)
            except RefitShardError as error:
                refused += "the labels are damaged (crc32c)" in str(error)
                continue
            for name, value in whole[row].items():
                same = item[name] == value
                assert same.all() if torch.is_tensor(same) else same, (at, name)
    assert refused > 20


def test_preview_draws_no_damaged_labels(tmp_path: Path) -> None:
    """A keypoint that is elsewhere by a flipped bit is an error, not a picture."""
    tree = own(tmp_path, rows=2)
    assert tree.build("--skip-checks").code == 0
    (index,) = tree.out.glob("*-000000.arrow")
    data = index.read_bytes()
    at = data.index(ShardSet.open(str(tree.out)).shard(0).view("keypoints").tobytes())
    index.write_bytes(data[: at + 3] + bytes([data[at + 3] ^ 1]) + data[at + 4 :])
    found = refit("preview", tree.out, "--out", tmp_path / "sheet.png")
    assert found.code == 1
    assert "the labels are damaged" in error_line(found)
    assert not (tmp_path / "sheet.png").exists()
