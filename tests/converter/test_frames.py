"""Frames of every kind: good ones as ``cv2.imread`` reads them, bad ones named, never guessed."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.reading import read_frame
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.searches import examples
from tests.small import encoded, error_line, hashes, index_rows, own, picture, quarantine

RGB = np.ascontiguousarray(picture(5)[..., ::-1])


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    """EXIF that holds an orientation."""
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def rgba() -> Image.Image:
    """A picture with a ramp of transparency."""
    alpha = np.tile(np.linspace(0, 255, RGB.shape[1]).astype(np.uint8), (RGB.shape[0], 1))
    return Image.fromarray(np.dstack([RGB, alpha]))


def gray() -> Image.Image:
    """A picture of one channel."""
    return Image.fromarray(RGB).convert("L")


def sixteen_bits(channels: int) -> bytes:
    """A 16-bit PNG."""
    deep = picture(6).astype(np.uint16) * 257 + 3
    return encoded(".png", deep if channels == 3 else deep[..., 0])


def with_gamma() -> bytes:
    """A PNG whose header states a gamma."""
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100000))
    return saved(Image.fromarray(RGB), "PNG", pnginfo=info)


def transparent_colour() -> bytes:
    """An RGB PNG with one transparent colour."""
    return saved(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3))


GOOD = {
    "baseline.jpg": saved(Image.fromarray(RGB), "JPEG"),
    "progressive.jpg": saved(Image.fromarray(RGB), "JPEG", progressive=True),
    "444.jpg": saved(Image.fromarray(RGB), "JPEG", subsampling=0),
    "422.jpg": saved(Image.fromarray(RGB), "JPEG", subsampling=1),
    "gray.jpg": saved(gray(), "JPEG"),
    "cmyk.jpg": saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "rgb-not-ycc.jpg": saved(Image.fromarray(RGB), "JPEG", keep_rgb=True),
    "grey-turned.jpg": saved(gray(), "JPEG", exif=exif(6)),
    "a-png-named.jpg": saved(Image.fromarray(RGB), "PNG"),
    "a-jpeg-named.png": saved(Image.fromarray(RGB), "JPEG"),
    "rgb.png": saved(Image.fromarray(RGB), "PNG"),
    "gray.png": saved(gray(), "PNG"),
    "two-levels.png": saved(gray().convert("1"), "PNG"),
    "gray-alpha.png": saved(gray().convert("LA"), "PNG"),
    "rgba.png": saved(rgba(), "PNG"),
    "palette.png": saved(Image.fromarray(RGB).convert("P"), "PNG"),
    "sixteen.png": sixteen_bits(3),
    "sixteen-gray.png": sixteen_bits(1),
    "gamma.png": with_gamma(),
    "one-transparent-colour.png": transparent_colour(),
    "turned.png": saved(Image.fromarray(RGB), "PNG", exif=exif(6)),
    "odd.jpg": encoded(".jpg", picture(7, 95, 63)),
    "one-pixel.jpg": encoded(".jpg", picture(8, 1, 1)),
    "picture.bmp": encoded(".bmp", picture(9)),
    "picture.webp": saved(Image.fromarray(RGB), "WEBP", lossless=True),
    **{f"exif-{n}.jpg": saved(Image.fromarray(RGB), "JPEG", exif=exif(n)) for n in range(1, 9)},
}


@pytest.mark.parametrize("name", GOOD)
def test_good_frames_have_the_pixels_that_imread_gives(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name])
    wanted = cv2.imread(str(path))
    assert wanted is not None
    assert np.array_equal(decode_frame(GOOD[name]).pixels, wanted[..., ::-1])


def test_the_orientations_differ_from_each_other() -> None:
    frames = {decode_frame(GOOD[f"exif-{n}.jpg"]).pixels.tobytes() for n in range(1, 9)}
    assert len(frames) == 8


def huge_jpeg() -> bytes:
    """A small JPEG whose header states 65535 x 65535 pixels."""
    data = bytearray(GOOD["baseline.jpg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def huge_png() -> bytes:
    """A PNG whose header states 65535 x 65535 pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + GOOD["rgb.png"][33:]


