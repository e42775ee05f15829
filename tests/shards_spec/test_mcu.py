"""JPEGs cut down to a region: right to the pixel, or None, or a named error; whatever the bytes."""

import io
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders.items import mcu
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError
from tests.searches import examples

U8 = NDArray[np.uint8]
Size = tuple[int, int]

BESIDE = 2  # px beside a left-out MCU that may hold anything


def colourful(height: int, width: int, seed: int) -> U8:
    """A picture with edges of all colours, so that chroma taken from elsewhere is seen."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(-20, 21, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def random_region(size: Size, seed: int) -> mcu.Region:
    """Rows that follow on each other, and in each of them any columns that do."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    top, last_row = np.sort(rng.integers(0, rows, 2)).tolist()
    spans = np.sort(rng.integers(0, columns, (last_row - top + 1, 2)), axis=1)
    return mcu.Region.of(top, spans[:, 0].tolist(), spans[:, 1].tolist())


def held(size: Size, region: mcu.Region) -> NDArray[np.bool_]:
    """Which pixels of the whole image lie in the region."""
    mask = np.zeros(size, bool)
    for row, (first, last) in enumerate(zip(region.first, region.last, strict=True), region.top):
        mask[16 * row : 16 * row + 16, 16 * first : 16 * last + 16] = True
    return mask


def sure(size: Size, region: mcu.Region) -> NDArray[np.bool_]:
    """Which pixels must be as in the whole image: those that no left-out MCU is near."""
    missing = (~held(size, region)).astype(np.uint8)
    near = cv2.dilate(missing, np.ones((2 * BESIDE + 1,) * 2, np.uint8))
    return np.asarray(near == 0, np.bool_)


def part_of(data: bytes, size: Size, region: mcu.Region) -> bytes | None:
    """The region as a JPEG, or None where the image must be decoded whole."""
    header = mcu.find_header(data)
    made = None if header is None else mcu.cut(data, header, size, region)
    return None if made is None else bytes(made)


def check(whole: U8, part: U8, region: mcu.Region) -> None:
    """The part's pixels are the whole's, where they must be."""
    size = whole.shape[:2]
    assert part.shape == (*mcu.cut_size((size[0], size[1]), region), 3)
    top, left = 16 * region.top, 16 * region.left
    place = np.s_[top : top + part.shape[0], left : left + part.shape[1]]
    must = sure((size[0], size[1]), region)[place]
    assert must.sum() == sure((size[0], size[1]), region).sum(), "the rectangle holds the region"
    assert np.array_equal(whole[place][must], part[must])


SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 200)


@given(SIDES, SIDES, st.integers(1, 100), SEEDS)
@settings(max_examples=examples(150))
def test_a_part_is_a_jpeg_whose_pixels_are_the_wholes(
    height: int, width: int, quality: int, seed: int
) -> None:
    data = encode(colourful(height, width, seed), quality)
    region = random_region((height, width), seed)
    made = part_of(data, (height, width), region)
    narrow = width - 16 * region.left <= 4
    assert made is not None or narrow, "chroma of so narrow an image is not interpolated"
    if made is None:
        return
    check(jpeg.decode(data), simplejpeg.decode_jpeg(made, "RGB", strict=True), region)
    check(
        np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(made))), region
    )


