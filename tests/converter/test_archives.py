"""Frames in archives: the shards are those of the unpacked folder, or an error tells why not."""

import errno
import json
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.trees import make_config, make_tree
from refit_shard.converter import reading
from refit_shard.converter.archives import frames, members
from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.archives.frames import Frames, work_order
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.archives.members import Member
from refit_shard.converter.build import work
from refit_shard.converter.build.plan import pieces
from refit_shard.converter.reading import Room
from refit_shard.shards_spec.errors import FrameError, PassingError, SourceError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.converter.packing import (
    deflated,
    files_below,
    pack_folders,
    tar_by_command,
    tar_of,
    zip_of,
)
from tests.small import Own, encoded, error_line, hashes, own, picture, quarantine, refit


def shards(out: Path) -> dict[str, str]:
    """SHA-256 of every file of a build but for the lists of archives."""
    return {name: value for name, value in hashes(out).items() if LISTS_FOLDER not in name}


# ---------------------------------------------------------------------------- real layouts

FRAMES = {"bedlam": 8, "agora": 3, "coco": 6, "3dpw": 4}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four datasets in their true layouts as folders, and their shards."""
    folder = tmp_path_factory.mktemp("trees")
    trees = [make_tree(name, folder, frames=frames) for name, frames in FRAMES.items()]
    assert build(folder, make_config(folder, trees)) == dict.fromkeys(FRAMES, 0)
    return folder


def build(folder: Path, config: Path) -> dict[str, int]:
    """Build all datasets; how many archives a line names, by dataset."""
    names = [part for name in FRAMES for part in ("--dataset", name)]
    how = ["--data-config", config, "--out", folder / "shards", "--workers", 0]
    result = refit("build", *names, *how, "--samples-per-shard", 9)
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if "nothing to unpack" in line]
    found = dict.fromkeys(FRAMES, 0)
    found.update({line.split(":")[0]: int(line.split(" holds ")[1].split()[0]) for line in lines})
    return found


@pytest.mark.parametrize("inside", [True, False], ids=["with its folder", "without"])
def test_downloads_give_the_shards_of_the_unpacked_folders(
    unpacked: Path, tmp_path: Path, inside: bool
) -> None:
    """BEDLAM's tars, AGORA's and COCO's stored zips and 3DPW's deflated one."""
    for name in ("bedlam", "agora", "coco", "3dpw", "dataset_extras"):
        shutil.copytree(unpacked / name, tmp_path / name)
    text = (unpacked / "data_config.py").read_text().replace(str(unpacked), str(tmp_path))
    (tmp_path / "data_config.py").write_text(text)
    scenes = pack_folders(tmp_path / "bedlam", inside=inside)
    parts = pack_folders(tmp_path / "agora", ".zip", inside=inside)
    pack_folders(tmp_path / "coco", ".zip", inside=inside)
    pw3d = tmp_path / "3dpw"
    (pw3d / "imageFiles.zip").write_bytes(deflated(files_below(pw3d)))
    shutil.rmtree(pw3d / "imageFiles")
    found = build(tmp_path, tmp_path / "data_config.py")
    assert found == {"bedlam": scenes, "agora": parts, "coco": 1, "3dpw": 1}
    assert shards(tmp_path / "shards") == shards(unpacked / "shards")


# --------------------------------------------------------------------------- forms of archives

LONG = "s/" + "a" * 120 + "/" + "b" * 90 + "/"

FORMS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "ustar.tar": lambda files: tar_of(files, tarfile.USTAR_FORMAT),
    "gnu.tar": lambda files: tar_of(files, tarfile.GNU_FORMAT),
    "pax.tar": lambda files: tar_of(files, tarfile.PAX_FORMAT),
    "dot.tar": lambda files: tar_of({f"./{name}": data for name, data in files.items()}),
    "stored.zip": zip_of,
    "deflated.zip": deflated,
    "zip64.zip": lambda files: zip_of(files, zip64=True),
    "streamed.zip": lambda files: zip_of(files, zipfile.ZIP_DEFLATED, streamed=True),
    "windows.zip": lambda files: backslashed(zip_of(files)),
    "before.zip": lambda files: b"#!/bin/sh\n" + bytes(999) + zip_of(files),
}


def backslashed(data: bytes) -> bytes:
    """A zip whose names have backslashes."""
    return data.replace(b"a/0", b"a\\0")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A small dataset in a folder, built."""
    tree = own(tmp_path_factory.mktemp("plain"), rows=12)
    assert tree.build("--samples-per-shard", 4).code == 0
    return tree


