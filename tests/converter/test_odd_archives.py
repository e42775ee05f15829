"""Archives as they come out of a stranger's downloads folder: read all the same, or one line."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.archives.frames import Frames
from refit_shard.shards_spec.errors import PassingError, SourceError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.converter.packing import files_below, tar_of, zip_of
from tests.small import Own, error_line, hashes, own

ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "my archive (1).tar": tar_of,
    "übung 日本.zip": zip_of,
    "new\nline.tar": tar_of,
    "SCENE.TAR": tar_of,
    "with=and*.tar": tar_of,
}


def pack(tree: Own, name: str, make: Callable[[dict[str, bytes]], bytes]) -> Path:
    """All frames of a dataset go into one archive below its root."""
    files = files_below(tree.root)
    shutil.rmtree(tree.root)
    path = tree.root / name
    path.parent.mkdir(parents=True)
    path.write_bytes(make(files))
    return path


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("root", ["folder", "link"])
def test_names_of_any_kind_give_the_same_shards(archive: str, root: str, tmp_path: Path) -> None:
    """Of archives and of the frames in them; the root and the archive may be links."""
    names = ["my folder/a b.jpg", "å/ñ日.jpg", "a\nb/c\nd.jpg"]
    trees = []
    for kind in ("plain", "packed"):
        (tmp_path / kind).mkdir()
        trees.append(Own(tmp_path / kind, names))
    path = pack(trees[1], archive, ARCHIVES[archive])
    if root == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        trees[1].root.rename(tmp_path / "real")
        trees[1].root.symlink_to(tmp_path / "real")
    found = []
    for tree in trees:
        result = tree.build()
        assert result.code == 0, result.err
        found.append({name: one for name, one in hashes(tree.out).items() if name[0] != "."})
    assert found[0] == found[1]


def packed_in(root: Path, names: list[str]) -> Frames:
    """What reads these frames of a root."""
    folder = open_folder(str(root))
    found = find_packed(folder, names, open_folder(str(root / "none")))
    return Frames(folder, found.members(names))


def test_an_archive_in_a_folder_is_as_if_it_were_unpacked_there(tmp_path: Path) -> None:
    """A member is its own name, that below the archive's stem, and that in the archive's folder; a
    member that fits twice is one member.
    """
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene/scene.tar").write_bytes(tar_of({"png/0.png": b"zero"}))
    (tmp_path / "part").mkdir()
    (tmp_path / "part/other.zip").write_bytes(zip_of({"png/1.png": b"one"}))
    names = ["scene/png/0.png", "png/0.png", "part/png/1.png", "other/png/1.png"]
    frames = packed_in(tmp_path, names)
    assert [frames.read(name) for name in names] == [b"zero", b"zero", b"one", b"one"]


@pytest.mark.parametrize("rest", [0, 10_240, (1 << 20) - 512])
def test_a_tar_may_end_in_a_record_of_zeros(rest: int, tmp_path: Path) -> None:
    data = tar_of({"a.jpg": b"a"}).rstrip(b"\0")
    whole = data + bytes(-len(data) % 512 + 512 + rest)
    (tmp_path / "x.tar").write_bytes(whole)
    assert packed_in(tmp_path, ["a.jpg"]).read("a.jpg") == b"a"


@pytest.mark.parametrize("begins", [0, 2048])
def test_a_download_that_reserved_its_room_is_not_whole(begins: int, tmp_path: Path) -> None:
    """Zeros are where the rest was to come, and look like the end of a tar."""
    data = tar_of({f"{i}.jpg": bytes(range(256)) * 8000 for i in range(2)})
    (tmp_path / "x.tar").write_bytes(data[: begins and 2048512] + bytes(3 << 20))
    with pytest.raises(SourceError, match=r"x.tar: incomplete: its end mark is at byte .* again"):
        packed_in(tmp_path, ["1.jpg"])


def test_tars_that_were_put_together_lose_no_frame_unseen(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"a.jpg": b"a"}) + tar_of({"b.jpg": b"b"}))
    with pytest.raises(SourceError, match=r"several tars in one file.*--ignore-zeros"):
        packed_in(tmp_path, ["a.jpg", "b.jpg"])


def test_an_archive_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    data = tar_of({"a.jpg": b"a"})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.tar")).write_bytes(data)
    with pytest.raises(SourceError, match="name is not UTF-8; rename the archive"):
        packed_in(tmp_path, ["a.jpg"])


def test_an_archive_in_an_archive_is_told_of(tmp_path: Path) -> None:
    tree = own(tmp_path)
    pack(tree, "all.tar", lambda files: tar_of({"part/Images.TAR": tar_of(files)}))
    result = tree.build()
    assert result.code == 1
    assert "--root holds 1 archive, none with a frame that the npz names" in result.err
    assert "all.tar: contains archives, such as part/Images.TAR" in result.err
    assert "unpack it below --root; the archives in it may stay packed" in result.err
    assert "not built" in error_line(result)


def test_an_archive_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs this: root may read what others may not."""
    (tmp_path / "x.tar").write_bytes(tar_of({"a.jpg": b"a"}))

    def closed(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(pa, "OSFile", closed)
    with pytest.raises(PassingError, match=r"x\.tar: permission denied: make it readable"):
        packed_in(tmp_path, ["a.jpg"])