@given(SIDES, SIDES, SEEDS)
@settings(max_examples=examples(30))
def test_the_whole_region_is_the_same_jpeg(height: int, width: int, seed: int) -> None:
    """To the byte; so nothing but markers and size is ever changed."""
    data = encode(colourful(height, width, seed), 90)
    rows, columns = -(-height // 16), -(-width // 16)
    region = mcu.Region.of(0, [0] * rows, [columns - 1] * rows)
    assert part_of(data, (height, width), region) == data


def test_headers_of_several_qualities_do_not_mix() -> None:
    """The header that was found last is not taken for another one."""
    image = colourful(70, 90, 4)
    region = mcu.Region.of(1, [2, 2, 1], [3, 4, 4])
    for quality in (90, 30, 90, 31, 100, 90):
        data = encode(image, quality)
        made = part_of(data, (70, 90), region)
        assert made is not None
        check(jpeg.decode(data), jpeg.decode(made), region)


def test_a_region_that_is_too_wide_is_decoded_whole() -> None:
    size = (20, 16 * 300)
    data = encode(colourful(*size, 5), 90)
    assert part_of(data, size, mcu.Region.of(0, [10], [266])) is None
    region = mcu.Region.of(0, [290, 44], [299, 299])
    made = part_of(data, size, region)
    assert made is not None
    check(jpeg.decode(data), jpeg.decode(made), region)


@pytest.mark.parametrize("width", range(30, 40))
def test_a_narrow_last_column(width: int) -> None:
    """Its chroma comes out as in the whole image, or it is decoded whole."""
    data = encode(colourful(40, width, 11), 60)
    region = mcu.Region.of(0, [2 if width > 32 else 1] * 3, [-(-width // 16) - 1] * 3)
    made = part_of(data, (40, width), region)
    assert (made is None) == (32 < width <= 36)
    if made is not None:
        check(jpeg.decode(data), jpeg.decode(made), region)


def pillow(image: U8, **options: object) -> bytes:
    """A JPEG as Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


def foreign() -> Iterable[tuple[str, bytes, bool]]:
    """JPEGs of other encoders and options, and whether they can be cut."""
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
    yield "comment", pillow(image, comment=b"\xff\xda\x00\x02", subsampling=2, **each), False


FOREIGN = list(foreign())


@pytest.mark.parametrize(
    ("data", "fits"), [one[1:] for one in FOREIGN], ids=[o[0] for o in FOREIGN]
)
def test_other_encoders(data: bytes, fits: bool) -> None:
    """What does not fit is left to the whole decode; what does is right."""
    region = mcu.Region.of(1, [3, 2, 2], [5, 5, 4])
    made = part_of(data, (75, 118), region)
    assert (made is not None) == fits
    if made is not None:
        check(jpeg.decode(data), jpeg.decode(made), region)


def test_optimised_tables_are_cut_or_left() -> None:
    """Tables may lack the codes of an empty MCU: then None, never wrong pixels."""
    cut = 0
    for seed in range(12):
        image = colourful(64, 96, seed) if seed % 2 else np.full((64, 96, 3), 20 * seed, np.uint8)
        data = pillow(image, optimize=True, subsampling="4:2:0", restart_marker_blocks=1)
        region = random_region((64, 96), seed)
        made = part_of(data, (64, 96), region)
        if made is not None:
            check(jpeg.decode(data), jpeg.decode(made), region)
            cut += 1
    assert cut > 0


def outcome(data: bytes, size: Size, region: mcu.Region) -> U8 | None:
    """The pixels of the part, or None; no error but a FrameError gets out of here as None."""
    made = part_of(data, size, region)
    if made is None:
        return None
    assert len(made) < len(data) + 16 * 16 * 300, "no more than a blank for each MCU"
    try:
        return jpeg.decode(made, np.empty((*mcu.cut_size(size, region), 3), np.uint8))
    except FrameError:
        return None


def whole(data: bytes) -> U8 | None:
    """The whole image, or None where a strict decoder refuses."""
    try:
        return jpeg.decode(data)
    except FrameError:
        return None


SIZE = (100, 83)
GOOD = encode(colourful(*SIZE, 7), 85)
HEAD = GOOD.index(b"\xff\xda") + 16


def agree(data: bytes, seed: int) -> None:
    """Where both the whole and a part can be decoded, they are alike."""
    region = random_region(SIZE, seed)
    found, expected = outcome(data, SIZE, region), whole(data)
    if found is not None and expected is not None:
        check(expected, found, region)


@given(st.integers(0, len(GOOD)), SEEDS)
@settings(max_examples=examples(150))
def test_data_cut_short(length: int, seed: int) -> None:
    region = random_region(SIZE, seed)
    if length < len(GOOD):
        assert part_of(GOOD[:length], SIZE, region) is None
    agree(GOOD[:length], seed)


BYTES = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6)
HEADER_BYTES = st.lists(
    st.tuples(st.integers(0, HEAD), st.integers(0, 255)), min_size=1, max_size=3
)


@given(st.one_of(BYTES, HEADER_BYTES), SEEDS)
@settings(max_examples=examples(600))
def test_changed_bytes(changes: list[tuple[int, int]], seed: int) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    agree(bytes(data), seed)


@given(st.integers(0, len(GOOD)), st.binary(max_size=8), SEEDS)
@settings(max_examples=examples(150))
def test_bytes_put_in(place: int, more: bytes, seed: int) -> None:
    agree(GOOD[:place] + more + GOOD[place:], seed)


@given(st.binary(max_size=400), SEEDS)
@settings(max_examples=examples(150))
def test_any_bytes_behind_a_good_header(tail: bytes, seed: int) -> None:
    agree(GOOD[:HEAD] + tail, seed)
    agree(GOOD[:2] + tail, seed)
    agree(tail, seed)


@given(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2), SEEDS)
@settings(max_examples=examples(60))
def test_a_size_that_is_not_the_headers(size: Size, seed: int) -> None:
    assert size == SIZE or part_of(GOOD, size, random_region(SIZE, seed)) is None