def png_of(size: tuple[int, int]) -> bytes:
    """A PNG of one colour: few bytes, many pixels."""
    return encoded(".png", np.zeros((size[1], size[0], 3), np.uint8))


def cut(name: str, share: float = 0.6) -> bytes:
    """The first part of a good file."""
    return GOOD[name][: int(len(GOOD[name]) * share)]


BAD = {
    "empty.jpg": ("empty", b""),
    "text.jpg": ("not_an_image", b"<html>404 not found</html>"),
    "lfs.jpg": (
        "lfs_pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ),
    "huge.jpg": ("too_large", huge_jpeg()),
    "huge.png": ("too_large", huge_png()),
    "above-the-limit.png": ("too_large", png_of((12000, 11200))),
    "zeros.jpg": ("not_an_image", bytes(4000)),
    **{f"cut-{name}": ("corrupt", cut(name)) for name in sorted(GOOD) if name != "one-pixel.jpg"},
    "header-only.jpg": ("corrupt", cut("baseline.jpg", 0.3)),
    "no-end.png": ("corrupt", GOOD["rgb.png"][:-60]),
}


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"empty.jpg"}))
def test_bad_frames_are_named_and_never_half_read(name: str) -> None:
    reason, data = BAD[name]
    with pytest.raises(FrameError) as caught:
        decode_frame(data)
    assert caught.value.reason == reason


@settings(max_examples=examples(150))
@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_changed_byte_gives_a_frame_or_our_error(
    name: str, at: int, change: int, cut_there: bool
) -> None:
    data = bytearray(GOOD[name])
    at %= len(data)
    data[at] ^= change
    with contextlib.suppress(FrameError):
        frame = decode_frame(bytes(data[: at + 1] if cut_there else data)).pixels
        assert frame.ndim == 3
        assert frame.shape[2] == 3
        assert frame.dtype == np.uint8


@settings(max_examples=examples(50))
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"])
)
def test_any_bytes_give_our_error(data: bytes, start: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(start + data)


def test_one_build_over_all_of_them_accounts_for_every_row(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=1)
    frames = {**GOOD, **{name: data for name, (_, data) in BAD.items()}}
    names = sorted(["missing.jpg", "a-folder.jpg", *frames])
    for name, data in frames.items():
        tree.put(name, data)
    (tree.root / "a-folder.jpg").mkdir()
    tree.save(**dict.fromkeys(tree.columns))
    tree.save(
        imgname=np.array(names),
        center=np.tile([30.0, 30.0], (len(names), 1)),
        scale=np.full(len(names), 0.3),
    )
    result = tree.build("--samples-per-shard", 10)
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    wanted = {name: reason for name, (reason, _) in BAD.items()}
    wanted |= {"missing.jpg": "missing", "a-folder.jpg": "unreadable"}
    found = {names[row]: reason for row, reason in quarantine(tree.out).items()}
    assert found == wanted
    stored = {row["imgname"] for row in index_rows(tree.out)}
    assert stored == set(names) - set(found)
    for reason in set(found.values()):
        assert f"{list(found.values()).count(reason)} {reason}" in result.out
    before = hashes(tree.out)
    assert tree.build("--samples-per-shard", 10).code == 0
    assert hashes(tree.out) == before


def test_on_error_fail_names_the_row_the_file_and_the_reason(tmp_path: Path) -> None:
    tree = own(tmp_path)
    (tree.root / "a/001.jpg").write_bytes(b"")
    result = tree.build("--on-error", "fail")
    assert result.code == 1
    assert "row 2 (a/001.jpg): empty: zero bytes" in error_line(result)
    assert not (tree.out / "manifest.json").exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop"])
def test_what_is_no_file_is_unreadable_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    """A FIFO, a folder and a link to itself in a frame's place."""
    place = tmp_path / "frame.jpg"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(place)
    with pytest.raises(FrameError) as caught:
        read_frame(open_folder(str(tmp_path)), "frame.jpg")
    assert caught.value.reason in ("unreadable", "missing")
