"""Damaged frames: what is accepted has the pixels of the undamaged file, or nothing can tell."""

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import kornia_rs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from refit_shard.converter.frames import png
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.frames.exif import orientation
from refit_shard.converter.frames.jpeg_entropy import check_scans
from refit_shard.converter.frames.jpeg_header import (
    APPLICATION_DATA,
    JFIF_REVISION,
    STRAY_BYTES,
    read_header,
)
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError
from tests.converter.made_jpeg import Factors, make_jpeg, segment
from tests.converter.made_png import RGB, SIGNATURE, chunk, chunks, exif, kinds, make_png
from tests.converter.test_frames import saved
from tests.converter.test_storage_faults import build_cropped, cropped
from tests.small import encoded, picture, quarantine, refit

Pixels = NDArray[np.uint8]
Damage = Callable[[bytes, random.Random], bytes]

PNGS = kinds()
PLAIN = Image.fromarray(picture(5, 96, 64)[..., ::-1])
SCAN = b"\xff\xda"
TITLE = (RGB, b"Title\0a picture")


def imread(data: bytes, place: Path) -> Pixels | None:
    """What ``cv2.imread`` makes of a file, in RGB."""
    path = place / "frame"
    path.write_bytes(data)
    found = cv2.imread(str(path))
    return None if found is None else np.asarray(found[..., ::-1], np.uint8)


def same(found: Pixels, wanted: Pixels | None) -> bool:
    """Whether there are pixels and they are equal."""
    return wanted is not None and np.array_equal(found, wanted)


def decoded(data: bytes) -> Pixels | None:
    """A frame's pixels, None where it is refused."""
    try:
        return decode_frame(data).pixels
    except FrameError:
        return None


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit turned over."""
    at = rng.randrange(8 * len(data))
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end lost."""
    return data[: rng.randrange(len(data))]


def double(data: bytes, rng: random.Random) -> bytes:
    """One byte twice."""
    at = rng.randrange(len(data))
    return data[: at + 1] + data[at:]


def drop(data: bytes, rng: random.Random) -> bytes:
    """One byte lost."""
    at = rng.randrange(len(data))
    return data[:at] + data[at + 1 :]


def stray(data: bytes, rng: random.Random) -> bytes:
    """Some bytes come in."""
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 20)) + data[at:]


DAMAGES = (flip, cut, double, drop)


def spoilt(data: bytes, damage: Damage, count: int) -> Iterator[bytes]:
    """Copies that each have one damage."""
    for seed in range(count):
        yield damage(data, random.Random(seed))


# ----------------------------------------------------------------------------------------- PNG


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_of_every_kind_has_the_pixels_that_imread_gives(kind: str, tmp_path: Path) -> None:
    found = decode_frame(PNGS[kind])
    assert found.warning is None
    assert same(found.pixels, imread(PNGS[kind], tmp_path))


def hold_what_is_accepted_of_a_png(kind: str, damage: Damage, count: int) -> None:
    """Each damaged copy is refused or has the pixels of the whole."""
    data = PNGS[kind]
    whole = decode_frame(data).pixels
    accepted = 0
    for bad in spoilt(data, damage, count):
        found = decoded(bad)
        accepted += found is not None
        assert found is None or same(found, whole)
    assert accepted < count / 2  # most of a file is what decides its pixels


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", PNGS)
def test_what_is_accepted_of_a_damaged_png_is_whole(kind: str, damage: Damage) -> None:
    hold_what_is_accepted_of_a_png(kind, damage, 60)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", PNGS)
def test_what_is_accepted_of_a_damaged_png_is_whole_thousands_of_times(
    kind: str, damage: Damage
) -> None:
    hold_what_is_accepted_of_a_png(kind, damage, 3000)


