"""Damaged JPEGs: each is a named error or drawn as libjpeg decodes it, in a process that lives."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from refit_shard.converter.frames.encode import encode
from refit_shard.loaders import native
from refit_shard.loaders.native import Code, Drawer, ImageKind, Jpegs
from refit_shard.shards_spec.errors import FrameError, RefitShardError
from tests.hostile.batch import mutated, outcomes
from tests.hostile.test_jpeg import SIZE, make_whole, progressive, resized, segments

__all__ = ["make_whole"]

PORTABLE = Drawer(48, ImageKind.UINT8, portable=True)
FAST = Drawer(48, ImageKind.UINT8)
_TABLES = 160  # bytes of the header with the quantisation
TURNED = np.array([[[1.2, 0.7, 10.0], [-0.7, 1.2, 40.0]]])


def draw(made: Drawer, data: bytes) -> tuple[int, int, bytes]:
    """Code, detail and pixels of an image that shows a part of the crop."""
    outs = np.zeros((1, 48, 48, 3), np.uint8)
    sides = np.array([SIZE], np.int32)
    factors = np.ones((1, 3), np.float32)
    codes, details = made.draw(Jpegs.of([data]), sides, TURNED, factors, outs, np.array([0]))
    return int(codes[0]), int(details[0]), outs.tobytes()


def parse(path: Path) -> None:
    """Both paths say the same; where all of a crop can be decoded, libjpeg agrees with it."""
    data = path.read_bytes()
    code, detail, pixels = draw(FAST, data)
    assert draw(PORTABLE, data) == (code, detail, pixels)
    if code == Code.NOT_OURS:
        with pytest.raises(ValueError, match="not a stored crop"):
            native.planes(data, *SIZE)
        raise FrameError("corrupt", "decoded elsewhere")
    if code != Code.OK:
        raise native.failure(code, detail, "a case")
    luma, _ = native.planes(data, *SIZE)
    if data[:_TABLES] != make_whole(Path())[:_TABLES]:
        return  # levels far beyond any picture's overflow in another way there
    try:
        gray = simplejpeg.decode_jpeg(data, "GRAY", strict=True)[:, :, 0]
    except ValueError:
        return  # libjpeg is stricter with what it could ignore
    assert np.array_equal(luma, gray)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A stored crop."""
    return make_whole(Path())


def test_any_damage_is_named_or_decoded(whole: bytes, tmp_path: Path) -> None:
    cases = [*mutated(whole, 2000, head=700), *mutated(whole, 1500, seed=10**6)]
    found = outcomes(__name__, whole, cases, tmp_path)
    assert set(found) == {"read", "FrameError"}


def test_any_header_is_ours_or_not(whole: bytes, tmp_path: Path) -> None:
    sides = ((65535, 65535), (0, 0), (0, 65535), (1, 65535), (65500, 65500), (81, 112), (80, 8))
    cases = [
        *segments(whole),
        *(resized(whole, *one) for one in sides),
        *(progressive(*one) for one in sides),
    ]
    assert set(outcomes(__name__, whole, cases, tmp_path)) == {"read", "FrameError"}


def error_of(data: bytes) -> RefitShardError:
    """What drawing says of it."""
    code, detail, _ = draw(FAST, data)
    return native.failure(code, detail, "a case")


def test_errors_say_what_is_wrong(whole: bytes) -> None:
    assert "is 112x90" in str(error_of(resized(whole, 90, 112)))
    begin = whole.index(b"\xff\xd0")
    assert "after 0 good MCUs" in str(error_of(whole[:begin] + b"\xff\xd1" + whole[begin + 2 :]))
    assert "markers are wrong" in str(error_of(whole[:-2]))
    # An MCU of a byte too many, and one that is cut: both in view.
    places = [
        at for at in range(len(whole) - 1) if whole[at] == 0xFF and whole[at + 1] & 0xF8 == 0xD0
    ]
    middle = places[len(places) // 2]
    for spoilt in (whole[:middle] + b"\x00" + whole[middle:], whole[: middle - 3] + whole[middle:]):
        assert f"MCU {len(places) // 2} are damaged" in str(error_of(spoilt))


def test_sizes_that_an_index_lies_about_take_no_memory(whole: bytes) -> None:
    """Where index and header agree on more than there is."""
    outs = np.zeros((1, 48, 48, 3), np.uint8)
    for height, width, code in (
        (65535, 65535, Code.TOO_LARGE),
        (1, 65535, Code.MARKERS),
        (8000, 8000, Code.MARKERS),
        (0, 5, Code.BAD_MAP),
        (-3, 5, Code.BAD_MAP),
        (2**31 - 1, 2**31 - 1, Code.BAD_MAP),
    ):
        lying = resized(whole, height % 65536, width % 65536)
        sides = np.array([[height, width]], np.int32)
        factors = np.ones((1, 3), np.float32)
        codes, _ = FAST.draw(Jpegs.of([lying]), sides, TURNED, factors, outs, np.array([0]))
        assert codes.tolist() == [code]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9, -1e300])
def test_maps_that_lead_nowhere_are_named(whole: bytes, bad: float) -> None:
    for place in np.ndindex(2, 3):
        affine = TURNED.copy()
        affine[0][place] = bad
        outs = np.zeros((1, 48, 48, 3), np.uint8)
        sides, factors = np.array([SIZE], np.int32), np.ones((1, 3), np.float32)
        codes, _ = FAST.draw(Jpegs.of([whole]), sides, affine, factors, outs, np.array([0]))
        assert codes.tolist() == [Code.BAD_MAP]


def test_another_programs_jpeg_is_not_ours() -> None:
    """Without markers, gray, 4:4:4: they go another way."""
    image = np.zeros((80, 112, 3), np.uint8)
    for data in (
        simplejpeg.encode_jpeg(image, 90, "RGB", "420"),
        simplejpeg.encode_jpeg(image, 90, "RGB", "444"),
        simplejpeg.encode_jpeg(np.zeros((80, 112, 1), np.uint8), 90, "GRAY"),
        b"",
        b"\xff\xd8",
    ):
        assert draw(FAST, data)[0] == Code.NOT_OURS
    assert draw(FAST, encode(image, 90))[0] == Code.OK
