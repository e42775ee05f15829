"""What a camera does to an image: as described, on both paths, and near what other libraries do."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders.items.effects import BODIES, LOOK, MAX_SIGMA, kernels, native_effects
from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.native import EFFECTS, PASTE, Code, CutOuts, Drawer, ImageKind, Jpegs
from tests.loaders.native import reference
from tests.loaders.native.reference import Camera, Paste
from tests.loaders.native.test_draw import RES, SEEDS, cut_outs, drawer
from tests.searches import examples
from tests.small import colourful, picture

U8 = NDArray[np.uint8]

WHOLE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
NO_BLUR = (256, *[0] * 15)


@st.composite
def blurs(draw: st.DrawFn) -> tuple[int, ...]:
    """Any weights that sum to 256 with their mirror image."""
    rest, weights = 128, []
    for _ in range(draw(st.integers(0, 15))):
        weights.append(draw(st.integers(0, rest)))
        rest -= weights[-1]
    return (2 * rest, *weights, *[0] * (15 - len(weights)))


def cameras(res: int) -> st.SearchStrategy[Camera]:
    """Any that the library takes."""
    return st.builds(
        Camera,
        cells=st.one_of(st.just(res), st.integers(1, res)),
        blur=st.one_of(st.just(NO_BLUR), blurs()),
        gray=st.booleans(),
        contrast=st.one_of(st.just(256), st.integers(0, 1024)),
        brightness=st.one_of(st.just(0), st.integers(-65280, 65280)),
    )


def table(cameras: Sequence[Camera]) -> NDArray[np.void]:
    """As the library takes them."""
    rows = [(one.cells, one.blur, one.gray, one.contrast, one.brightness) for one in cameras]
    return np.array(rows, EFFECTS)


def taken(
    made: Drawer,
    image: U8,
    effects: NDArray[np.void],
    *,
    factors: Sequence[float] = (1, 1, 1),
    objects: Sequence[U8] = (),
    pastes: Sequence[Paste] = (),
) -> tuple[int, NDArray[Any]]:
    """The code, and an image that was changed."""
    outs = np.full((1, *made.image.shape(made.res)), 77, made.image.dtype)
    codes, _ = made.draw(
        Jpegs.of([b""]),
        np.full((1, 2), len(image), np.int32),
        WHOLE[None],
        np.array([factors], np.float32),
        outs,
        np.zeros(1, np.int64),
        cut_outs=CutOuts(objects),
        pastes=np.array([(one.x, one.y, one.size, one.cut_out) for one in pastes], PASTE),
        paste_spans=np.array([[0, len(pastes)]]),
        effects=effects,
        decoded={0: image},
    )
    return int(codes[0]), outs[0]


@given(st.data(), RES, SEEDS)
@settings(deadline=None, max_examples=examples(120))
def test_effects_are_the_references(data: st.DataObject, res: int, seed: int) -> None:
    """All of them together, to the bit, whatever was in memory before."""
    camera, image = data.draw(cameras(res)), colourful(res, res, seed)
    expected = reference.photographed(image, camera)
    for portable in (False, True):
        code, found = taken(drawer(res, ImageKind.UINT8, portable), image, table([camera]))
        assert code == 0
        assert np.array_equal(found, expected)


def test_a_camera_sees_occluders_and_the_factors_come_last() -> None:
    """Crop, occluders, effects; then factors, whole levels and normalisation."""
    res, image, objects = 64, colourful(64, 64, 5), cut_outs(2)
    pastes = [Paste(3, 20.0, 30.0, 0.8), Paste(2, 50.0, 10.0, 0.5)]
    camera = Camera(31, (136, 50, 10, *[0] * 13), True, 300, -2000)
    scene = image.copy()
    for one in pastes:
        reference.paste(scene, objects[one.cut_out], one)
    levels = reference.photographed(scene, camera)
    factors = (0.7, 1.1, 1.4)
    for portable in (False, True):
        for kind, expected in (
            (ImageKind.UINT8, levels),
            (ImageKind.FLOAT32, reference.normalised(levels, factors, MEAN, STD)),
        ):
            made = drawer(res, kind, portable)
            args: dict[str, Any] = {"factors": factors, "objects": objects, "pastes": pastes}
            code, found = taken(made, image, table([camera]), **args)
            assert code == 0
            assert np.array_equal(found, expected)


def looks(count: int, rng: np.random.Generator) -> NDArray[np.void]:
    """Some of each, and some images without any."""
    made = np.zeros(count, LOOK)
    some = rng.random((5, count)) < 0.4
    made["body_crop"] = rng.integers(0, len(BODIES), count)
    made["downscale"] = np.where(some[0], rng.uniform(0.05, 1, count), 1.0)
    made["blur"] = np.where(some[1], rng.uniform(0, MAX_SIGMA, count), 0.0)
    made["gray"] = some[2]
    made["brightness"] = np.where(some[3], rng.uniform(-1, 1, count), 0.0)
    made["contrast"] = np.where(some[4], rng.uniform(0, 4, count), 1.0)
    return made


def test_any_number_of_threads_and_either_path_give_the_same() -> None:
    """A batch with and without effects, as each kind of image; those without are as ever."""
    rng = np.random.default_rng(3)
    count, res = 40, 48
    jpegs = Jpegs.of([encode(colourful(60, 70, seed), 85) for seed in range(count)])
    effects = native_effects(looks(count, rng), res)
    plain = (effects == native_effects(np.array([(0, 1, 0, 0, 0, 1)], LOOK), res)).nonzero()[0]
    assert 0 < len(plain) < count
    for kind in ImageKind:
        found, without = set(), np.empty((count, *kind.shape(res)), kind.dtype)
        for threads, portable in ((1, False), (3, False), (1, True), (5, True)):
            made = Drawer(res, kind, mean=MEAN, deviation=STD, threads=threads, portable=portable)
            outs = np.empty_like(without)
            for one, given_effects in ((without, None), (outs, effects)):
                codes, _ = made.draw(
                    jpegs,
                    np.full((count, 2), (60, 70), np.int32),
                    np.repeat(WHOLE[None], count, 0),
                    np.ones((count, 3), np.float32),
                    one,
                    np.arange(count),
                    effects=given_effects,
                )
                assert not codes.any()
            found.add(outs.tobytes())
            assert np.array_equal(outs[plain], without[plain])
            assert not np.array_equal(outs, without)
        assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cells", value) for value in (0, -1, 65, 2**31 - 1, -(2**31))),
        *(("blur", value) for value in ((255, *[0] * 15), (0, 129, *[0] * 14), (65535,) * 16)),
        *(("contrast", value) for value in (-1, 1025, 2**31 - 1)),
        *(("brightness", value) for value in (-65281, 65281, -(2**31))),
    ],
)
def test_numbers_out_of_bounds_are_refused(name: str, value: Any) -> None:
    """By a code; nothing is drawn, and nothing is read or written beyond its memory."""
    effects = table([Camera(64, NO_BLUR, False, 256, 0)])
    effects[name] = value
    for portable in (False, True):
        code, _ = taken(drawer(64, ImageKind.UINT8, portable), colourful(64, 64, 1), effects)
        assert code == Code.BAD_CALL


@given(st.floats(0, MAX_SIGMA))
@settings(deadline=None, max_examples=examples(60))
def test_kernels_are_gaussians(sigma: float) -> None:
    """In 256ths, summing to 256, each within one of the true weight."""
    (weights,) = kernels(np.array([sigma])).astype(np.int64)
    assert weights[0] + 2 * weights[1:].sum() == 256
    true = cv2.getGaussianKernel(31, max(sigma, 1e-3))[15:, 0] * 256
    assert np.abs(weights - true).max() <= 1.5
    assert weights.min() >= 0


def one_effect(image: U8, **changed: float) -> U8:
    """The image with one effect alone."""
    look = np.array([(0, 1, 0, 0, 0, 1)], LOOK)
    for name, value in changed.items():
        look[name] = value
    made = drawer(len(image), ImageKind.UINT8, False)
    code, found = taken(made, image, native_effects(look, len(image)))
    assert code == 0
    return np.asarray(found)


def far(found: U8, expected: NDArray[Any]) -> tuple[float, float]:
    """Mean and largest difference of levels."""
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(off.mean()), float(off.max())


def test_each_effect_is_near_opencvs() -> None:
    """By the definitions that users know: Gaussian blur, area and linear resizing, luma."""
    image = np.ascontiguousarray(picture(4, 256, 256))
    for sigma in (0.5, 1.0, 2.0, 5.0):
        blurred = cv2.GaussianBlur(image, (31, 31), sigma, borderType=cv2.BORDER_REPLICATE)
        mean, most = far(one_effect(image, blur=sigma), blurred)
        assert mean < 0.5
        assert most <= 3
    for share in (0.25, 0.5, 0.7, 0.9):
        side = round(share * 256)
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        again = cv2.resize(small, (256, 256), interpolation=cv2.INTER_LINEAR)
        mean, most = far(one_effect(image, downscale=share), again)
        assert mean < 0.7
        assert most <= 3
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, 2)
    assert far(one_effect(image, gray=1), gray)[1] <= 1
    toned = np.clip((image - 127.5) * 1.3 + 127.5 - 0.1 * 255, 0, 255)
    assert far(one_effect(image, contrast=1.3, brightness=-0.1), toned)[1] <= 1
