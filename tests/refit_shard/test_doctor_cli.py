"""``refit-shard doctor`` as a user meets it: a good data folder, and one fault after another."""

import json
import os
import pty
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.trees import Tree, make_config, make_tree
from tests.small import Result, error_line, hashes, refit, refit_command

PICKLES = Path(__file__).parent.parent / "loaders" / "pickles"


@dataclass
class Folder:
    """A data folder; its files are free to be spoilt."""

    path: Path

    @property
    def config(self) -> Path:
        """Its data_config.py."""
        return self.path / "data_config.py"

    def doctor(self, *args: object) -> Result:
        """Examine it."""
        return refit("doctor", "--data-config", self.config, *args)

    def findings(self, *args: object) -> tuple[int, list[dict[str, Any]]]:
        """The exit code and what is not fine."""
        result = self.doctor("--json", *args)
        content = json.loads(result.out)
        assert content["ready"] is (result.code == 0)
        found = [one for one in content["findings"] if one["status"] != "ok"]
        assert all(one["fix"] for one in found)
        return result.code, [one for one in found if one["subject"] != "extras"]

    def yaml(self, *names: str) -> Path:
        """A training config."""
        path = self.path / "train.yaml"
        ratios = [1.0] + [0.0] * (len(names) - 1)
        path.write_text(f"DATASET:\n  LIST: [{', '.join(names)}]\n  PARTITION: {ratios}\n")
        return path

    def append(self, line: str) -> None:
        """Change the data config."""
        with self.config.open("a") as file:
            file.write(line + "\n")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> list[Tree]:
    """Small trees of three datasets."""
    folder = tmp_path_factory.mktemp("trees")
    frames = {"bedlam": 4, "coco": 6, "3dpw": 3}
    return [make_tree(name, folder, frames=count) for name, count in frames.items()]


