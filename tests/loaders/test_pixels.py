"""Images of stored crops beside those of other libraries: near, whatever the crop and the map."""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders import native
from refit_shard.loaders.native import Drawer, ImageKind, Jpegs
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.geometry import box_side, output_to_source, source_to_stored
from tests.refit_reference import psnr
from tests.searches import examples
from tests.small import colourful, picture

U8 = NDArray[np.uint8]
Floats = NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)


def turn(angle: float, scale: float, mirror: bool, x: float, y: float, res: int) -> Floats:
    """Output to stored pixels: the middle of the output lies at (x, y)."""
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    middle = (res - 1) / 2
    return np.column_stack([linear, np.array([x, y]) - linear @ (middle, middle)])


ANGLES = st.one_of(st.sampled_from([0.0, 45.0, 90.0, 180.0, -90.0, 1e-7]), st.floats(-180, 180))
SCALES = st.one_of(st.floats(0.2, 4), st.sampled_from([1e-6, 0.01, 1.0, 40.0, 1e4]))
PLACES = st.one_of(st.floats(-60, 280), st.sampled_from([0.0, -0.5, 15.5, 16.0, -1e6, 1e6]))


@st.composite
def maps(draw: st.DrawFn, res: int) -> Floats:
    """Squares turned, mirrored or not, and then stretched, as rounding a crop's size does."""
    affine = turn(draw(ANGLES), draw(SCALES), draw(st.booleans()), draw(PLACES), draw(PLACES), res)
    stretch = np.array([draw(st.floats(0.5, 2)), draw(st.floats(0.5, 2))])
    return np.asarray(affine * stretch[:, None], np.float64)


def drawn(data: bytes, size: tuple[int, int], affine: Floats, res: int) -> U8:
    """The output, onto a canvas that is not empty."""
    out = np.full((1, res, res, 3), 77, np.uint8)
    sides, factors = np.array([size], np.int32), np.ones((1, 3), np.float32)
    made = Drawer(res, ImageKind.UINT8)
    codes, _ = made.draw(Jpegs.of([data]), sides, affine[None], factors, out, np.array([0]))
    assert codes.tolist() == [0]
    return np.asarray(out[0])


def opencvs(data: bytes, affine: Floats, res: int) -> U8:
    """The output by decoding all with libjpeg-turbo and warping with OpenCV."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(jpeg.decode(data), affine, (res, res), flags=flags), np.uint8)


@given(SEEDS)
@settings(max_examples=examples(100))
def test_augmentations_of_stored_crops_are_near_opencvs(seed: int) -> None:
    """Boxes anywhere in a frame, as they are stored and augmented. OpenCV weighs by 32nds, and
    rounds colours before it warps them.
    """
    rng = np.random.default_rng(seed)
    frame = rng.integers(200, 1200, 2)
    side = float(rng.uniform(40, 500))
    center = rng.uniform(-0.2, 1.2, 2) * frame
    low = np.maximum(np.floor(center - 0.9 * side), 0)
    high = np.minimum(np.ceil(center + 0.9 * side), frame)
    if (high <= low).any():
        return
    k = min(1.0, 256 / side)
    width, height = np.maximum(1, np.rint((high - low) * k)).astype(int).tolist()
    to_source = output_to_source(
        center[None],
        box_side(rng.uniform(0.75, 1.25, 1) * side / 200),
        rng.uniform(-60, 60, 1) * rng.integers(2),
        rng.random(1) < 0.5,
        256,
    )
    exact = np.array([[width, height]]) / (high - low)
    affine = source_to_stored(to_source, np.array([[*low, *high]], np.int32), exact)[0]
    stored = encode(picture(seed % 2**31, width, height), 90)
    found = drawn(stored, (height, width), affine, 256)
    expected = opencvs(stored, affine, 256)
    assert psnr(found, expected) >= 40.0
    assert not (found[(expected == 0).all(-1)] > 8).any(), "outside it is black"


def pillow(image: U8, **options: Any) -> bytes:
    """A JPEG as Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


def foreign() -> Iterator[tuple[str, bytes, bool]]:
    """JPEGs of other encoders and options, and whether they are of a build's kind."""
    image = colourful(75, 118, 6)
    each = {"restart_marker_blocks": 1}
    yield "an MCU a marker", pillow(image, subsampling="4:2:0", **each), True
    yield "no markers", pillow(image), False
    yield "two MCUs a marker", pillow(image, restart_marker_blocks=2), False
    yield "a row a marker", pillow(image, restart_marker_rows=1), False
    yield "progressive", pillow(image, progressive=True, **each), False
    yield "4:4:4", pillow(image, subsampling="4:4:4", **each), False
    yield "4:2:2", pillow(image, subsampling="4:2:2", **each), False
    yield "grey", pillow(image[:, :, 0], **each), False
    yield "RGB", pillow(image, keep_rgb=True, **each), False
    yield "comment", pillow(image, comment=b"\xff\xda\x00\x02", subsampling=2, **each), True


FOREIGN = list(foreign())


@pytest.mark.parametrize(
    ("data", "ours"), [one[1:] for one in FOREIGN], ids=[one[0] for one in FOREIGN]
)
def test_other_encoders(data: bytes, ours: bool) -> None:
    """What is of our kind is decoded right; anything else is left to libjpeg."""
    if not ours:
        with pytest.raises(ValueError, match="not a stored crop"):
            native.planes(data, 75, 118)
        return
    gray = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
    assert np.array_equal(native.planes(data, 75, 118)[0], gray)


def test_optimised_tables_are_right() -> None:
    """Tables made for one image: few codes, some of them long."""
    for seed in range(12):
        image = colourful(64, 96, seed) if seed % 2 else np.full((64, 96, 3), 20 * seed, np.uint8)
        data = pillow(image, optimize=True, subsampling="4:2:0", restart_marker_blocks=1)
        gray = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
        assert np.array_equal(native.planes(data, 64, 96)[0], gray)


def test_headers_of_many_qualities_do_not_mix() -> None:
    """A thread remembers a few headers; none is taken for another one."""
    made = Drawer(64, ImageKind.UINT8)
    affine = turn(20.0, 1.0, False, 45.0, 35.0, 64)
    sides, factors = np.array([[70, 90]], np.int32), np.ones((1, 3), np.float32)
    for quality in (90, 30, 90, 31, 100, 90, 50, 60, 70, 30, 90, 31):
        data = encode(colourful(70, 90, 4), quality)
        out = np.zeros((1, 64, 64, 3), np.uint8)
        made.draw(Jpegs.of([data]), sides, affine[None], factors, out, np.array([0]))
        assert np.array_equal(out[0], drawn(data, (70, 90), affine, 64))
        assert psnr(out[0], opencvs(data, affine, 64)) >= 30.0


@pytest.mark.parametrize("size", [(20, 16 * 300), (16 * 300, 20), (3, 32000), (32000, 3)])
def test_long_crops(size: tuple[int, int]) -> None:
    """A few MCUs far from the beginning, and all of it at once."""
    data = encode(picture(5, size[1], size[0]), 90)
    for x, y, scale in (
        (size[1] - 20.0, size[0] - 20.0, 0.3),
        (size[1] / 2, size[0] / 2, max(size) / 32),
    ):
        affine = turn(0.0, scale, False, x, y, 33)
        found = drawn(data, size, affine, 33)
        assert psnr(found, opencvs(data, affine, 33)) >= 35.0
