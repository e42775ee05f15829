"""The command around the importers: what it takes, what it writes, what it leaves."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.annotations import (
    bedlam_scene,
    eft_entry,
    sequence_3dpw,
    write_annot,
    write_eft,
    write_npz,
    write_pickle,
)
from benchmarks.bench_import import QUICK, make_sources
from refit_shard.converter.annotations.source import read_annotations
from refit_shard.converter.importers import mpi_inf_3dhp
from refit_shard.converter.importers.run import plan_import, run_import
from tests.converter.importers.command import imported, refused
from tests.small import error_line, hashes, refit


@pytest.fixture
def eft(tmp_path: Path) -> Path:
    """A small json of EFT's."""
    return write_eft(
        tmp_path / "COCO2014-All-ver01.json", [eft_entry(f"{i}.jpg", i) for i in range(3)]
    )


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, eft: Path) -> None:
    """Also at another time; numpy reads them, and no object is in them."""
    for name in ("a.npz", "b.npz"):
        imported(tmp_path / name, eft)
        os.utime(eft, (1, 1))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_file_that_stands_goes_for_overwrite_alone(tmp_path: Path, eft: Path) -> None:
    out = tmp_path / "o.npz"
    out.write_bytes(b"mine")
    result = refit("import-annotations", eft, "--out", out)
    assert result.code == 2
    assert "exists already; --overwrite replaces a file" in error_line(result)
    broken = write_eft(tmp_path / "broken.json", [{}])
    assert refit("import-annotations", broken, "--out", out, "--overwrite").code == 1
    assert out.read_bytes() == b"mine"
    assert len(imported(out, eft, also=["--overwrite"])["scale"]) == 3
    (tmp_path / "folder.npz").mkdir()
    assert (
        refit("import-annotations", eft, "--out", tmp_path / "folder.npz", "--overwrite").code == 2
    )


def test_json_says_everything(tmp_path: Path, eft: Path) -> None:
    result = refit("import-annotations", eft, "--out", tmp_path / "new/folder/o.npz", "--json")
    assert result.code == 0
    said = json.loads(result.out)
    assert said.pop("seconds") >= 0
    assert said == {
        "dataset": "coco",
        "npz": str(tmp_path / "new/folder/o.npz"),
        "files": 1,
        "rows": 3,
        "left_out": {},
        "keys": ["imgname", "center", "scale", "openpose", "part", "pose", "shape", "has_smpl"],
        "absent": {"S": "EFT has no 3D joints"},
        "notes": [],
    }
    assert result.err == ""


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (["--dataset", "agora"], "--dataset: must be one of 'coco', 'mpii', 'mpi-inf-3dhp'"),
        (["--workers", "0"], "--workers: must be a whole number from 1"),
        (["--smpl", "nowhere"], "--smpl nowhere: has no SMPL_NEUTRAL.pkl"),
        (
            ["--dataset", "h36m"],
            "not annotations that can be imported, which are: the folder that holds Human3.6M",
        ),
        (["--out", "o.npy"], "must end in .npz"),
        (["--out", "s3://bucket/o.npz"], "--out: must be on this machine"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, eft: Path, also: list[str], said: str) -> None:
    result = refused(tmp_path / "o.npz", eft, also=also)
    assert result.code == 2
    assert said in error_line(result)


def test_what_no_importer_knows_is_told_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for source in ("data.tar", "folder"):
        result = refused(tmp_path / "o.npz", tmp_path / source)
        assert result.code == 2
        line = error_line(result)
        for known in (
            "COCO2014-All-ver01.json",
            "annot.mat",
            "sequenceFiles.zip",
            ".cdf",
            "BEDLAM",
        ):
            assert known in line
    assert "no such file" in error_line(refused(tmp_path / "o.npz", tmp_path / "nothing"))


def test_a_source_that_has_no_end_is_refused_unread(tmp_path: Path) -> None:
    """A device would fill the memory, and a FIFO be waited for."""
    os.mkfifo(tmp_path / "fifo.json")
    for source in ("/dev/zero", tmp_path / "fifo.json"):
        result = refused(tmp_path / "out.npz", source)
        assert "not a plain file or folder" in error_line(result)


def test_sources_of_two_kinds_or_twice_the_same_are_refused(tmp_path: Path, eft: Path) -> None:
    scene = write_npz(tmp_path / "scene.npz", bedlam_scene(2))
    assert "import each into its own npz" in error_line(refused(tmp_path / "o.npz", eft, scene))
    link = tmp_path / "link.json"
    link.symlink_to(eft)
    assert "given twice" in error_line(refused(tmp_path / "o.npz", eft, link))


def test_no_row_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    content = {**sequence_3dpw(5, 2), "campose_valid": [np.zeros(5), np.zeros(5)]}
    result = refused(tmp_path / "o.npz", write_pickle(tmp_path / "s.pkl", content))
    assert result.code == 1
    assert "no row is left (10 the camera's pose is not valid)" in error_line(result)
    line = error_line(refused(tmp_path / "o.npz", write_eft(tmp_path / "e.json", [])))
    assert "no row is left (it holds none)" in line


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, eft: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = refit("import-annotations", eft, "--out", tmp_path / "file/o.npz")
    assert result.code == 1
    assert "--out" in error_line(result) or "file" in error_line(result)


def test_every_kind_s_npz_is_one_that_a_build_reads(tmp_path: Path) -> None:
    """All rows are usable, and no key is one that a build does not know."""
    for name, request in make_sources(tmp_path / "made", QUICK).items():
        summary = run_import(plan_import(request), lambda _: None)
        source = read_annotations(summary.npz, "/frames", use_pose_3d=True)
        assert source.rows == summary.rows > 0, name
        assert not source.faults, name
        assert not source.unused, name
        assert set(source.found) == set(summary.keys), name


def test_sources_are_read_and_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    for name in ("b", "a"):
        write_npz(folder / f"{name}.npz", bedlam_scene(3))
    before = hashes(folder)
    imported(tmp_path / "o.npz", folder)
    assert hashes(folder) == before


def test_an_interrupted_import_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while sequences are read: one line, 130, no file; what stood is as it was."""

    def interrupt(*_arguments: object) -> int:
        raise KeyboardInterrupt

    for sequence in (1, 2):
        write_annot(tmp_path, 1, sequence, {0: np.ones((2, 56))}, {0: np.ones((2, 84))})
    monkeypatch.setattr(mpi_inf_3dhp, "_add_camera", interrupt)
    before = hashes(tmp_path)
    result = refit("import-annotations", tmp_path, "--out", tmp_path / "o.npz")
    assert result.code == 130
    assert error_line(result) == "refit-shard: interrupted"
    assert hashes(tmp_path) == before