@pytest.fixture
def folder(tmp_path: Path, trees: list[Tree], monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A copy of the trees, in which the command runs."""
    path = tmp_path / "data"
    shutil.copytree(trees[0].root.parent, path)
    moved = [Tree(t.name, path / t.root.name, t.npz, t.rows, t.frames) for t in trees]
    make_config(path, moved)
    monkeypatch.chdir(path)
    return Folder(path)


def test_a_good_folder_is_ready(folder: Folder) -> None:
    before = hashes(folder.path)
    result = folder.doctor()
    assert result.code == 0, result.out
    lines = result.out.splitlines()
    assert lines[-1].startswith("ready: ")
    for name in ("bedlam", "coco", "3dpw"):
        mine = [line for line in lines if f"  {name} " in line]
        assert all(line.startswith("ok ") for line in mine)
        assert len(mine) >= 5
    assert "1 of 4 frames are stored on their side" in result.out
    assert not [line for line in lines if "mpii" in line]
    assert hashes(folder.path) == before


def test_a_missing_npz_is_a_warning_where_its_root_serves_another(folder: Folder) -> None:
    code, found = folder.findings()
    assert code == 0
    assert {(one["subject"], one["check"], one["status"]) for one in found} == {
        ("3dpw_test", "npz", "warn"),
        ("3dpw_test_sub", "npz", "warn"),
    }
    assert found[1]["fix"] == "make it: refit-shard subset-3dpw"
    (folder.path / "dataset_extras" / "coco_2014_eft.npz").unlink()
    code, found = folder.findings()
    assert code == 1
    assert [one["subject"] for one in found if one["status"] == "fail"] == ["coco"]


def test_what_a_training_config_names_must_be_there(folder: Folder) -> None:
    assert folder.findings("--config", folder.yaml("bedlam", "coco")) == (0, [])
    code, (one,) = folder.findings("--config", folder.yaml("bedlam", "3dpw_test"))
    assert (code, one["subject"], one["check"], one["status"]) == (1, "3dpw_test", "npz", "fail")
    code, found = folder.findings("--config", folder.yaml("mpii"))
    assert code == 1
    assert "MPII_ROOT is empty in" in found[0]["detail"]
    assert "human-pose.mpi-inf.mpg.de" in found[0]["fix"]


def test_body_models_are_needed_to_evaluate(folder: Folder) -> None:
    result = folder.doctor("--config", folder.yaml("3dpw_test"))
    assert result.code == 1
    assert "FAIL  extras         SMPL_MALE" in result.out
    assert "FAIL  extras         H36M regressor" in result.out
    assert "WARN  extras         SMPL_MALE" in folder.doctor().out


def test_extras_that_are_there(folder: Folder) -> None:
    smpl = folder.path / "smpl"
    smpl.mkdir()
    np.save(smpl / "J_regressor_h36m.npy", np.zeros((17, 30)))
    chumpys = PICKLES / "chumpy_python2_protocol2.pkl"
    for name in ("SMPL_MALE.pkl", "SMPL_FEMALE.pkl", "SMPL_NEUTRAL.pkl"):
        shutil.copy(chumpys, smpl / name)
    pretrain = folder.path / "data" / "pretrain"
    pretrain.mkdir(parents=True)
    (pretrain / "pose_hrnet_w48_256x192.pth").write_bytes(b"<html>too many users</html>")
    (folder.path / "dataset_extras" / "pascal_occluders.pkl").write_bytes(b"\x80\x02.")
    result = folder.doctor()
    assert result.code == 1
    for check in ("SMPL_NEUTRAL", "SMPL_MALE", "SMPL_FEMALE", "H36M regressor"):
        assert f"ok    extras         {check}" in result.out
    assert "pose_hrnet_w48_256x192.pth: is a web page" in result.out
    assert f"import-occluders {folder.path}/dataset_extras/pascal_occluders.pkl" in result.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"\x80\x02}q\x00.",
            "not an SMPL model: 'v_template' is missing or has a wrong number of axes",
        ),
        (b"cos\nsystem\n(S'true'\ntR.", "refused: it asks for os.system"),
        (b"\x80\x02}q\x00U\x01", "not a plain pickle"),
        (b"<html>please log in</html>", "is a web page"),
    ],
)
def test_body_models_are_opened(folder: Folder, content: bytes, said: str) -> None:
    """What the first validation would stop at is found now, with where to get another."""
    smpl = folder.path / "smpl"
    smpl.mkdir()
    (smpl / "SMPL_FEMALE.pkl").write_bytes(content)
    result = folder.doctor()
    assert result.code == 1
    (line,) = [one for one in result.out.splitlines() if "SMPL_FEMALE" in one]
    assert line.startswith("FAIL  extras")
    assert f"{smpl / 'SMPL_FEMALE.pkl'}: {said}" in line
    assert "-> download it from https://smpl.is.tue.mpg.de" in line


def test_roots(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCO_ROOT", "/nowhere/at/all")
    code, found = folder.findings("--config", folder.yaml("coco"))
    assert code == 1
    assert found[0]["check"] == "root"
    assert "environment variable COCO_ROOT" in found[0]["detail"]
    assert "set it to the folder that holds the images" in found[0]["fix"]
    monkeypatch.delenv("COCO_ROOT")
    folder.config.write_text("DATASET_FILES = []\n")
    code, (one,) = folder.findings()
    assert code == 1
    assert "no ROOT is set" in one["detail"]


def test_each_layout_variant_is_cured_as_proposed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = folder.yaml("coco")
    monkeypatch.setenv("COCO_ROOT", str(folder.path / "coco" / "train2014"))
    code, found = folder.findings("--config", yaml)
    assert code == 1
    assert [one["check"] for one in found] == ["present", "layout"]
    assert found[1]["fix"].startswith(f"set COCO_ROOT to {folder.path}/coco, or build with: ")
    remap = [part for text in found[1]["remaps"] for part in ("--remap", text)]
    build = ["build", "--data-config", folder.config, "--dataset", "coco", "--workers", 0]
    assert refit(*build, *remap).code == 0

    monkeypatch.delenv("COCO_ROOT")
    doubled = folder.path / "coco" / "coco"
    doubled.mkdir()
    (folder.path / "coco" / "train2014").rename(doubled / "train2014")
    code, found = folder.findings("--config", yaml)
    assert code == 1
    assert f"set COCO_ROOT to {doubled}" in found[1]["fix"]
    monkeypatch.setenv("COCO_ROOT", str(doubled))
    assert folder.findings("--config", yaml) == (0, [])


def test_every_planted_fault_is_listed_with_its_fix(folder: Folder) -> None:
    npz = folder.path / "dataset_extras" / "bedlam_train.npz"
    labels = dict(np.load(npz))
    labels["pose"][0, 0] = np.nan
    labels["scale"][1] = -1
    for values in labels.values():
        values[-1] = values[-2]
    np.savez(npz, **labels)
    frames = sorted((folder.path / "coco").rglob("*.jpg"))
    frames[0].unlink()
    frames[1].write_bytes(frames[1].read_bytes()[:2000])
    frames[2].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    result = folder.doctor("--all")
    assert result.code == 1
    for words in ("nonfinite_label", "bad_box", "duplicate_row", "corrupt", "lfs_pointer"):
        (line,) = [line for line in result.out.splitlines() if f": {words}; first, row" in line]
        assert " -> " in line
    assert "have no frame below" in result.out
    assert result.out.splitlines()[-1].startswith("not ready: ")


def test_all_frames_or_a_sample(folder: Folder) -> None:
    yaml = folder.yaml("coco")
    assert "2 of 6 frames checked" in folder.doctor("--config", yaml, "--sample", 2).out
    assert "6 of 6 frames checked" in folder.doctor("--config", yaml, "--all").out
    assert refit("doctor", "--all", "--sample", 3).code == 2
    result = folder.doctor("--sample", 0)
    assert result.code == 2
    assert "--sample: must be at least 1" in error_line(result)


def test_wrong_use_is_one_line_and_exit_2(folder: Folder) -> None:
    bad = folder.path / "bad.yaml"
    for text, words in (
        ("LOSS: {}\n", "must hold DATASET with LIST and PARTITION"),
        ("DATASET: {LIST: [imagenet], PARTITION: [1]}\n", "unknown dataset 'imagenet'"),
        ("{", "not YAML"),
    ):
        bad.write_text(text)
        result = folder.doctor("--config", bad)
        assert result.code == 2
        assert words in error_line(result)
    folder.append("raise RuntimeError('mine')")
    result = folder.doctor()
    assert result.code == 2
    assert "RuntimeError: mine" in error_line(result)


def test_a_root_that_cannot_be_reached_is_a_finding(folder: Folder) -> None:
    folder.append("COCO_ROOT = DATASET_FOLDERS['coco'] = 'nosuchscheme://bucket/coco'")
    result = folder.doctor("--config", folder.yaml("coco"))
    assert result.code == 1
    assert "cannot open this URL" in result.out


def test_on_a_terminal_each_fix_is_a_line_of_its_own_that_can_be_copied(folder: Folder) -> None:
    command = refit_command("doctor", "--data-config", folder.config, "--sample", 1)
    reader, writer = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=writer, stderr=writer, env=environment) as process:
        os.close(writer)
        said = b""
        while True:
            try:
                data = os.read(reader, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            said += data
    os.close(reader)
    assert process.returncode == 0
    text = said.decode()
    (fix,) = [line for line in text.splitlines() if "-> make it: refit-shard import-occ" in line]
    assert len(fix) > 60
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("coco", lambda path: path.with_name(path.name.removeprefix("COCO_train2014_"))),
        ("coco", lambda path: path.with_suffix(".JPG")),
        ("coco", lambda path: path.parent / "it's (a) $HOME" / path.name),
        ("bedlam", lambda path: path.with_suffix(".jpg")),
        ("bedlam", lambda path: path.parent.parent / "frames" / f"{path.stem}.jpg"),
        ("mpi-inf-3dhp", lambda path: path.with_name(path.name.removeprefix("frame_"))),
    ],
)
def test_the_very_command_that_is_printed_cures_other_names(
    folder: Folder, name: str, change: Callable[[Path], Path]
) -> None:
    if name not in ("coco", "bedlam"):
        make_config(folder.path, [make_tree(name, folder.path, frames=2)])
    root = folder.path / name.replace("-", "_")
    for path in [path for path in root.rglob("*") if path.is_file()]:
        change(path).parent.mkdir(parents=True, exist_ok=True)
        path.rename(change(path))
    said = folder.doctor("--config", folder.yaml(name)).out
    (line,) = [line for line in said.splitlines() if "another layout" in line]
    program, *command = shlex.split(line.partition("build with: ")[2])
    assert program == "refit-shard"
    result = refit(*command, "--workers", 0, "--max-bad", 0)
    assert result.code == 0, result.err