def packed(plain: Own, folder: Path, name: str, data: bytes) -> Own:
    """The same dataset with one archive in place of its files."""
    tree = own(folder, rows=12)
    shutil.rmtree(tree.root)
    (tree.root / name).parent.mkdir(parents=True)
    (tree.root / name).write_bytes(data)
    shutil.copyfile(plain.npz, tree.npz)
    return tree


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("folder", ["", "downloads/"])
def test_every_form_gives_the_same_shards(
    plain: Own, tmp_path: Path, form: str, folder: str
) -> None:
    data = FORMS[form](files_below(plain.root))
    tree = packed(plain, tmp_path, folder + form, data)
    result = tree.build("--samples-per-shard", 4)
    assert result.code == 0, result.err
    assert shards(tree.out) == shards(plain.out)


@pytest.mark.parametrize("form", ["gnu.tar", "pax.tar", "deflated.zip"])
def test_long_names_and_names_of_all_letters_are_found(tmp_path: Path, form: str) -> None:
    names = [LONG + "ü_写真.png", LONG + "0.png"]
    data = {name: os.urandom(3000) for name in names}
    (tmp_path / form).write_bytes(FORMS[form](data))
    root = read_all(tmp_path, names)
    assert {name: root.read(name) for name in names} == data


def read_all(root: Path, names: list[str]) -> Frames:
    """What reads the frames of a root."""
    folder = open_folder(str(root))
    found = find_packed(folder, names, open_folder(str(root / "none")))
    return Frames(folder, found.members(names))


# ------------------------------------------------------------------------------ which one it is


def test_a_file_in_a_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1").write_bytes(b"file")
    (tmp_path / "x.tar").write_bytes(tar_of({"a/1": b"member", "a/2": b"other"}))
    root = read_all(tmp_path, ["a/1", "a/2", "a/3"])
    assert (root.read("a/1"), root.read("a/2")) == (b"file", b"other")
    with pytest.raises(FrameError, match="no such file"):
        root.read("a/3")


