"""Finished shards read back: by plain webdataset, by plain pyarrow, and by ``ShardSet``."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset as wds

from refit_shard import Sample, ShardSet
from refit_shard.shards_spec.errors import FormatError, ShardError, UsageError
from tests.small import Own, index_rows, own, read_arrow, refit


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Ten rows in several shards."""
    tree = own(tmp_path_factory.mktemp("built"), rows=10)
    assert tree.build("--samples-per-shard", 4).code == 0
    return tree


def test_plain_webdataset_gives_images_and_named_labels(built: Own) -> None:
    urls = [str(path) for path in sorted(built.out.glob("*.tar"))]
    assert len(urls) == 3
    rows = {row["key"]: row for row in index_rows(built.out)}
    seen = []
    for sample in wds.WebDataset(urls, shardshuffle=False).decode("rgb8"):
        row = rows[sample["__key__"]]
        seen.append(sample["__key__"])
        image, labels = sample["jpg"], sample["npy"]
        assert image.shape == (row["height"], row["width"], 3)
        assert image.dtype == np.uint8
        assert labels["key"][()].decode() == sample["__key__"]
        assert labels["imgname"][()].decode() == row["imgname"]
        assert labels["keypoints"].shape == (49, 3)
        assert np.array_equal(labels["keypoints"].ravel(), row["keypoints"])
        assert np.array_equal(labels["pose_3d"].ravel(), row["pose_3d"])
        assert labels["scale"][()] == row["scale"]
    assert seen == list(rows)


def test_samples_are_those_of_the_npz(built: Own) -> None:
    data_set = ShardSet.open(str(built.out))
    assert len(data_set) == 10
    seen = set()
    for index in range(10):
        sample = data_set[index]
        row = int(sample["source_row"])
        seen.add(row)
        assert sample["key"] == f"own-{row:08d}"
        assert sample["imgname"] == built.names[row]
        assert np.array_equal(sample["pose"], built.columns["pose"][row].astype(np.float32))
        assert np.array_equal(sample["pose_3d"], built.columns["S"][row].astype(np.float32))
        image = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), 1)
        assert image is not None
        assert image.shape[:2] == (sample["height"], sample["width"])
        assert set(sample.labels) >= {"key", "imgname", "keypoints", "betas", "gender", "window"}
    assert seen == set(range(10))


def test_images_and_labels_are_views_into_the_map(built: Own) -> None:
    shard = ShardSet.open(str(built.out)).shard(1)
    tar = (built.out / f"{shard.name}.tar").read_bytes()
    first, second = shard.jpeg(0), shard.jpeg(1)
    assert isinstance(first, memoryview)
    assert isinstance(second, memoryview)
    assert first.readonly
    offsets = shard.view("jpg_offset")
    apart = np.frombuffer(second, np.uint8).ctypes.data - np.frombuffer(first, np.uint8).ctypes.data
    assert apart == int(offsets[1]) - int(offsets[0])
    assert bytes(first) == tar[int(offsets[0]) : int(offsets[0]) + len(first)]
    pose = shard.view("pose")
    assert pose.ctypes.data == shard.column("pose").values.buffers()[1].address
    assert np.shares_memory(pose, shard.sample(1)["pose"])
    for view in (pose, shard.sample(1)["pose"], shard.view("scale")):
        assert not view.flags.writeable


def test_the_map_outlives_the_set(built: Own) -> None:
    sample = ShardSet.open(str(built.out))[3]
    jpeg, pose = sample.jpeg, sample["pose"]
    del sample
    assert bytes(jpeg[:3]) == b"\xff\xd8\xff"
    assert np.isfinite(pose).all()


def test_the_index_opens_as_a_plain_table(built: Own) -> None:
    table = read_arrow(built.out / "own-000000.arrow")
    assert table.num_rows == len(table.column("key").chunk(0))
    assert table.equals(ShardSet.open(str(built.out)).shard(0).table())


@pytest.mark.parametrize("index", [-1, 10, 10**9])
def test_there_is_no_sample_outside(built: Own, index: int) -> None:
    with pytest.raises(IndexError, match="of 10"):
        ShardSet.open(str(built.out))[index]


def test_a_url_opens_the_same(built: Own) -> None:
    by_url = ShardSet.open(f"file://{built.out}")
    assert len(by_url) == 10
    assert bytes(by_url[4].jpeg) == bytes(ShardSet.open(str(built.out))[4].jpeg)
    with pytest.raises(UsageError, match="cannot open this URL"):
        ShardSet.open("nowhere://bucket/shards")


def test_a_folder_without_shards_and_an_unfinished_one_are_told_apart(
    built: Own, tmp_path: Path
) -> None:
    with pytest.raises(ShardError, match="no shards there"):
        ShardSet.open(str(tmp_path))
    (tmp_path / "own-000000.arrow").write_bytes((built.out / "own-000000.arrow").read_bytes())
    with pytest.raises(ShardError, match="its build is not finished"):
        ShardSet.open(str(tmp_path))


def copied(built: Own, folder: Path) -> Path:
    """Shards to spoil."""
    for path in built.out.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_tar_cut_short_is_an_error_not_a_crash(built: Own, tmp_path: Path) -> None:
    folder = copied(built, tmp_path)
    tar = folder / "own-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    data_set = ShardSet.open(str(folder))
    with pytest.raises(ShardError, match=r"own-000000\.tar: row \d+ ends at byte .* cut short"):
        [bytes(data_set[index].jpeg) for index in range(4)]


def test_an_index_of_other_columns_is_refused(built: Own, tmp_path: Path) -> None:
    import pyarrow as pa

    folder = copied(built, tmp_path)
    path = folder / "own-000000.arrow"
    table = read_arrow(path).drop_columns(["betas"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(FormatError, match="columns differ from the manifest's: betas"):
        ShardSet.open(str(folder)).shard(0)


@pytest.mark.parametrize(
    ("key", "value"), [("format_version", 2), ("format_version", 4), ("format", "other")]
)
@pytest.mark.parametrize("command", ["verify", "info", "preview"])
def test_another_format_is_refused_with_exit_code_2(
    built: Own, tmp_path: Path, command: str, key: str, value: object
) -> None:
    folder = copied(built, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    more = ["--out", tmp_path / "x.png"] if command == "preview" else []
    result = refit(command, folder, *more)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "manifest" in result.err


def test_a_sample_is_what_the_package_exports(built: Own) -> None:
    assert isinstance(ShardSet.open(str(built.out))[0], Sample)