@pytest.mark.parametrize("kind", PNGS)
def test_every_bit_of_a_png_outside_its_texts_is_guarded(kind: str) -> None:
    """All bits about each chunk's ends: lengths, types, the first and last data, checksums."""
    data = PNGS[kind]
    for name, begin, end in chunks(data):
        if name == b"tEXt":
            continue
        for at in {*range(begin, min(begin + 10, end)), *range(end - 5, end)}:
            for bit in range(8):
                bad = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
                assert decoded(bad) is None, (name, at - begin, bit)


def with_wrong_crc(data: bytes, kind: bytes) -> bytes:
    """The file with the checksum of one chunk changed."""
    end = next(end for name, _, end in chunks(data) if name == kind)
    return data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]


def rgb_with(kind: bytes, body: bytes) -> bytes:
    """A plain PNG with one chunk more."""
    return make_png(np.asarray(PLAIN), RGB, before=chunk(kind, body))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"Title\0a picture"),
        (b"zTXt", b"Title\0\0x"),
        (b"iTXt", b"Title\0\0\0\0\0a picture"),
        (b"tIME", b"\x07\xe8\1\1\1\1\1"),
        (b"pHYs", b"\0\0\0\1\0\0\0\1\1"),
        (b"gAMA", b"\0\0\xb1\x8f"),
        (b"cHRM", bytes(32)),
        (b"sRGB", b"\0"),
        (b"iCCP", b"profile\0\0x"),
        (b"sBIT", b"\5\6\5"),
        (b"bKGD", bytes(6)),
        (b"vpAg", bytes(9)),
    ],
)
def test_a_wrong_checksum_where_no_pixel_depends_on_it_is_read(
    kind: bytes, body: bytes, tmp_path: Path
) -> None:
    bad = with_wrong_crc(rgb_with(kind, body), kind)
    assert same(decode_frame(bad).pixels, np.asarray(PLAIN))
    assert same(np.asarray(PLAIN), imread(bad, tmp_path))


@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba", "palette-transparent", "rgb-turned"])
def test_a_wrong_checksum_of_what_decides_pixels_is_refused(kind: str) -> None:
    data = PNGS[kind]
    for name in {name for name, _, _ in chunks(data)}:
        with pytest.raises(FrameError, match="checksum of a PNG chunk") as caught:
            decode_frame(with_wrong_crc(data, name))
        assert caught.value.reason == "corrupt"


