"""Annotations read in slices: the same as whole, whatever the slices; little memory; no surprises
from a file that changes, a folder that is full, or damage that comes late.
"""

import errno
import hashlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.big_npz import make_big_npz
from refit_shard.converter.annotations import npz, spool
from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.source import Annotations, read_annotations
from refit_shard.converter.build.driver import build, prepare
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.shards_spec.errors import SourceError
from tests.searches import examples
from tests.small import error_line, hashes, own

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays(rows: int, seed: int) -> Arrays:
    """An npz's arrays, of several kinds and orders."""
    rng = np.random.default_rng(seed)
    return {
        "imgname": np.array([f"seq/{frame:05d}.png" for frame in rng.integers(0, rows, rows)]),
        "center": np.asfortranarray(rng.uniform(10, 900, (rows, 2))),
        "scale": rng.uniform(0.1, 3.0, rows).astype("U32"),
        "part": rng.normal(size=(rows, 72)).astype(">f4"),
        "openpose": rng.normal(size=(rows, 25, 3)),
        "pose": rng.normal(size=(rows, 72)),
        "shape": np.asfortranarray(rng.normal(size=(rows, 10))),
        "has_smpl": rng.integers(0, 2, (rows, 1)),
        "S": rng.normal(size=(rows, 24, 4)),
        "gender": rng.choice(["m", "female", "?"], rows),
        "orig_shape": rng.integers(100, 900, (rows, 2)),
    }


def expected(given: Arrays) -> Arrays:
    """The labels of all rows, from the description of the columns."""
    rows = len(given["imgname"])
    known = given["has_smpl"].reshape(rows) != 0
    keypoints = np.concatenate(
        [given["openpose"].astype("f4"), given["part"].astype("f4").reshape(rows, 24, 3)], axis=1
    )
    return {
        "center": given["center"],
        "scale": given["scale"].astype(float),
        "keypoints": keypoints,
        "pose": np.where(known[:, None], given["pose"], 0).astype("f4"),
        "betas": np.where(known[:, None], given["shape"], 0).astype("f4"),
        "has_smpl": known,
        "pose_3d": given["S"].astype("f4"),
        "has_pose_3d": np.ones(rows, bool),
        "gender": np.array([{"m": 0, "female": 1, "?": -1}[one] for one in given["gender"]]),
        "has_camcalib": np.zeros(rows, bool),
        "orig_shape": given["orig_shape"].astype(float),
    }


def read(path: Path, limit: int | None = None) -> Annotations:
    """As a build reads it."""
    return read_annotations(str(path), "/frames", use_pose_3d=True, limit=limit)


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rows=st.integers(1, 40), compressed=st.booleans())
def test_slices_of_any_size_give_every_row_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    rows: int,
    compressed: bool,
) -> None:
    monkeypatch.setattr(npz, "_SLICE_BYTES", data.draw(st.integers(1, 100_000)))
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", data.draw(st.sampled_from([1, 1 << 20])))
    given_arrays = arrays(rows, rows)
    path = tmp_path / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, **given_arrays)  # type: ignore[arg-type]
    limit = data.draw(st.none() | st.integers(1, 50))
    source = read(path, limit)
    wanted = expected(given_arrays)
    used = min(rows, limit or rows)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.paths == given_arrays["imgname"][:used].tolist()
    asked = data.draw(st.lists(st.integers(0, used - 1)))
    for chosen in (range(used), asked):
        found = source.take(chosen)
        assert found.keys() == wanted.keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, wanted[name][list(chosen)], err_msg=name)
    for name, values in source.labels.items():
        np.testing.assert_array_equal(values, wanted[name][:used], err_msg=name)


def test_faults_have_their_own_rows_in_every_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_SLICE_BYTES", 1)  # a row at a time
    bad = arrays(12, 0)
    bad["imgname"][2] = "../out.png"
    bad["center"][5] = np.nan
    bad["pose"][7, 3] = np.inf
    bad["has_smpl"][7] = 1
    bad["orig_shape"][9] = 0
    for values in bad.values():
        values[11] = values[1]
    np.savez(tmp_path / "own.npz", **bad)  # type: ignore[arg-type]
    faults = read(tmp_path / "own.npz").faults
    assert {row: fault.reason for row, fault in faults.items()} == {
        2: "path_outside_root",
        5: "bad_box",
        7: "nonfinite_label",
        9: "size_mismatch",
        11: "duplicate_row",
    }
    assert faults[5].detail == f"center [nan, nan], scale {float(bad['scale'][5])}"
    assert faults[11].detail == "the same as row 1 in every label"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("limit", [None, 2])
def test_damage_of_the_last_row_is_found_and_no_thread_is_left(
    tmp_path: Path, save: Callable[..., None], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that row is not asked for, since the npz is not what was saved."""
    monkeypatch.setattr(npz, "_SLICE_BYTES", 10_000)
    given_arrays = arrays(60, 0)
    path = tmp_path / "own.npz"
    save(path, **given_arrays)
    data = bytearray(path.read_bytes())
    at = data.index(b"gender.npy") - 100  # among the last bytes of S
    data[at] ^= 1
    path.write_bytes(data)
    before = threading.active_count()
    with pytest.raises(SourceError, match="'S' is damaged"):
        read(path, limit)
    assert threading.active_count() == before


def test_an_npz_that_is_written_over_while_the_build_runs_changes_no_byte(tmp_path: Path) -> None:
    """Its labels were read with its hash, before."""
    tree = own(tmp_path)
    assert tree.build("--samples-per-shard", 2).code == 0
    wanted = hashes(tree.out)
    request = BuildRequest(
        dataset=Dataset(name="own", root_variable=""),
        npz=str(tree.npz),
        root=str(tree.root),
        out=str(tmp_path / "again"),
        options=BuildOptions(samples_per_shard=2),
        workers=0,
    )
    prepared = prepare(request)
    tree.npz.write_bytes(b"something else")
    build(prepared, lambda _: None)
    assert hashes(tmp_path / "again") == wanted


def test_a_full_or_missing_folder_for_temporary_files_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = own(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert tree.build().code == 0  # few labels stay in memory
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", 1)
    line = error_line(tree.build("--overwrite"))
    assert "temporary files (TMPDIR): no such file or folder" in line
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tree.build("--overwrite").code == 0

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    assert "(TMPDIR): no space left; free some" in error_line(tree.build("--overwrite"))


PLANNED = """
import sys
from benchmarks.build_cases import plan_big
from benchmarks.harness import peak_memory
from pathlib import Path
before = peak_memory()
print(plan_big(Path(sys.argv[1]), Path(sys.argv[2]))["peak_bytes"] - before)
"""


def test_planning_holds_a_part_of_the_labels(tmp_path: Path) -> None:
    """150 MB of them are read; names, plan and the slices at work take less than half of that."""
    npz = tmp_path / "big.npz"
    make_big_npz(npz, 50_000)
    assert npz.stat().st_size > 150e6
    command = [sys.executable, "-c", PLANNED, str(npz), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 75e6
