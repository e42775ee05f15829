"""Hostile archives: a tar or zip may state wrong positions, sizes and names of its members."""

import io
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.archives.frames import Frames
from refit_shard.converter.archives.tar import list_tar
from refit_shard.converter.archives.zip import list_zip
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.converter.packing import deflated, tar_of, zip_of
from tests.hostile.batch import mutated, outcomes
from tests.searches import examples

FILES = {"a/1": bytes(700), "a/" + "long" * 40: b"2" * 50, "a/3": b"3" * 5000}


def parse(path: Path) -> None:
    """List an archive and read its members as a build does; a damaged member is quarantined."""
    data = path.read_bytes()
    root = path.parent / (path.name + ".root")
    root.mkdir(exist_ok=True)
    name = "x.zip" if b"PK\x03\x04" in data[:64] else "x.tar"
    (root / name).write_bytes(data)
    folder = open_folder(str(root))
    try:
        found = find_packed(folder, list(FILES), folder.child("none"))
        frames = Frames(folder, found.members(FILES))
        for one in FILES:
            try:
                frames.read(one)
            except FrameError:
                continue
    finally:
        (root / name).unlink()


def make_whole(_place: Path) -> bytes:
    """An undamaged tar with a long name."""
    return tar_of(FILES)


def make_whole_zip(_place: Path) -> bytes:
    """An undamaged zip, deflated."""
    return deflated(FILES)


def header(name: bytes, size: bytes, kind: bytes, data: bytes = b"") -> bytes:
    """A tar member with the given header and its right checksum."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    block[:100] = name[:100].ljust(100, b"\0")
    block[124:136] = size[:12].ljust(12, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def hostile_tars() -> Iterator[bytes]:
    """Tars with wrong headers."""
    end = bytes(1024)
    huge = b"\x80" + (2**62).to_bytes(11, "big")
    negative = b"\xff" * 12
    for kind in (b"0", b"5", b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"V", b"M", b"D", b"Z"):
        for size in (huge, negative, b"77777777777", b"00000000000", b"9999", b"\x80" * 12):
            yield header(b"a/1", size, kind) + end
        yield header(b"a/1", b"10", kind, bytes(8)) + header(b"a/1", b"10", b"0", bytes(8)) + end
    for records in (
        *(b"", b"0 path=a\n", b"5 path=a/1\n", b"999999999 path=a\n", b"12 path=a/1\n"),
        *(b"-1 path=a\n", b"8 size=\n", b"11 size=-1\n", b"30 size=99999999999999999999\n"),
        *(b"10 path=\xff\n", b"99 GNU.sparse.major=1\n", b"22 GNU.sparse.major=1\n"),
    ):
        for kind in (b"x", b"g"):
            size = b"%o" % len(records)
            told = header(b"pax", size, kind, records) if records else header(b"pax", b"0", kind)
            yield told + header(b"a/1", b"10", b"0", bytes(8)) + end
    yield header(b"a/1", b"10", b"1") + end  # a hard link to itself
    yield bytes(512)
    yield bytes(100)


def test_any_damage_of_a_tar_is_read_or_our_error(tmp_path: Path) -> None:
    cases = [*mutated(make_whole(tmp_path), 500), *hostile_tars()]
    found = set(outcomes(__name__, make_whole(tmp_path), cases, tmp_path))
    assert found == {"read", "SourceError"}


@pytest.mark.parametrize("form", ["stored", "deflated", "zip64", "streamed"])
def test_any_damage_of_a_zip_is_read_or_our_error(tmp_path: Path, form: str) -> None:
    whole = {
        "stored": lambda: zip_of(FILES),
        "deflated": lambda: deflated(FILES),
        "zip64": lambda: zip_of(FILES, zip64=True),
        "streamed": lambda: zip_of(FILES, zipfile.ZIP_DEFLATED, streamed=True),
    }[form]()
    cases = [*mutated(whole, 150), *(c[::-1] for c in mutated(whole[::-1], 300, head=600))]
    found = set(outcomes(__name__, whole, cases, tmp_path))
    assert found == {"read", "SourceError"}


def test_a_directory_that_states_a_terabyte_takes_no_memory(tmp_path: Path) -> None:
    whole = bytearray(zip_of(FILES))
    end = whole.rindex(b"PK\x05\x06")
    cases = []
    for size, offset in ((2**32 - 2, 0), (2**31, 2**31), (2**32 - 1, 2**32 - 1)):
        struct.pack_into("<II", whole, end + 12, size, offset)
        cases.append(bytes(whole))
    assert set(outcomes(__name__, zip_of(FILES), cases, tmp_path)) <= {"SourceError", "read"}


class Bytes:
    """An open archive in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, count: int, offset: int) -> bytes:
        """Bytes at an offset, as an open file returns them."""
        return bytes(pa.BufferReader(self.data).read_at(count, offset))


PARTS = st.text("ab.é ", min_size=1, max_size=130).filter(lambda part: part not in (".", ".."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@settings(max_examples=examples(60))
@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6), FORMATS)
def test_a_tar_holds_what_tarfile_says(files: dict[str, bytes], form: int) -> None:
    data = tar_of(files, form)
    listing = list_tar(Bytes(data), "x.tar", len(data), lambda _: None)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = {info.name: (info.offset_data, info.size) for info in tar.getmembers()}
    places = zip(listing.begins, listing.sizes, strict=True)
    assert dict(zip(listing.names, places, strict=True)) == theirs
    assert {name: data[b : b + s] for name, (b, s) in theirs.items()} == files


@settings(max_examples=examples(60))
@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6), st.booleans())
def test_a_zip_holds_what_zipfile_says(files: dict[str, bytes], packed: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = deflated(files) if packed else zip_of(files)
    listing = list_zip(Bytes(data), "x.zip", len(data), lambda _: None)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        theirs = {info.filename: info.header_offset for info in archive.infolist()}
    assert dict(zip(listing.names, listing.begins, strict=True)) == theirs
    assert set(listing.names) == set(files)
