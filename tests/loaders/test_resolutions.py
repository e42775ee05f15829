"""Images of other sides than 256: pixels, labels and occluders, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refit_shard import (
    Augmentation,
    AugmentationPolicy,
    Occluders,
    RenderOptions,
    StreamOptions,
    finalize,
    render,
)
from refit_shard.loaders.items.draws import Occlusion
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.loaders.items.policy import draw
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.photographs import OwnSet, Row, boxes, build_own, labels, photographs
from tests.loaders.streams import stream
from tests.loaders.test_occluders import cut_outs
from tests.refit_reference import (
    ReferenceParams,
    blend_occluder_reference,
    psnr,
    reference_crop,
    reference_keypoints,
)

# The side of an output, that of the stored box, and what agrees with ReFit's crop, dB.
SIDES = [(128, 128, 34.0), (224, 224, 36.0), (384, 384, 37.0), (97, 256, 32.0)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, OwnSet]:
    """Photographs, by the side of the stored box."""
    rng = np.random.default_rng(0)
    frames = photographs()["large"][:2]
    rows: list[Row] = []
    for index, frame in enumerate(frames):
        for center, side in boxes(frame, rng)[::2]:
            rows.append({**labels(rng, center, side), "frame": index})
    return {
        box_px: build_own(tmp_path_factory.mktemp(f"px{box_px}"), frames, rows, "--box-px", box_px)
        for box_px in sorted({box_px for _, box_px, _ in SIDES})
    }


@pytest.mark.parametrize(("res", "box_px", "least"), SIDES)
def test_images_and_labels_are_refits_at_that_side(
    sets: dict[int, OwnSet], res: int, box_px: int, least: float
) -> None:
    """Pixels as near as at 256 where the box is stored at the side; labels exactly."""
    own, found = sets[box_px], []
    for index, (row, sample) in enumerate(zip(own.rows, own.samples, strict=True)):
        one = ReferenceParams(flip=index % 2 == 1, rot=(0.0, 30.0, -55.0)[index % 3])
        augmentation = Augmentation(flip=one.flip, rot=one.rot)
        image = render(sample, augmentation, RenderOptions(res=res, image="uint8"))["img"].numpy()
        assert image.shape == (res, res, 3)
        expected = reference_crop(own.frames[index], row["center"], row["scale"], one, res)
        found.append(psnr(image, expected))
        item = render(sample, augmentation, RenderOptions(res=res, compat="refit"))
        joints = np.concatenate([row["openpose"], row["part"]])
        points = reference_keypoints(joints, row["center"], row["scale"], one, res)
        np.testing.assert_array_equal(item["keypoints"].numpy(), points)
    assert np.median(found) >= least


def test_occluders_are_placed_in_pixels_of_the_output(
    sets: dict[int, OwnSet], tmp_path: Path
) -> None:
    """As the reference pastes them, at every side; drawn ones lie all over the image."""
    objects = cut_outs()
    (tmp_path / "occluders.arrow").write_bytes(occluder_bytes(objects))
    occluders = Occluders(tmp_path / "occluders.arrow")
    for res, box_px, _ in SIDES:
        sample = sets[box_px].samples[0]
        options = RenderOptions(res=res, image="uint8")
        pasted = Occlusion(index=1, x=0.7 * res, y=0.3 * res, size=0.9)
        plain = render(sample, Augmentation(), options)["img"].numpy()
        item = render(sample, Augmentation(occluders=(pasted,)), options, occluders=occluders)
        place = np.array([pasted.x, pasted.y])
        expected = blend_occluder_reference(plain, objects[1], place, pasted.size)
        assert psnr(item["img"].numpy(), np.rint(expected).astype(np.uint8)) > 40
        drawn = draw(AugmentationPolicy(), 0, 0, 500, objects=4, res=res).pastes
        assert drawn["x"].max() < res
        assert drawn["x"].max() > 0.98 * res


def test_a_stream_of_another_side(shards: Path) -> None:
    """Its shape in each kind of image; its labels are those of any side but for compat."""
    for res in (97, 224):
        raw = next(iter(stream(shards, res=res, image="uint8")))
        made = next(iter(stream(shards, res=res)))
        assert raw["img"].shape == (12, res, res, 3)
        assert made["img"].shape == (12, 3, res, res)
        assert torch.equal(finalize(raw, "cpu")["img"], made["img"])


@pytest.mark.parametrize(
    "res", [15, 4097, 0, -224, 224.5, "224", (192, 256), None, True, float("nan")]
)
def test_sides_that_are_none_are_refused(res: Any) -> None:
    """With what it must be and what came."""
    for kind in (RenderOptions, StreamOptions):
        with pytest.raises(UsageError, match="res: must be a whole number from 16 to 4096, got"):
            kind(res=res)