def test_a_chunk_that_hides_another_is_refused() -> None:
    """A text whose length grew over the orientation after it."""
    text, turned = chunk(b"tEXt", b"T\0" + bytes(28)), chunk(b"eXIf", exif(6))
    whole = make_png(np.asarray(PLAIN), RGB, before=text + turned)
    at = whole.index(text)
    longer = struct.pack(">I", len(text) - 12 + len(turned))
    bad = whole[:at] + longer + whole[at + 4 :]
    assert decode_frame(whole).pixels.shape == (96, 64, 3)
    assert decoded(bad) is None


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE,
        SIGNATURE + chunk(b"IEND"),
        SIGNATURE + chunk(b"IHDR", bytes(13)) + chunk(b"IEND"),
        SIGNATURE + chunk(b"IHDR", bytes(12)) + chunk(b"IEND"),
        SIGNATURE + chunk(b"tEXt", b"a\0b") + PNGS["rgb"][8:],
        PNGS["rgb"][:-12],
        PNGS["rgb"][: -12 - 4],
        PNGS["rgb"][:33] + chunk(b"IEND"),
    ],
)
def test_a_png_without_its_parts_is_corrupt(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        decode_frame(data)
    assert caught.value.reason == "corrupt"


def test_no_number_of_chunks_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_MAX_CHUNKS", 20)
    many = make_png(np.asarray(PLAIN), RGB, before=chunk(b"tEXt", b"a\0b") * 20)
    with pytest.raises(FrameError, match="more than 20 chunks"):
        decode_frame(many)


def test_bytes_after_the_end_are_no_damage() -> None:
    assert same(decode_frame(PNGS["rgb"] + b"more").pixels, decoded(PNGS["rgb"]))
    whole = saved(PLAIN, "JPEG")
    found = decode_frame(whole + b"\xff\xd8\xff more")
    assert found.warning is None
    assert same(found.pixels, decoded(whole))


def test_a_decoder_that_panics_leaves_the_frame_to_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As kornia_rs raises it where memory is short."""

    def panics(*_: object) -> None:
        raise PanicException

    monkeypatch.setattr(kornia_rs.io, "decode_image_png_u8", panics)
    assert same(decode_frame(PNGS["rgb"]).pixels, picture(5, 40, 28)[..., ::-1])


# ---------------------------------------------------------------------------- headers of a JPEG


def profile() -> bytes:
    """An ICC profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_exif(data: bytes, turn: int) -> bytes:
    """A JPEG with an orientation, after its first segment."""
    return data[:20] + segment(0xE1, b"Exif\0\0" + exif(turn)) + data[20:]


JPEGS = {
    "baseline": saved(PLAIN, "JPEG"),
    "progressive": saved(PLAIN, "JPEG", progressive=True),
    "optimized": saved(PLAIN, "JPEG", optimize=True),
    "gray": saved(PLAIN.convert("L"), "JPEG"),
    "cmyk": saved(PLAIN.convert("CMYK"), "JPEG"),
    "cmyk-420": saved(PLAIN.convert("CMYK"), "JPEG", subsampling=2),
    "rgb": saved(PLAIN, "JPEG", keep_rgb=True),
    "profile": saved(PLAIN, "JPEG", icc_profile=profile(), comment=b"a comment"),
    "turned": with_exif(saved(PLAIN, "JPEG"), 6),
    "not-turned": with_exif(saved(PLAIN, "JPEG"), 1),
    "restarts": encoded(".jpg", picture(5), cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
}


def before(marker: bytes, more: bytes) -> Callable[[bytes], bytes]:
    """An edit that puts bytes before a marker."""
    return lambda data: data.replace(marker, more + marker, 1)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """An edit of bytes that are there."""

    def edit(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return edit


def shortened(marker: bytes) -> Callable[[bytes], bytes]:
    """An edit that lets a segment state three bytes less than it has."""

    def edit(data: bytes) -> bytes:
        at = data.index(marker) + 2
        length = int.from_bytes(data[at : at + 2], "big") - 3
        return data[:at] + length.to_bytes(2, "big") + data[at + 2 :]

    return edit


HEADERS = {
    "jfif-revision": ("baseline", replaced(b"JFIF\0\1", b"JFIF\0\7"), JFIF_REVISION),
    "jfif-revision-progressive": ("progressive", replaced(b"JFIF\0\1", b"JFIF\0\2"), JFIF_REVISION),
    "profile-number": ("profile", replaced(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\5\1"), None),
    "profile-count": ("profile", replaced(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"), None),
    "profile-none": ("profile", replaced(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\0\0"), None),
    "stray-before-scan": ("baseline", before(SCAN, b"stray"), STRAY_BYTES),
    "stray-before-scan-gray": ("gray", before(SCAN, b"\0\0\0\0"), STRAY_BYTES),
    "stray-before-scan-progressive": ("progressive", before(SCAN, b"stray"), STRAY_BYTES),
    "stray-before-scan-cmyk": ("cmyk", before(SCAN, b"stray"), STRAY_BYTES),
    "stray-before-scan-cmyk-420": ("cmyk-420", before(SCAN, b"stray"), STRAY_BYTES),
    "stray-before-tables": ("baseline", before(b"\xff\xdb", b"\0\1\2\3"), STRAY_BYTES),
    "stray-before-codes": ("baseline", before(b"\xff\xc4", b"stray"), STRAY_BYTES),
    "stray-before-frame": ("baseline", before(b"\xff\xc0", bytes(7)), STRAY_BYTES),
    "stray-with-stuffing": ("baseline", before(b"\xff\xdb", b"\xff\0\xff\0"), STRAY_BYTES),
    "stray-after-adobe": ("rgb", before(b"\xff\xdb", b"stray"), STRAY_BYTES),
    "stray-after-exif": ("turned", before(b"\xff\xdb", b"stray"), STRAY_BYTES),
    "profile-too-short": ("profile", shortened(b"\xff\xe2"), STRAY_BYTES),
    "comment-too-short": ("profile", shortened(b"\xff\xfe"), STRAY_BYTES),
    "exif-too-short": ("turned", shortened(b"\xff\xe1"), STRAY_BYTES),
}


@pytest.mark.parametrize("name", HEADERS)
def test_damage_of_the_header_alone_is_read_with_a_warning(name: str, tmp_path: Path) -> None:
    kind, edit, warning = HEADERS[name]
    bad = edit(JPEGS[kind])
    assert bad != JPEGS[kind]
    found = decode_frame(bad)
    assert found.warning == (warning or APPLICATION_DATA)
    assert same(found.pixels, imread(bad, tmp_path))
    assert same(found.pixels, decoded(JPEGS[kind]))


@pytest.mark.parametrize(
    "edit",
    [
        replaced(b"Exif\0\0MM", b"Exif\0\0XX"),
        replaced(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        replaced(b"Exif\0\0MM\0*\0\0\0\x08\0\1", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    ],
)
@pytest.mark.parametrize("kind", ["turned", "not-turned"])
def test_exif_that_is_garbage_is_read_as_imread_reads_it(
    kind: str, edit: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    bad = edit(JPEGS[kind])
    assert same(decode_frame(bad).pixels, imread(bad, tmp_path))


LOST = {
    "colours": ("rgb", replaced(b"\xff\xee\0\x0eAdobe", b"\xff\xfe\0\2\xfe\xee\0\x0eAdobe")),
    "colours-cut": ("rgb", replaced(b"\xff\xee\0\x0eAdobe", b"\xff\xee\0\x06Adobe")),
    "orientation": ("turned", replaced(b"\xff\xe1\0", b"\xfe\xe1\0")),
    "steps-shifted": ("baseline", replaced(b"\xff\xdb\0\x43\0", b"\xff\xdb\0\x43\0\x10")),
    "codes-lost": ("optimized", replaced(b"\xff\xc4", b"\xfe\xc4")),
    "transform-unknown": ("cmyk", replaced(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\7")),
}


@pytest.mark.parametrize("name", LOST)
def test_what_decides_pixels_is_never_guessed(name: str) -> None:
    kind, edit = LOST[name]
    with pytest.raises(FrameError) as caught:
        decode_frame(edit(JPEGS[kind]))
    assert caught.value.reason == "corrupt"


def test_a_lost_table_is_not_replaced_by_the_standard_one() -> None:
    """The file's own table has two symbols of equal size exchanged: with the standard one, which
    libjpeg takes where there is none, the scan is decoded without a warning to other pixels.
    """
    standard = b"\x13\x51\x61\x07"
    own = replaced(standard, b"\x13\x61\x51\x07")(saved(PLAIN, "JPEG", quality=97))
    at = own.index(b"\xff\xc4\0\xb5\x10")
    without = own[:at] + own[at + 2 + 0xB5 :]
    assert decode_frame(own).warning is None
    assert not same(decode_frame(own).pixels, decoded(without))
    assert decoded(without) is not None  # nothing tells
    assert decoded(own[:at] + b"\xfe" + own[at + 1 :]) is None


def hold_what_is_accepted_of_a_header(kind: str, damage: Damage, count: int, place: Path) -> int:
    """Damaged headers give the pixels of imread; with a warning, those of the whole file, too.

    Returns how many were read with a warning.
    """
    data = JPEGS[kind]
    whole = decode_frame(data).pixels
    scan = data.index(SCAN)
    warned = 0
    for bad in spoilt(data[2:scan], damage, count):
        spoiled = data[:2] + bad + data[scan:]
        try:
            found = decode_frame(spoiled)
        except FrameError:
            continue
        assert same(found.pixels, imread(spoiled, place))
        warned += found.warning is not None
        assert found.warning is None or same(found.pixels, whole)
    return warned


@pytest.mark.parametrize("kind", JPEGS)
def test_a_warning_comes_with_the_whole_image_alone(kind: str, tmp_path: Path) -> None:
    warned = 0
    for damage in (flip, double, drop, stray):
        warned += hold_what_is_accepted_of_a_header(kind, damage, 40, tmp_path)
    assert warned


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, double, drop, stray])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_warning_comes_with_the_whole_image_alone_thousands_of_times(
    kind: str, damage: Damage, tmp_path: Path
) -> None:
    hold_what_is_accepted_of_a_header(kind, damage, 4000, tmp_path)


@pytest.mark.parametrize(
    ("tiff", "found"),
    [
        (exif(1), 1),
        (exif(6), 6),
        (exif(9), None),
        (exif(6).replace(b"\0\6", b"\0\4\x99\0\6"), None),
        (exif(6)[:-8], None),
        (b"XX" + exif(6)[2:], None),
        (b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 3, 0, 0), 3),
        (b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0110, 3, 1, 3, 0, 0), 1),
        (b"", None),
    ],
)
def test_an_orientation_is_stated_or_unknown(tiff: bytes, found: int | None) -> None:
    assert orientation(tiff) == found


# ------------------------------------------------------------------------------ scans of a JPEG


def in_scan(data: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """The file with what lies between the first scan's header and the end of the image changed."""
    at = data.index(SCAN)
    begin = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:begin] + edit(data[begin:-2]) + data[-2:]


SCANS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "cut-short": lambda data: data[: len(data) // 2] + data[-2:],
    "no-end": lambda data: data[:-2],
    "bytes-before-the-end": lambda data: in_scan(data, lambda scan: scan + b"stray bytes"),
    "half-a-scan": lambda data: in_scan(data, lambda scan: scan[: len(scan) // 2]),
    "restart-inside": lambda data: in_scan(data, lambda scan: scan[:40] + b"\xff\xd3" + scan[40:]),
    "no-such-code": lambda data: in_scan(data, lambda scan: scan[:9] + b"\xff\0" * 9 + scan[27:]),
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("kind", JPEGS)
def test_damage_of_a_scan_is_refused(kind: str, name: str) -> None:
    bad = SCANS[name](JPEGS[kind])
    with pytest.raises(FrameError) as caught:
        decode_frame(bad)
    assert caught.value.reason == "corrupt"


def test_damage_of_header_and_scan_is_refused() -> None:
    bad = before(SCAN, b"stray")(JPEGS["baseline"])
    assert decode_frame(bad).warning
    assert decoded(SCANS["half-a-scan"](bad)) is None
    assert decoded(SCANS["bytes-before-the-end"](bad)) is None


FACTORS: dict[str, Factors] = {
    "444": [(1, 1), (1, 1), (1, 1)],
    "422": [(2, 1), (1, 1), (1, 1)],
    "440": [(1, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "420": [(2, 2), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "22-12-11": [(2, 2), (1, 2), (1, 1)],
    "22-21-12": [(2, 2), (2, 1), (1, 2)],
    "11-22-11": [(1, 1), (2, 2), (1, 1)],
    "31-11-11": [(3, 1), (1, 1), (1, 1)],
    "gray-22": [(2, 2)],
    "four-444": [(1, 1)] * 4,
    "four-22-11-11-11": [(2, 2), (1, 1), (1, 1), (1, 1)],
    "four-22-11-11-22": [(2, 2), (1, 1), (1, 1), (2, 2)],
    "four-21-12-11-11": [(2, 1), (1, 2), (1, 1), (1, 1)],
}
UNUSUAL = ("410", "22-12-11", "22-21-12", "four-22-11-11-11", "four-21-12-11-11")
# Adobe's transforms by the number of channels; None: no such segment.
ADOBE: dict[int, tuple[int | None, ...]] = {1: (None,), 3: (None, 0, 1), 4: (None, 0, 2)}


def sampled(name: str, transform: int | None = None, restart: int = 0) -> bytes:
    """A JPEG of a sampling; of four channels, CMYK or YCCK by the transform."""
    adobe = b"" if transform is None else segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    planes = np.dstack([picture(7, 39, 29), picture(8, 39, 29)])[..., : len(FACTORS[name])]
    return make_jpeg(planes, FACTORS[name], adobe, restart)


@pytest.mark.parametrize(
    ("name", "transform"),
    [(name, one) for name, factors in FACTORS.items() for one in ADOBE[len(factors)]],
)
def test_any_sampling_is_read_as_imread_reads_it(
    name: str, transform: int | None, tmp_path: Path
) -> None:
    data = sampled(name, transform, restart=2)
    found = decode_frame(data)
    assert found.warning is None
    assert same(found.pixels, imread(data, tmp_path))


@pytest.mark.parametrize("kind", [*JPEGS, *UNUSUAL])
def test_codes_are_followed_as_strictly_as_libjpeg_does(kind: str) -> None:
    """Where libjpeg warns of a damaged scan, so does the check for samplings that it is not for."""
    data = JPEGS[kind] if kind in JPEGS else sampled(kind, restart=3)
    check_scans(data, read_header(data))
    refused = {True: 0, False: 0}
    for damage in (flip, cut, double, drop):
        for bad in spoilt(data[data.index(SCAN) + 20 :], damage, 10):
            spoiled = data[: data.index(SCAN) + 20] + bad
            try:
                check_scans(spoiled, read_header(spoiled))
                ours = False
            except FrameError:
                ours = True
            refused[ours] += 1
            assert ours or decoded(spoiled) is not None
    assert min(refused.values()) > 2


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_sampling_is_no_excuse_for_a_damaged_scan(name: str) -> None:
    for edit in (SCANS["cut-short"], SCANS["half-a-scan"], SCANS["bytes-before-the-end"]):
        assert decoded(edit(sampled(name))) is None


@pytest.mark.parametrize("at", [0, 1])
def test_other_kinds_of_jpeg_are_named(at: int) -> None:
    """12 bits a sample, and the lossless process."""
    old, new = ((b"\x11\x08", b"\x11\x0c"), (b"\xff\xc0", b"\xff\xc3"))[at]
    with pytest.raises(FrameError) as caught:
        decode_frame(replaced(old, new)(JPEGS["baseline"]))
    assert caught.value.reason == "unsupported"
    assert "8 bits" in str(caught.value)


def test_a_crop_with_a_damaged_header_is_not_stored_as_it_is(tmp_path: Path) -> None:
    """Else the shard would hold a JPEG that a strict reader refuses."""
    shapes = np.tile([1920, 1080], (6, 1))
    tree, config = cropped(tmp_path, orig_shape=shapes)
    whole = (tree.root / tree.names[0]).read_bytes()
    tree.put(tree.names[0], before(SCAN, b"stray")(whole))
    tree.put(tree.names[-1], JPEGS["cmyk-420"])
    assert build_cropped(tmp_path, config).code == 0
    out = tmp_path / "out" / "3dpw_test_sub"
    assert refit("verify", out).code == 0
    assert quarantine(out) == {}


def test_only_what_any_reader_decodes_alike_is_stored_as_it_is() -> None:
    far = segment(0xFE, bytes(60000))
    turned = JPEGS["turned"][:20] + far + JPEGS["turned"][20:]
    assert jpeg.is_plain(JPEGS["baseline"])
    assert not jpeg.is_plain(turned)
    assert not jpeg.is_plain(JPEGS["cmyk"])
    assert not jpeg.is_plain(JPEGS["cmyk-420"])
    assert not jpeg.is_plain(b"")
