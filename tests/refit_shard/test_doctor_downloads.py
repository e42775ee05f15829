"""What doctor says of annotations that are there as they were downloaded, but not as an npz."""

import glob
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import annotations as made
from refit_shard.converter.annotations.datasets import DATASETS
from refit_shard.converter.importers.run import ImportRequest, plan_import
from tests.small import hashes, refit


def eft(dbname: str, *names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            made.write_eft(folder / name, [made.eft_entry("a.jpg")], dbname)

    return write


def bedlam_zip(folder: Path) -> None:
    scene = made.write_npz(folder / "plain/scene.npz", made.bedlam_scene(3))
    made.write_zip(folder / "all_npz_12_training.zip", {"b/scene_6fps.npz": scene})
    made.write_zip(folder / "all_npz_12_smpl_training.zip", {"b/scene_6fps.npz": scene})


def bedlam_scenes(folder: Path) -> None:
    for number in range(2):
        scene = made.bedlam_scene(3, seed=number)
        made.write_npz(folder / f"2022101{number}_3_1000_batch01hand_6fps.npz", scene)
    np.savez(folder / "other_train.npz", imgname=["a.png"], center=[[1.0, 2]], scale=[1.0])


def pw3d_folder(folder: Path) -> None:
    for split in ("train", "test"):
        made.write_pickle(folder / f"sequenceFiles/{split}/s.pkl", made.sequence_3dpw(4, 1))


def pw3d_zip(folder: Path) -> None:
    pickle = made.write_pickle(folder / "plain/s.pkl", made.sequence_3dpw(4, 1))
    files = {f"sequenceFiles/{split}/s.pkl": pickle for split in ("train", "test")}
    made.write_zip(folder / "sequenceFiles.zip", files)


def mats(folder: Path) -> None:
    joints = {0: np.full((2, 56), 9.0)}
    made.write_annot(folder, 1, 1, joints, {0: np.zeros((2, 84))})


def cdfs(folder: Path) -> None:
    mask = np.pad(np.ones((4, 4), np.uint8), 9)
    made.write_h36m(folder, 1, "Eating.5501", np.zeros((1, 96)), np.zeros((1, 64)), [mask])


# Data set, what is there of it, and what is proposed below the folder that holds it.
DOWNLOADS = {
    "EFT's json": ("coco", eft("COCO2014-All", "COCO2014-All-ver01.json"), None),
    "more of EFT": (
        "coco",
        eft("COCO2014-Part", "COCO2014-Part-ver01.json", "COCO2014-All-ver01.json", "MPII.json"),
        "COCO2014-All-ver01.json",
    ),
    "EFT's MPII": ("mpii", eft("MPII", "MPII_ver01.json"), "MPII_ver01.json"),
    "BEDLAM's zip": ("bedlam", bedlam_zip, "all_npz_12_smpl_training.zip"),
    "BEDLAM's scenes": ("bedlam", bedlam_scenes, "*_6fps.npz"),
    "3DPW's folder": ("3dpw", pw3d_folder, "sequenceFiles"),
    "3DPW's zip": ("3dpw_test", pw3d_zip, "sequenceFiles.zip"),
    "3DHP's mats": ("mpi-inf-3dhp", mats, "."),
    "Human3.6M's cdf": ("h36m", cdfs, "."),
}


@pytest.mark.parametrize("name", DOWNLOADS)
@pytest.mark.parametrize("place", ["its root", "the npz's place"])
def test_doctor_proposes_a_command_that_makes_the_npz(
    name: str, place: str, tmp_path: Path
) -> None:
    """It can be given to a shell as it stands, though the folder's name has a space."""
    dataset, write, proposed = DOWNLOADS[name]
    root, extras = tmp_path / "my data", tmp_path / "my extras"
    root.mkdir()
    extras.mkdir()
    write(root if place == "its root" else extras)
    npz = extras / "the.npz"
    config = tmp_path / "data_config.py"
    variable = DATASETS[dataset].root_variable
    files = [{}, {dataset: str(npz)}]
    config.write_text(f"{variable} = {str(root)!r}\nDATASET_FILES = {files!r}\n")
    before = hashes(tmp_path)
    result = refit("doctor", "--data-config", config)
    assert result.code == 1
    assert hashes(tmp_path) == before
    (line,) = [line for line in result.out.splitlines() if "the.npz: missing" in line]
    command = line.partition(" -> make it: ")[2]
    program, what, source, *rest = shlex.split(command)
    assert [program, what] == ["refit-shard", "import-annotations"]
    assert rest == ["--dataset", dataset, "--out", str(npz)]
    holder = root if place == "its root" else extras
    if proposed is not None:
        assert Path(source) == holder / proposed
    sources = tuple(map(Path, glob.glob(source) or [source]))  # as a shell has it
    plan = plan_import(ImportRequest(sources=sources, out=npz, dataset=dataset))
    assert plan.files


def test_the_command_that_doctor_proposes_ends_in_an_npz(tmp_path: Path) -> None:
    bedlam_zip(tmp_path)
    config = tmp_path / "data_config.py"
    files = [{}, {"bedlam": "extras/bedlam_train.npz"}]
    config.write_text(f"BEDLAM_ROOT = {str(tmp_path)!r}\nDATASET_FILES = {files!r}\n")
    found = refit("doctor", "--data-config", config).out
    command = next(line for line in found.splitlines() if "make it: refit-shard" in line)
    made_by = shlex.split(command.partition("make it: refit-shard ")[2])
    assert refit(*made_by).code == 0
    again = refit("doctor", "--data-config", config).out
    assert "bedlam         npz              " in again
    assert "bedlam_train.npz: missing" not in again


@pytest.mark.parametrize("what", ["nothing", "cut zip", "SPIN's npz", "only train", "entry"])
def test_nothing_is_proposed_that_would_not_work(what: str, tmp_path: Path) -> None:
    dataset = "3dpw_test" if what == "only train" else "bedlam"
    entry: object = "bedlam.npz"
    if what == "cut zip":
        bedlam_zip(tmp_path)
        for path in tmp_path.glob("*.zip"):
            path.write_bytes(path.read_bytes()[:-40])
    elif what == "SPIN's npz":
        np.savez(tmp_path / "coco.npz", imgname=["a.png"], center=[[1.0, 2]], scale=[1.0])
    elif what == "only train":
        made.write_pickle(tmp_path / "sequenceFiles/train/s.pkl", made.sequence_3dpw(4, 1))
    elif what == "entry":
        entry = 3
    config = tmp_path / "data_config.py"
    files = [{}, {dataset: entry}]
    variable = DATASETS[dataset].root_variable
    config.write_text(f"{variable} = {str(tmp_path)!r}\nDATASET_FILES = {files!r}\n")
    result = refit("doctor", "--data-config", config)
    assert result.code == 1
    assert "import-annotations" not in result.out
    assert "internal error" not in result.err