def test_two_members_for_one_frame_are_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a/1": b"one"}))
    (tmp_path / "a.zip").write_bytes(zip_of({"1": b"two"}))
    with pytest.raises(SourceError, match=r"frame a/1 may be 1 in a\.zip or a/1 in x\.tar"):
        read_all(tmp_path, ["a/1"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1").write_bytes(b"file")
    assert read_all(tmp_path, ["a/1"]).read("a/1") == b"file"


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    first, last = tar_of({"a/1": b"first", "a/2": b"2"}), tar_of({"./a/1": b"the last"})
    (tmp_path / "x.tar").write_bytes(first[:2048] + last)  # as `tar -r` appends
    assert read_all(tmp_path, ["a/1", "a/2"]).read("a/1") == b"the last"
    twice = zip_of({"b/1": b"first", "b/2": b"the last"}).replace(b"b/2", b"b/1")
    (tmp_path / "y.zip").write_bytes(twice)
    assert read_all(tmp_path, ["b/1"]).read("b/1") == b"the last"


def test_names_that_lead_out_are_no_frames(tmp_path: Path) -> None:
    names = ["../up", "/top", "a/../../b", "ok"]
    (tmp_path / "x.tar").write_bytes(tar_of(dict.fromkeys(names, b"x")))
    (tmp_path / "y.zip").write_bytes(zip_of({f"{name}2": b"x" for name in names}))
    found = find_packed(open_folder(str(tmp_path)), ["ok", "b"], open_folder(str(tmp_path / "n")))
    tables = [archive.table for archive in found.archives.listed]
    assert [table.column("name").to_pylist() for table in tables] == [["ok"], ["ok2"]]


def test_links_are_followed_where_tar_follows_them(tmp_path: Path) -> None:
    """A hard link is the same file; a symbolic one and a device are not read."""
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/1").write_bytes(b"content")
    os.link(tree / "a/1", tree / "a/2")
    (tree / "a/3").symlink_to("1")
    os.mkfifo(tree / "a/4")
    tar_by_command(tree, tmp_path / "x.tar", "a/1", "a/2", "a/3", "a/4")
    root = read_all(tmp_path, ["a/1", "a/2", "a/3", "a/4"])
    assert root.read("a/2") == b"content"
    for name in ("a/3", "a/4"):
        with pytest.raises(FrameError, match="unpack the archive") as refused:
            root.read(name)
        assert refused.value.reason == "unreadable"


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_members_are_refused_and_those_after_them_are_read(
    tmp_path: Path, form: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    with (tree / "a/1").open("wb") as file:
        for place in range(40):  # more pieces than one header holds
            file.seek(place * 65536)
            file.write(b"x" * 4096)
    (tree / "a/2").write_bytes(b"content")
    tar_by_command(tree, tmp_path / "x.tar", f"--format={form}", "--sparse", "a/1", "a/2")
    root = read_all(tmp_path, ["a/1", "a/2"])
    assert root.read("a/2") == b"content"
    if len((tmp_path / "x.tar").read_bytes()) < 40 * 65536:  # else the disk keeps no holes
        with pytest.raises(FrameError, match="is sparse in"):
            root.read("a/1")


# -------------------------------------------------------------------------------------- damage


def test_a_damaged_member_is_quarantined_and_the_others_are_built(
    plain: Own, tmp_path: Path
) -> None:
    data = bytearray(zip_of(files_below(plain.root)))
    at = data.index(b"\xff\xd8\xff") + 300
    data[at] ^= 0x40
    tree = packed(plain, tmp_path, "a.zip", bytes(data))
    assert tree.build().code == 0
    assert quarantine(tree.out) == {0: "corrupt", 1: "corrupt"}


def test_members_that_cannot_be_read_are_quarantined(plain: Own, tmp_path: Path) -> None:
    data = bytearray(deflated(files_below(plain.root)))
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<H", data, directory + 8, 1)  # encrypted, says the directory
    tree = packed(plain, tmp_path, "x.zip", bytes(data))
    assert tree.build().code == 0
    assert quarantine(tree.out) == {0: "unreadable", 1: "unreadable"}


def spoilt(tmp_path: Path, name: str, data: bytes) -> str:
    """The error of a root with this archive."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError) as raised:
        read_all(tmp_path, ["a/1"])
    return str(raised.value)


def test_an_archive_that_was_cut_short_is_named_with_its_last_member(tmp_path: Path) -> None:
    whole = tar_of({"a/1": bytes(2000), "a/2": bytes(2000)})
    said = spoilt(tmp_path, "x.tar", whole[:4000])
    assert "x.tar: cut short: it has 4000 bytes, and a member 'a/2'" in said
    assert "after 'a/1'; download it again" in said
    assert "without its end mark, after 'a/2'" in spoilt(tmp_path, "x.tar", whole[:5120])
    (tmp_path / "x.tar").unlink()
    said = spoilt(tmp_path, "x.zip", zip_of({"a/1": bytes(2000)})[:1000])
    assert "x.zip: damaged or cut short: no directory of a zip at its end" in said


def test_a_damaged_header_does_not_end_a_tar(tmp_path: Path) -> None:
    """As it would end it for Python's tarfile: the members after it would be gone unseen."""
    whole = bytearray(tar_of({"a/1": bytes(2000), "a/2": bytes(2000)}))
    whole[2560 + 30] ^= 1
    (tmp_path / "x.tar").write_bytes(whole)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == ["a/1"]
    said = spoilt(tmp_path, "x.tar", bytes(whole))
    assert "damaged: no header of a member at byte 2560, after 'a/1'" in said


def test_members_of_a_zip_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a/1": bytes(2000), "a/2": bytes(2000)}))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    struct.pack_into("<I", data, second + 42, 100)  # it begins within the first
    assert "is outside the archive or overlaps another member" in spoilt(
        tmp_path, "x.zip", bytes(data)
    )


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html><html>log in", b"version https://git-lfs"])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    said = spoilt(tmp_path, "bedlam.tar", data)
    assert "bedlam.tar: is " in said


def test_a_compressed_tar_is_told_of_where_frames_are_missing(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=12)
    tar_by_command(tree.root, tree.root / "all.tar.gz", "-z", "a")
    assert "compressed as" not in tree.build("--dry-run").err
    shutil.rmtree(tree.root / "a")
    result = tree.build()
    assert result.code == 1
    assert "all.tar.gz: compressed as a whole" in result.err
    assert "tar xf all.tar.gz" in result.err
    (tree.root / "all.tar.gz").rename(tree.root / "all.tar")  # whatever it is called
    assert "all.tar: compressed as a whole" in tree.build().err


def test_a_deflated_member_takes_no_more_memory_than_it_states(tmp_path: Path) -> None:
    data = bytearray(deflated({"a/1": bytes(50 << 20)}))
    for at in (data.index(b"PK\x01\x02") + 24, 22):
        struct.pack_into("<I", data, at, 1000)
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(FrameError, match="its size or checksum differs"):
        read_all(tmp_path, ["a/1"]).read("a/1")


# ------------------------------------------------------------------------------------ the lists


def lists(tree: Own) -> dict[str, int]:
    """The kept lists and when they were written."""
    folder = tree.out / LISTS_FOLDER
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_list_is_made_once_and_again_when_its_archive_changes(plain: Own, tmp_path: Path) -> None:
    files = files_below(plain.root)
    tree = packed(plain, tmp_path, "x.tar", tar_of(files))
    assert tree.build("--dry-run").code == 0
    assert not tree.out.exists()
    assert tree.build().code == 0
    first = lists(tree)
    assert tree.build().code == 0
    assert lists(tree) == first
    (tree.root / "x.tar").write_bytes(tar_of(dict(reversed(files.items()))))
    assert tree.build("--overwrite").code == 0
    assert lists(tree) != first
    assert quarantine(tree.out) == {}


def test_a_list_that_is_damaged_or_another_ones_is_made_again(plain: Own, tmp_path: Path) -> None:
    tree = packed(plain, tmp_path, "x.tar", tar_of(files_below(plain.root)))
    assert tree.build("--samples-per-shard", 4).code == 0
    (kept,) = (tree.out / LISTS_FOLDER).iterdir()
    whole = kept.read_bytes()
    for spoilt_list in (b"", whole[:-200], whole.replace(b"a/00", b"../0"), os.urandom(999)):
        kept.write_bytes(spoilt_list)
        assert tree.build("--samples-per-shard", 4).code == 0
        assert kept.read_bytes() == whole
    assert shards(tree.out) == shards(plain.out)


def test_an_archive_that_changes_under_a_build_says_nothing_of_its_frames(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a/1": b"one"}))
    root = read_all(tmp_path, ["a/1"])
    (tmp_path / "x.tar").write_bytes(tar_of({"a/1": b"one", "a/2": b"two"}))
    with pytest.raises(PassingError, match=r"x\.tar: was changed, moved or deleted"):
        root.read("a/1")
    (tmp_path / "x.tar").unlink()
    with pytest.raises(PassingError, match=r"x\.tar: was changed, moved or deleted"):
        root.read("a/1")


def test_shards_below_a_root_are_no_archives(plain: Own, tmp_path: Path) -> None:
    shutil.copytree(plain.root, tmp_path / "root")
    shutil.copytree(plain.out, tmp_path / "root/own")
    shutil.copytree(plain.out, tmp_path / "root/unfinished")
    (tmp_path / "root/unfinished/manifest.json").unlink()
    found = find_packed(
        open_folder(str(tmp_path / "root")), ["a/000.jpg"], open_folder(str(tmp_path / "n"))
    )
    assert not found.archives.listed


# ---------------------------------------------------------------------------------- the commands


def test_doctor_and_a_dry_run_know_archives(unpacked: Path, tmp_path: Path) -> None:
    shutil.copytree(unpacked / "bedlam", tmp_path / "bedlam")
    pack_folders(tmp_path / "bedlam")
    text = (
        (unpacked / "data_config.py")
        .read_text()
        .replace(str(unpacked / "bedlam"), str(tmp_path / "bedlam"))
    )
    config = tmp_path / "data_config.py"
    config.write_text(text)
    os.chmod(tmp_path / "bedlam", 0o555)
    shown = refit("doctor", "--data-config", config)
    assert "BEDLAM_ROOT holds 4 archives, nothing to unpack: 8 of 8 frames" in shown.out
    how = ["--dataset", "bedlam", "--data-config", config, "--out", tmp_path / "out"]
    planned = json.loads(refit("build", *how, "--dry-run", "--json").out)
    assert (planned[0]["packed"], planned[0]["missing"]) == (8, 0)
    assert not (tmp_path / "out").exists()


def test_doctor_proposes_the_remap_for_archives_of_another_layout(
    unpacked: Path, tmp_path: Path
) -> None:
    """Some copies of AGORA's zips hold the files alone, and have other names than the folders."""
    agora = tmp_path / "agora"
    agora.mkdir()
    for folder in sorted((unpacked / "agora").iterdir()):
        number = folder.name.removeprefix("train_")
        name = f"train_images_1280x720_{number}.zip"
        (agora / name).write_bytes(zip_of(files_below(folder)))
    npz = unpacked / "dataset_extras/agora_train.npz"
    how = ["--npz", npz, "--root", agora, "--name", "flat", "--out", tmp_path / "out"]
    result = refit("build", *how, "--workers", 0)
    assert result.code == 1
    assert "another layout" in result.err
    options = result.err.split("build with: ")[1].splitlines()[0].split("--remap ")[1:]
    remaps = [part for text in options for part in ("--remap", text.strip().strip("'"))]
    assert refit("build", *how, "--workers", 0, *remaps).code == 0


def test_the_subset_of_3dpw_is_cut_from_the_zip(tmp_path: Path) -> None:
    tree = make_tree("3dpw_test", tmp_path, frames=4)
    config = make_config(tmp_path, [tree])
    (tree.root / "imageFiles.zip").write_bytes(deflated(files_below(tree.root)))
    shutil.rmtree(tree.root / "imageFiles")
    result = refit("subset-3dpw", "--data-config", config, "--rows", 5)
    assert result.code == 0, result.err


def test_a_build_on_ray_reads_archives_too(plain: Own, tmp_path: Path) -> None:
    tree = packed(plain, tmp_path, "x.tar", tar_of(files_below(plain.root)))
    result = refit(*tree.command("--samples-per-shard", 4, workers=2))
    assert result.code == 0, result.err
    assert shards(tree.out) == shards(plain.out)


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_a_disk_that_fails_hides_no_archive(
    plain: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Else the frames in it would be missing, and their rows in quarantine."""
    tree = packed(plain, tmp_path, "x.tar", tar_of(files_below(plain.root)))
    whole = getattr(os, call)

    def failing(path: object, *args: object, **options: object) -> object:
        if str(tree.root) in os.fsdecode(path) and isinstance(path, bytes):  # type: ignore[arg-type]
            raise OSError(errno.EIO, "Input/output error")
        return whole(path, *args, **options)

    monkeypatch.setattr(os, call, failing)
    monkeypatch.setattr(reading, "PAUSES", (0.0,))
    result = tree.build()
    assert result.code == 1
    assert "also when tried again; the file itself may be fine" in error_line(result)
    monkeypatch.undo()
    assert tree.build("--samples-per-shard", 4).code == 0
    assert shards(tree.out) == shards(plain.out)


# ------------------------------------------------------------------------------- order of reads


def test_members_are_read_in_the_order_of_the_archives(plain: Own, tmp_path: Path) -> None:
    """The shards stay as they are; a frame whose turn has not come waits."""
    files = files_below(plain.root)
    tree = packed(plain, tmp_path, "x.tar", tar_of(dict(reversed(files.items()))))
    names = list(files)
    found = find_packed(open_folder(str(tree.root)), names, open_folder(str(tmp_path / "n")))
    packed_ones = found.members(names)
    assert work_order(packed_ones, names) == [5, 4, 3, 2, 1, 0]
    del packed_ones[names[2]], packed_ones[names[4]]
    assert work_order(packed_ones, names) == [2, 4, 5, 3, 1, 0]


@pytest.mark.parametrize("waiting", [96 << 20, 1])
def test_a_build_reads_so_and_its_shards_stay_as_they_are(
    plain: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """Within a shard, or within a piece of it where its samples would take too much memory."""
    files = files_below(plain.root)
    tree = packed(plain, tmp_path, "x.tar", tar_of(dict(reversed(files.items()))))
    begins: list[int] = []

    def noting(file: Any, where: str, member: Member, room: Room) -> bytes:
        begins.append(member.begin)
        return members.read_member(file, where, member, room)

    monkeypatch.setattr(frames, "read_member", noting)
    monkeypatch.setattr(work, "_WAITING_BYTES", waiting)
    assert tree.build("--samples-per-shard", 4, "--skip-checks").code == 0
    pairs = [begins[shard : shard + 2] for shard in (0, 2, 4)]
    assert (pairs == [sorted(pair) for pair in pairs]) == (waiting > 1)
    assert len(begins) == 6
    assert shards(tree.out) == shards(plain.out)


def test_pieces_are_whole_frames_of_at_most_so_many_rows() -> None:
    groups = [(0, 2), (2, 3), (3, 9), (9, 10), (10, 11)]
    assert list(pieces(groups, 4)) == [groups[:2], groups[2:3], groups[3:]]
    assert list(pieces(groups, 1)) == [[one] for one in groups]
    assert list(pieces([], 4)) == []


def test_quarantined_rows_stay_in_the_order_of_the_shard(plain: Own, tmp_path: Path) -> None:
    """So that an index of damaged frames is that of damaged files."""
    files = files_below(plain.root)
    for name in ("a/001.jpg", "a/004.jpg"):
        files[name] = files[name][:-90]
    unpacked_tree = own(tmp_path / "one", rows=12)
    for name, data in files.items():
        unpacked_tree.put(name, data)
    shutil.copyfile(plain.npz, unpacked_tree.npz)
    tree = packed(plain, tmp_path / "two", "x.tar", tar_of(dict(reversed(files.items()))))
    assert unpacked_tree.build().code == tree.build().code == 0
    assert len(quarantine(tree.out)) == 4
    assert shards(tree.out) == shards(unpacked_tree.out)


def test_an_archive_of_no_use_does_no_harm(plain: Own, tmp_path: Path) -> None:
    tree = packed(plain, tmp_path, "x.tar", tar_of(files_below(plain.root)))
    (tree.root / "empty.zip").write_bytes(zip_of({}))
    (tree.root / "none.tar").write_bytes(bytes(10240))
    (tree.root / "._x.tar").write_bytes(b"of a Mac")
    (tree.root / "half.tar.part").write_bytes(b"a download that goes on")
    tree.put("a/000.jpg", encoded(".jpg", picture(99)))
    assert tree.build().code == 0
    assert quarantine(tree.out) == {}
    (tree.root / "broken.tar").write_bytes(b"x" * 999)
    assert "broken.tar: damaged: no header" in error_line(tree.build())
