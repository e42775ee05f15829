"""Hostile JPEGs: their headers, and their decoding by libjpeg-turbo."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refit_shard.converter.frames.encode import encode
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError
from tests.hostile.batch import mutated, outcomes
from tests.small import picture

SIZE = 80, 112


def parse(path: Path) -> None:
    """Decode as ``verify`` does, and as the loader does a JPEG of a kind that no build writes."""
    data = path.read_bytes()
    errors = []
    for work in (
        lambda: jpeg.check_size(data, *SIZE),
        lambda: jpeg.decode(data, np.empty((*SIZE, 3), np.uint8)),
    ):
        try:
            work()
        except FrameError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def make_whole(_place: Path) -> bytes:
    """A stored crop."""
    return encode(picture(3, SIZE[1], SIZE[0]), 90)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A stored crop."""
    return make_whole(Path())


def resized(data: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def progressive(height: int, width: int) -> bytes:
    """A progressive JPEG that states this size; decoders hold all its coefficients in memory."""
    stream = io.BytesIO()
    Image.fromarray(picture(1, 16, 16)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def segments(whole: bytes) -> Iterator[bytes]:
    """JPEGs with too many segments, or with segments too short, too long or hidden in another."""
    frame = whole[whole.index(b"\xff\xc0") : whole.index(b"\xff\xc0") + 19]
    huge = resized(frame, 65535, 65535)
    for extra in (
        b"\xff\xfe\0\0",
        b"\xff\xfe\0\x02",
        b"\xff\xfe\xff\xff",
        b"\xff\xc4\0\x02",
        b"\xff\xc4\0\x13" + b"\0" + b"\xff" * 16,
        b"\xff\xdd\0\x04\0\0",
        b"\xff\xdd\0\x03\0",
        b"\xff\xfe" + (len(huge) + 2).to_bytes(2, "big") + huge,
        b"\xff\xfe" + (len(frame) + 2).to_bytes(2, "big") + resized(frame, 0, 0),
        frame,
        huge,
        b"\xff\xc0\0\x08\x08\xff\xff\xff\xff\0",
        b"\xff\xda\0\x02",
        b"\xff\xd9",
    ):
        yield whole[:2] + extra + whole[2:]
        yield whole[:2] + extra
    for end in (*range(0, 700, 7), *range(len(whole) - 40, len(whole))):
        yield whole[:end]


def test_sizes_that_a_header_lies_about_take_no_memory(whole: bytes, tmp_path: Path) -> None:
    sides = ((65535, 65535), (0, 0), (0, 65535), (1, 65535), (65500, 65500), (81, 112), (80, 8))
    cases = [*(resized(whole, *one) for one in sides), *(progressive(*one) for one in sides)]
    assert outcomes(__name__, whole, cases, tmp_path) == ["FrameError"] * len(cases)


def test_any_other_header_is_our_error(whole: bytes, tmp_path: Path) -> None:
    assert set(outcomes(__name__, whole, segments(whole), tmp_path)) == {"read", "FrameError"}


def test_any_damage_is_decoded_or_our_error(whole: bytes, tmp_path: Path) -> None:
    cases = [*mutated(whole, 3000, head=700), *mutated(whole, 1000, seed=10**6)]
    assert set(outcomes(__name__, whole, cases, tmp_path)) == {"read", "FrameError"}


def test_a_stated_size_of_the_index_itself_is_bounded(whole: bytes) -> None:
    """A JPEG for which index and header agree on 65535 x 65535 pixels."""
    lying = resized(whole, 65535, 65535)
    with pytest.raises(FrameError, match="65535x65535"):
        jpeg.check_size(lying, 65535, 65535)
