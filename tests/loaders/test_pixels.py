"""Decoding only what is shown: to the bit as if all had been decoded."""

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders.items.footprint import footprints
from refit_shard.loaders.items.mcu import Region
from refit_shard.loaders.items.pixels import Scratch, decode_and_warp, decode_region
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.geometry import box_side, output_to_source, source_to_stored
from tests.searches import examples
from tests.shards_spec.test_mcu import colourful

Floats = NDArray[np.float64]
Cells = set[tuple[int, int]]

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 220)
RES = st.sampled_from([16, 33, 64])


def cells(region: Region | None) -> Cells:
    """(row, column) of the MCUs of a region."""
    if region is None:
        return set()
    rows = zip(region.first, region.last, strict=True)
    return {
        (row, column)
        for row, (first, last) in enumerate(rows, region.top)
        for column in range(first, last + 1)
    }


def needed(affine: Floats, height: int, width: int, res: int) -> Cells:
    """MCUs of every stored pixel that an output pixel's colour depends on, one by one: the four
    around its place, and what their chroma is interpolated from.
    """
    v, u = np.mgrid[:res, :res]
    x, y = np.einsum("ij,jmn->imn", affine, np.stack([u, v, np.ones_like(u)]))
    near = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = np.floor(x[near]).astype(int), np.floor(y[near]).astype(int)
    found: Cells = set()
    for (dx, dy), (cx, cy) in itertools.product(
        itertools.product((0, 1), repeat=2), itertools.product((-1, 0, 1), repeat=2)
    ):
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        columns = np.clip(x[inside] + dx + cx, 0, width - 1) // 16
        rows = np.clip(y[inside] + dy + cy, 0, height - 1) // 16
        found |= set(zip(rows.tolist(), columns.tolist(), strict=True))
    return found


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


