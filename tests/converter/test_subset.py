"""The 3DPW subset against ReFit's own draw and a reference crop, then through the build."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.trees import Tree, make_config, make_tree
from refit_shard import ShardSet
from refit_shard.converter.frames.resample import crop_box
from refit_shard.converter.subset.plan import crop_path, subset_rows
from refit_shard.loaders.items.draws import Augmentation
from refit_shard.loaders.items.making import render
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.shards_spec.errors import FrameError
from tests.refit_reference import ReferenceParams, psnr, reference_crop
from tests.small import Result, encoded, error_line, hashes, picture, refit, refit_command

ROWS = 7


class Folder:
    """A 3dpw_test tree with its data config; free to be spoilt."""

    def __init__(self, path: Path, tree: Tree) -> None:
        self.path = path
        shutil.copytree(tree.root.parent, path)
        self.tree = replace(
            tree,
            root=path / tree.root.relative_to(tree.root.parent),
            npz=path / tree.npz.relative_to(tree.root.parent),
        )
        self.config = make_config(path, [self.tree])
        self.target = path / "dataset_extras" / "3dpw_test_sub.npz"
        self.crops = self.tree.root / "imageCrops"

    def run(self, *args: object, rows: int = ROWS) -> Result:
        """Make the subset."""
        return refit("subset-3dpw", "--data-config", self.config, "--rows", rows, *args)

    def change(self, **columns: Any) -> None:
        """Write 3dpw_test's npz with some columns replaced; None leaves one out."""
        kept = {**np.load(self.tree.npz), **columns}
        np.savez(self.tree.npz, **{key: a for key, a in kept.items() if a is not None})

    def names(self) -> NDArray[Any]:
        """imgname of the full npz."""
        return np.asarray(np.load(self.tree.npz)["imgname"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Six frames of 3dpw_test, nine people."""
    return make_tree("3dpw_test", tmp_path_factory.mktemp("tree"), frames=6)


@pytest.fixture
def folder(tmp_path: Path, tree: Tree) -> Folder:
    """A fresh tree below a folder called imageFiles, which must not lead the names astray."""
    return Folder(tmp_path / "imageFiles" / "data.jpg", tree)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> Folder:
    """A subset that was made and built, to be looked at only."""
    folder = Folder(tmp_path_factory.mktemp("made") / "imageFiles", tree)
    assert folder.run().code == 0
    where = ["--data-config", folder.config, "--out", folder.path / "shards", "--workers", 0]
    assert refit("build", "--dataset", "3dpw_test_sub", *where).code == 0
    return folder


# ------------------------------------------------------------------------------------- plan


def test_rows_are_refits_for_3dpw_test() -> None:
    rows = subset_rows(35515, 3000, 0)
    assert rows[:10].tolist() == [6, 17, 18, 22, 62, 64, 65, 74, 91, 98]
    assert rows[-3:].tolist() == [35506, 35507, 35514]
    assert (len(rows), int(rows.sum())) == (3000, 54171763)


def test_rows_of_a_smaller_file_are_all_of_them() -> None:
    assert subset_rows(5, 3000, 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("imageFiles/seq/image_00000.jpg", "imageCrops/seq/image_00000_12.jpg"),
        ("imageFiles/imageFiles.jpg/a.jpg.jpg", "imageCrops/imageFiles.jpg/a.jpg_12.jpg"),
        ("imageFiles/seq/image_00000.JPG", "imageCrops/seq/image_00000_12.jpg"),
        ("imageFiles2/seq/a.jpg", None),
        ("seq/imageFiles/a.jpg", None),
        ("imageFiles/seq/a.png", None),
        ("imageFiles/seq/.jpg", None),
        ("imageFiles", None),
    ],
)
def test_only_the_first_folder_and_the_suffix_of_a_name_change(
    path: str, expected: str | None
) -> None:
    assert crop_path(path, 12) == expected


# ------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("side", [4.5, 41.0, 255.9, 256.3, 300.0, 511.7, 1300.0, 2600.0])
@pytest.mark.parametrize("center", [(541.3, 961.8), (-1.4, 3.6), (1079.0, 1900.2)])
def test_a_crop_is_refits_before_jpeg(
    pw3d_tree: Tree, side: float, center: tuple[float, float]
) -> None:
    frame = np.asarray(cv2.imread(str(next(iter(sorted(pw3d_tree.root.rglob("*.jpg")))))), np.uint8)
    expected = reference_crop(frame, center, side / 200, ReferenceParams())
    assert psnr(crop_box(frame, *center, side), expected) >= 80


def test_a_crop_of_noise_is_refits_too() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 700, 3)).astype(np.uint8)
    for side in (30.0, 257.0, 1111.0):
        expected = reference_crop(noise, (350, 450), side / 200, ReferenceParams())
        assert psnr(crop_box(noise, 350, 450, side), expected) >= 80


@pytest.mark.parametrize(
    ("cx", "cy", "side", "reason"),
    [
        (np.nan, 50, 40, "bad_box"),
        (50, np.inf, 40, "bad_box"),
        (50, 50, np.nan, "bad_box"),
        (50, 50, -40, "bad_box"),
        (50, 50, 1e12, "bad_box"),
        (500, 50, 40, "box_outside_image"),
    ],
)
def test_a_box_that_cannot_be_cut_is_refused(
    cx: float, cy: float, side: float, reason: str
) -> None:
    with pytest.raises(FrameError) as caught:
        crop_box(picture(0), cx, cy, side)
    assert caught.value.reason == reason


# ------------------------------------------------------------------------- what is on disk


def test_the_npz_has_every_key_at_the_drawn_rows(made: Folder) -> None:
    full, sub = np.load(made.tree.npz), np.load(made.target)
    rows = np.sort(np.random.RandomState(0).permutation(made.tree.rows)[:ROWS])
    assert set(sub) == {*full, "orig_shape"}
    assert sub["imgname"].dtype == np.dtype("<U80")
    assert sub["orig_shape"].tolist() == [[1920, 1080]] * ROWS
    for key in set(full) - {"imgname"}:
        np.testing.assert_array_equal(sub[key], full[key][rows])
        assert sub[key].dtype == full[key].dtype
    for name, row, old in zip(sub["imgname"], rows, full["imgname"][rows], strict=True):
        assert name == f"imageCrops/{old[11:-4]}_{row}.jpg"


def test_each_crop_is_its_rows(made: Folder) -> None:
    full, sub = np.load(made.tree.npz), np.load(made.target)
    files = [path for path in made.crops.rglob("*") if path.is_file()]
    assert len(files) == ROWS
    for name in sub["imgname"].tolist():
        row = int(name.rsplit("_", 1)[1].removesuffix(".jpg"))
        frame = np.asarray(cv2.imread(str(made.tree.root / full["imgname"][row])), np.uint8)
        box = full["center"][row], float(full["scale"][row])
        expected = reference_crop(frame, *box, ReferenceParams())
        _, coded = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 95])
        crop = cv2.imread(str(made.tree.root / name))
        assert crop is not None
        assert crop.shape == (256, 256, 3)
        again = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
        assert psnr(np.asarray(crop, np.uint8), again) >= 45  # OpenCV's encoder, its own rounding


def test_the_shards_hold_the_crops_byte_for_byte(made: Folder) -> None:
    shards = ShardSet.open(str(made.path / "shards" / "3dpw_test_sub"))
    assert len(shards) == ROWS
    for sample in (shards[index] for index in range(ROWS)):
        data = (made.tree.root / sample["imgname"]).read_bytes()
        assert bytes(sample.jpeg) == data
        item = render(sample, Augmentation(), RenderOptions(image="uint8"))
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        assert torch.equal(item["img"], torch.from_numpy(bgr[:, :, ::-1].copy()))
        assert item["orig_shape"].tolist() == [1920, 1080]
        assert item["img_center"].tolist() == [540, 960], "of the whole frame, not of the crop"
        assert abs(float(item["img_focal"]) - (1920**2 + 1080**2) ** 0.5) < 1e-3


def test_the_same_bytes_every_time(folder: Folder) -> None:
    assert folder.run("--workers", 1).code == 0
    first = hashes(folder.crops), folder.target.read_bytes()
    for path in folder.crops.rglob("*.jpg"):
        path.unlink()
    folder.target.unlink()
    assert folder.run("--workers", 3).code == 0
    assert (hashes(folder.crops), folder.target.read_bytes()) == first


def test_the_npz_goes_beside_3dpw_tests_where_the_config_names_none(folder: Folder) -> None:
    with folder.config.open("a") as file:
        file.write("del DATASET_FILES[0]['3dpw_test_sub']\n")
    assert folder.run().code == 0
    assert folder.target.is_file()


def test_absolute_names_below_the_root_and_names_in_bytes(folder: Folder) -> None:
    folder.change(imgname=np.array([f"{folder.tree.root}/{n}".encode() for n in folder.names()]))
    result = folder.run()
    assert result.code == 0, result.err
    assert all(name.startswith("imageCrops/") for name in np.load(folder.target)["imgname"])


# ------------------------------------------------------------------------------ going on


def report(result: Result) -> dict[str, Any]:
    """What ``--json`` prints."""
    content: dict[str, Any] = json.loads(result.out)
    return content


def test_whole_crops_are_kept_and_others_made_again(folder: Folder) -> None:
    assert report(folder.run("--json"))["written"] == ROWS
    whole = hashes(folder.crops)
    again = report(folder.run("--json"))
    assert (again["written"], again["kept"]) == (0, ROWS)
    files = sorted(folder.crops.rglob("*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:-700])
    files[1].write_bytes(b"")
    files[2].write_bytes(encoded(".jpg", picture(1)))  # another program's
    files[3].unlink()
    left = files[3].with_name(f".{files[3].name}.0123abcd.tmp")
    left.write_bytes(b"half")
    again = report(folder.run("--json"))
    assert (again["written"], again["kept"]) == (4, ROWS - 4)
    assert hashes(folder.crops) == whole


def test_another_box_or_frame_is_cut_again(folder: Folder) -> None:
    assert folder.run().code == 0
    folder.change(scale=np.load(folder.tree.npz)["scale"] * 1.1)
    assert report(folder.run("--json"))["kept"] == 0
    for name in set(folder.names().tolist()):
        (folder.tree.root / name).write_bytes(encoded(".jpg", picture(3, 1080, 1920)))
    assert report(folder.run("--json"))["kept"] == 0


def test_interrupted_it_leaves_nothing_half_and_goes_on(folder: Folder) -> None:
    command = refit_command("subset-3dpw", "--data-config", folder.config, "--workers", 1)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(folder.crops.rglob("*.jpg")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    if process.returncode == 130:
        assert "run the same command again" in said
        assert "Traceback" not in said
        assert not folder.target.exists()
    assert not list(folder.crops.rglob("*.tmp"))
    assert report(folder.run("--json", rows=3000))["kept"] >= 1
    assert folder.target.is_file()


# ------------------------------------------------------------------------------- bad input


def test_rows_without_a_readable_frame_are_listed_and_no_npz_is_written(folder: Folder) -> None:
    names = sorted(set(folder.names().tolist()))
    (folder.tree.root / names[0]).unlink()
    path = folder.tree.root / names[1]
    path.write_bytes(path.read_bytes()[:5000])
    result = folder.run(rows=3000)
    assert result.code == 1
    assert f"{names[0]}: missing" in result.out
    assert f"{names[1]}: corrupt" in result.out
    assert "was not written" in error_line(result)
    assert not folder.target.exists()
    found = report(folder.run("--json", rows=3000))
    assert {fault["path"] for fault in found["faults"]} == set(names[:2])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"imgname": "seq/image_00000.jpg"}, "must be imageFiles/SEQUENCE/NAME.jpg"),
        ({"imgname": "../imageFiles/a.jpg"}, "must be imageFiles/SEQUENCE/NAME.jpg"),
        ({"imgname": "imageFiles/../../a.jpg"}, "must be imageFiles/SEQUENCE/NAME.jpg"),
        ({"imgname": f"imageFiles/{'s' * 70}/a.jpg"}, "imgname holds 80"),
        ({"imgname": 3.0}, "must be strings"),
        ({"center": "here"}, "must be 2 numbers a row"),
        ({"scale": None}, "key 'scale' is missing"),
    ],
)
def test_an_npz_that_is_not_3dpw_tests_is_one_line(
    folder: Folder, columns: dict[str, Any], words: str
) -> None:
    count = folder.tree.rows
    folder.change(**{k: v if v is None else np.array([v] * count) for k, v in columns.items()})
    result = folder.run()
    assert result.code == 1
    assert words in error_line(result)
    assert not folder.crops.exists()


def test_pickled_and_uneven_arrays_are_refused(folder: Folder) -> None:
    folder.change(gender=np.zeros(3))
    assert "must have" in error_line(folder.run())
    folder.change(gender=np.array([{"m": 1}] * folder.tree.rows, dtype=object))
    result = folder.run()
    assert result.code == 1
    assert "unpickling" in error_line(result)


def test_bad_boxes_are_faults(folder: Folder) -> None:
    scale = np.load(folder.tree.npz)["scale"]
    scale[0], scale[1], scale[2] = np.nan, -1.0, 1e300
    shape = np.full((folder.tree.rows, 2), [1920.0, 1080.0])
    shape[3] = np.nan
    shape[4] = 1080, 1920
    folder.change(scale=scale, orig_shape=shape)
    found = report(folder.run("--json", rows=3000))
    reasons = {fault["row"]: fault["reason"] for fault in found["faults"]}
    assert reasons == dict.fromkeys(range(3), "bad_box") | dict.fromkeys((3, 4), "size_mismatch")


def test_wrong_use_is_one_line_and_exit_2(folder: Folder, tmp_path: Path) -> None:
    for args in (("--rows", 0), ("--seed", -1), ("--workers", -1), ("--seed", 2**40)):
        result = folder.run(*args)
        assert result.code == 2
        assert args[0] in error_line(result)
    assert refit("subset-3dpw", "--data-config", tmp_path / "none.py").code == 2
    with folder.config.open("a") as file:
        file.write("DATASET_FILES[0]['3dpw_test_sub'] = DATASET_FILES[0]['3dpw_test']\n")
    result = folder.run()
    assert result.code == 2
    assert "one file for 3dpw_test and for 3dpw_test_sub" in error_line(result)


def test_a_second_run_at_the_same_time_is_refused(folder: Folder) -> None:
    import fcntl

    folder.crops.mkdir()
    descriptor = os.open(folder.crops / ".build.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    result = folder.run()
    os.close(descriptor)
    assert result.code == 2
    assert "another subset-3dpw" in error_line(result)
