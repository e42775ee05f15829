"""Hostile frames: JPEG and PNG headers, and the entropy codes of JPEGs with unusual subsampling."""

import struct
from pathlib import Path

import numpy as np
import pytest

from refit_shard.converter.frames.decode import decode_frame
from tests.converter.made_jpeg import make_jpeg, segment
from tests.converter.made_png import SIGNATURE, chunk, kinds
from tests.hostile.batch import mutated, outcomes
from tests.small import picture

HUGE = struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)


def parse(path: Path) -> None:
    """Decode a frame as the build does."""
    frame = decode_frame(path.read_bytes()).pixels
    assert frame.dtype == np.uint8
    assert frame.shape[2:] == (3,)


def unusual() -> bytes:
    """A JPEG whose subsampling makes the build check its entropy codes in Python."""
    return make_jpeg(picture(7, 40, 24), [(2, 2), (1, 2), (1, 1)], segment(0xFE, b"comment"), 2)


def make_whole(_place: Path) -> bytes:
    """An undamaged frame."""
    return unusual()


WHOLE = {"jpeg": unusual(), **{kind: kinds()[kind] for kind in ("rgb", "palette", "rgb-turned")}}


@pytest.mark.parametrize("kind", WHOLE)
def test_any_damage_is_decoded_or_our_error(kind: str, tmp_path: Path) -> None:
    whole = WHOLE[kind]
    cases = [*mutated(whole, 500, head=200), *mutated(whole, 200, seed=10**6)]
    assert set(outcomes(__name__, whole, cases, tmp_path)) <= {"read", "FrameError"}


def repaired(data: bytes) -> bytes:
    """The PNG with the right checksum in every chunk that is still complete."""
    found, at = SIGNATURE, len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        found += chunk(data[at + 4 : at + 8], data[at + 8 : end])
        at = end + 4
    return found


@pytest.mark.parametrize("kind", ["rgb", "palette", "rgb-turned"])
def test_png_chunks_of_any_content_with_right_checksums(kind: str, tmp_path: Path) -> None:
    whole = WHOLE[kind]
    cases = [repaired(data) for data in mutated(whole, 500)]
    assert set(outcomes(__name__, whole, cases, tmp_path)) <= {"read", "FrameError"}


def test_sizes_that_a_header_lies_about_take_no_memory(tmp_path: Path) -> None:
    whole = unusual()
    frame = whole.index(b"\xff\xc0") + 5
    huge = whole[:frame] + b"\xff" * 4 + whole[frame + 4 :]
    progressive = huge.replace(b"\xff\xc0", b"\xff\xc2", 1)
    png = WHOLE["rgb"]
    cases = [huge, progressive, SIGNATURE + chunk(b"IHDR", HUGE) + png[33:]]
    cases.append(whole[:2] + b"\xff\xfe\xff\xff" + whole[2:])
    cases.append(png[:33] + b"\xff" * 4 + b"tEXt" + png[33:])
    assert outcomes(__name__, whole, cases, tmp_path) == ["FrameError"] * len(cases)


def test_any_number_of_segments_ends(tmp_path: Path) -> None:
    whole = unusual()
    empty, fill = b"\xff\xfe\0\2", b"\xff\0"
    cases = [whole[:2] + more * 200_000 + whole[2:] for more in (empty, fill, b"\xff", b"\0")]
    assert set(outcomes(__name__, whole, cases, tmp_path)) <= {"read", "FrameError"}