@given(st.data(), SIDES, SIDES, RES)
@settings(max_examples=examples(300))
def test_a_footprint_holds_all_that_is_shown(
    data: st.DataObject, height: int, width: int, res: int
) -> None:
    """Against going through the output pixel by pixel; and no MCU that is not there."""
    affine = dyadic(data.draw(maps(res)))
    found = cells(footprints(affine[None], [height], [width], res)[0])
    assert needed(affine, height, width, res) <= found
    every = itertools.product(range(-(-height // 16)), range(-(-width // 16)))
    assert found <= set(every)


def test_a_footprint_is_no_larger_than_it_must_be() -> None:
    """By hand: 32 px from (40, 60) on take three MCUs by three; a square on its tip takes less
    than its bounding box.
    """
    straight = np.array([[1.0, 0.0, 40.0], [0.0, 1.0, 60.0]])
    (region,) = footprints(straight[None], [160], [160], 32)
    assert cells(region) == set(itertools.product(range(3, 6), range(2, 5)))
    tip = turn(45.0, 3.0, False, 160.0, 160.0, 64)
    (region,) = footprints(tip[None], [320], [320], 64)
    assert region is not None
    assert len(cells(region)) < 0.75 * len(region.first) * region.columns


def test_footprints_of_a_batch_are_those_of_its_samples() -> None:
    """Sizes that differ do not disturb each other."""
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 300, (40, 2))
    several = np.stack(
        [
            turn(rng.uniform(-180, 180), rng.uniform(0.1, 5), bool(rng.integers(2)), x, y, 64)
            for x, y in rng.uniform(-50, 350, (40, 2))
        ]
    )
    together = footprints(several, sizes[:, 0].tolist(), sizes[:, 1].tolist(), 64)
    for index, (height, width) in enumerate(sizes.tolist()):
        (alone,) = footprints(several[index : index + 1], [height], [width], 64)
        assert together[index] == alone


def shown(data: bytes, size: tuple[int, int], affine: Floats, res: int) -> NDArray[np.uint8]:
    """The output by way of the footprint, onto a canvas that is not empty."""
    (region,) = footprints(affine[None], [size[0]], [size[1]], res)
    out = np.full((res, res, 3), 77, np.uint8)
    decode_and_warp(data, size, region, affine, out, Scratch())
    return out


def dyadic(affine: Floats) -> Floats:
    """The map with numbers whose sums are exact: the warp rounds places to 1/32 px, and moving the
    image by whole pixels must not tip a tie.
    """
    return np.asarray(np.round(affine * 2.0**24) / 2.0**24, np.float64)


def expected(data: bytes, affine: Floats, res: int) -> NDArray[np.uint8]:
    """The output by decoding all."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(jpeg.decode(data), affine, (res, res), flags=flags), np.uint8)


@given(st.data(), SIDES, SIDES, RES, SEEDS)
@settings(max_examples=examples(300))
def test_the_output_is_that_of_the_whole_image(
    data: st.DataObject, height: int, width: int, res: int, seed: int
) -> None:
    """Whatever the map."""
    affine = dyadic(data.draw(maps(res)))
    stored = encode(colourful(height, width, seed), 90)
    found = shown(stored, (height, width), affine, res)
    assert np.array_equal(found, expected(stored, affine, res))


@given(SEEDS)
@example(31545)
@settings(max_examples=examples(150))
def test_augmentations_of_stored_crops_lose_nothing(seed: int) -> None:
    """Boxes anywhere in a frame, as they are stored and augmented."""
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
    affine = dyadic(source_to_stored(to_source, np.array([[*low, *high]], np.int32), exact)[0])
    stored = encode(colourful(height, width, seed), 90)
    found = shown(stored, (height, width), affine, 256)
    assert np.array_equal(found, expected(stored, affine, 256))


@pytest.mark.parametrize("width", range(32, 40))
@pytest.mark.parametrize("mirror", [False, True])
def test_only_a_narrow_last_column_is_seen(width: int, mirror: bool) -> None:
    """Its chroma is interpolated as in the whole image."""
    stored = encode(colourful(48, width, 12), 60)
    for x in np.arange(35.0, 44.0, 0.3):
        affine = turn(0.0, 0.2, mirror, x + 0.1 * 33, 24.0, 33)
        assert np.array_equal(shown(stored, (48, width), affine, 33), expected(stored, affine, 33))


def test_a_jpeg_without_markers_gives_the_same() -> None:
    """As 3dpw_test_sub's: it is decoded whole."""
    image = colourful(90, 120, 8)
    plain = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    affine = turn(20.0, 0.5, True, 60.0, 50.0, 64)
    assert np.array_equal(shown(plain, (90, 120), affine, 64), expected(plain, affine, 64))


def test_scratch_does_not_leak_from_one_image_into_the_next() -> None:
    """A large one, then a small one, in the same memory."""
    scratch = Scratch()
    for size in ((300, 200), (17, 23), (64, 64)):
        data = encode(colourful(*size, 9), 90)
        affine = turn(33.0, size[0] / 64, False, size[1] / 2, size[0] / 2, 64)
        (region,) = footprints(affine[None], [size[0]], [size[1]], 64)
        out = np.empty((64, 64, 3), np.uint8)
        decode_and_warp(data, size, region, affine, out, scratch)
        assert np.array_equal(out, expected(data, affine, 64))


HUGE = 2**31 - 1


@pytest.mark.parametrize("size", [(HUGE, HUGE), (HUGE, 1), (1, HUGE), (-5, 40), (40, -5), (0, 0)])
def test_sizes_of_a_damaged_index_take_no_memory(size: tuple[int, int]) -> None:
    """A FrameError, or black where nothing of it can be seen; the other samples are as before."""
    data = encode(colourful(40, 40, 10), 90)
    affine = turn(0.0, 1.0, False, 20.0, 20.0, 32)
    tracemalloc.start()
    both = footprints(np.stack([affine, affine]), [size[0], 40], [size[1], 40], 32)
    (alone,) = footprints(affine[None], [40], [40], 32)
    assert both[1] == alone
    out = np.empty((32, 32, 3), np.uint8)
    if both[0] is None:
        decode_and_warp(data, size, None, affine, out, Scratch())
        assert not out.any()
    else:
        with pytest.raises(FrameError):
            decode_region(data, size, both[0], Scratch())
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
