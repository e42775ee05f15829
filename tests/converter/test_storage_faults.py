"""A full disk, folders that cannot be written, and shards that fail: one line, and go on."""

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refit_shard.converter.build.accounting import misplaced
from tests.small import (
    Own,
    Result,
    error_line,
    hashes,
    index_rows,
    own,
    quarantine,
    refit,
    refit_process,
)

SHARDED = ("--samples-per-shard", 2)


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """Nothing built yet."""
    return own(tmp_path, rows=8)


def undisturbed(tree: Own) -> dict[str, str]:
    """The hashes of a build that nothing disturbs."""
    out = tree.folder / "undisturbed"
    where = ["--root", tree.root, "--name", "own", "--out", out, "--workers", 0]
    assert refit("build", "--npz", tree.npz, *where, *SHARDED).code == 0
    return hashes(out / "own")


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    calls: list[int] = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 9:  # two files and their folder for each of two shards
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        result = tree.build(*SHARDED)
    assert result.code == 1
    assert "no space left; free some and run the same command again" in error_line(result)
    assert not (tree.out / "manifest.json").exists()
    assert not list(tree.out.glob("*.tmp"))
    assert 1 <= len(list(tree.out.glob("*.arrow"))) < 4
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == undisturbed(tree)


def limit_files(size: int) -> Callable[[], None]:
    """Let no file grow beyond ``size`` bytes; to be called in a child."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_file_size_limit_ends_a_real_write_with_one_line(tree: Own) -> None:
    result = refit_process(*tree.command(), preexec_fn=limit_files(6000))
    assert result.code == 1
    assert "own-000000.tar: the file would exceed a size limit (ulimit -f)" in error_line(result)
    assert not any(path.is_file() for path in tree.out.iterdir())


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "the file system is read-only; choose another --out"),
        (errno.EACCES, "permission denied"),
        (errno.EDQUOT, "disk quota exceeded"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_folder_that_refuses_the_lock_is_one_line(
    tree: Own, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    real = os.open

    def refusing(path: Any, *args: Any, **options: Any) -> int:
        if str(path).endswith(".build.lock"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refusing)
    result = tree.build()
    assert result.code == 1
    assert said in error_line(result)
    assert str(tree.out) in error_line(result)


def test_an_out_below_a_file_is_one_line(tree: Own) -> None:
    file = tree.folder / "file"
    file.write_text("mine")
    where = ["--root", tree.root, "--name", "own", "--out", file / "shards", "--workers", 0]
    result = refit("build", "--npz", tree.npz, *where)
    assert result.code == 1
    assert str(file) in error_line(result)
    assert "Traceback" not in result.err
    assert file.read_text() == "mine"


def test_one_failing_shard_loses_none_of_the_others(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refit_shard.converter.build import driver
    from refit_shard.converter.build.work import build_shard

    def failing(recipe: Any, task: Any) -> Any:
        if task.index == 1:
            raise RuntimeError("planted")
        return build_shard(recipe, task)

    with monkeypatch.context() as patched:
        patched.setattr(driver, "build_shard", failing)
        result = tree.build(*SHARDED)
    assert result.code == 1
    assert "1 of 4 shards failed, the first, 1, with RuntimeError: planted" in error_line(result)
    assert {path.stem for path in tree.out.glob("*.arrow")} == {f"own-00000{i}" for i in (0, 2, 3)}
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == undisturbed(tree)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda rows: rows[:-1], "out, but: 1 missing (row 3);"),
        (lambda rows: [*rows, rows[0]], "out, but: 1 there more than once (row 2);"),
        # The sums are right here; the sets are not.
        (
            lambda rows: [rows[0], rows[0]],
            "out, but: 1 missing (row 3), 1 there more than once (row 2);",
        ),
    ],
)
def test_a_build_that_loses_or_doubles_a_row_fails(
    tree: Own, monkeypatch: pytest.MonkeyPatch, harm: Callable[[list[Any]], list[Any]], said: str
) -> None:
    from refit_shard.converter.build import work

    samples = work.ShardBuilder.samples

    def harmed(self: work.ShardBuilder) -> Any:
        found = list(samples(self))
        yield from harm(found) if self.task.index == 2 else found

    monkeypatch.setattr(work.ShardBuilder, "samples", harmed)
    result = tree.build(*SHARDED)
    assert result.code == 1
    assert (
        f"each of the 8 rows must be once in a shard, in quarantine or left {said}"
        in error_line(result)
    )
    assert not (tree.out / "manifest.json").exists()
    monkeypatch.undo()
    assert tree.build(*SHARDED).code == 1, "the wrong shard stands, and is whole"
    assert tree.build(*SHARDED, "--overwrite").code == 0
    assert sorted(row["source_row"] for row in index_rows(tree.out)) == list(range(8))


@given(
    places=st.lists(st.sampled_from(["shard 0", "shard 1", "quarantine"]), max_size=30),
    left_out=st.integers(0, 5),
    data=st.data(),
)
def test_the_account_is_one_of_sets(places: list[str], left_out: int, data: st.DataObject) -> None:
    found = {name: [r for r, at in enumerate(places) if at == name] for name in set(places)}
    rows = len(places) + left_out
    runs = [(len(places), rows)] if left_out else []

    def account(found: dict[str, list[int]]) -> str | None:
        shards = [np.array(found.get(name, []), np.int64) for name in ("shard 0", "shard 1")]
        return misplaced(rows, runs, shards, found.get("quarantine", []))

    assert account(found) is None
    if not places:
        return
    name = data.draw(st.sampled_from(sorted(found)))
    at = data.draw(st.integers(0, len(found[name]) - 1))
    other = data.draw(st.integers(-2, rows + 2).filter(lambda row: row != found[name][at]))
    harmed = {**found, name: [*found[name][:at], other, *found[name][at + 1 :]]}
    said = account(harmed)
    assert said is not None
    assert f"1 missing (row {found[name][at]})" in said
    assert ("more than once" if 0 <= other < rows else "unknown") in said


def test_of_several_data_sets_one_that_fails_does_not_stop_the_next(tmp_path: Path) -> None:
    trees = {name: own(tmp_path / name) for name in ("coco", "mpii")}
    trees["coco"].save(scale=None)
    lines = [f"COCO_ROOT = {str(trees['coco'].root)!r}", f"MPII_ROOT = {str(trees['mpii'].root)!r}"]
    files = {name: str(tree.npz) for name, tree in trees.items()}
    config = tmp_path / "config.py"
    config.write_text("\n".join([*lines, f"DATASET_FILES = [{{}}, {files!r}]"]))
    where = ["--data-config", config, "--out", tmp_path / "out", "--workers", 0, "--json"]
    result = refit("build", "--dataset", "coco", "--dataset", "mpii", *where)
    assert result.code == 1
    assert "key 'scale' is missing" in error_line(result)
    said = json.loads(result.out)
    assert [one["dataset"] for one in said["built"]] == ["mpii"]
    assert len(said["errors"]) == 1
    assert refit("verify", tmp_path / "out" / "mpii").code == 0


def cropped(tmp_path: Path, **changed: Any) -> tuple[Own, Path]:
    """A tree of crops that are to be stored as they are, and where its shards go."""
    tree = own(tmp_path)
    tree.save(**changed)
    config = tmp_path / "config.py"
    root = f"PW3D_ROOT = {str(tree.root)!r}"
    config.write_text(f"{root}\nDATASET_FILES = [{{'3dpw_test_sub': {str(tree.npz)!r}}}]\n")
    return tree, config


def build_cropped(tmp_path: Path, config: Path) -> Result:
    """Build ``3dpw_test_sub``."""
    where = ["--data-config", config, "--out", tmp_path / "out", "--workers", 0, "--max-bad", 0.9]
    smaller_than_true_crops = "--skip-checks"
    return refit("build", "--dataset", "3dpw_test_sub", *where, smaller_than_true_crops)


def test_crops_are_stored_byte_for_byte(tmp_path: Path) -> None:
    shapes = np.tile([1920, 1080], (6, 1))
    tree, config = cropped(tmp_path, orig_shape=shapes)
    assert build_cropped(tmp_path, config).code == 0
    out = tmp_path / "out" / "3dpw_test_sub"
    for row in index_rows(out):
        begin = row["jpg_offset"]
        data = (out / f"{row['shard']}.tar").read_bytes()[begin : begin + row["jpg_length"]]
        assert data == (tree.root / row["imgname"]).read_bytes()
        cx, cy = row["center"]
        half = 100 * row["scale"]
        assert row["window"] == [int(cx - half), int(cy - half), int(cx + half), int(cy + half)]
        assert row["orig_shape"] == [1920, 1080]
    assert refit("verify", out).code == 0


@pytest.mark.parametrize(
    ("key", "value"), [("center", 1e300), ("center", 1e12), ("scale", 1e12), ("orig_shape", 1e300)]
)
def test_numbers_beyond_the_columns_types_are_quarantined(
    tmp_path: Path, key: str, value: float
) -> None:
    shapes = np.tile([1920.0, 1080.0], (6, 1))
    tree, config = cropped(tmp_path, orig_shape=shapes)
    tree.columns[key][3] = value
    tree.save()
    result = build_cropped(tmp_path, config)
    assert result.code == 0, result.err
    assert list(quarantine(tmp_path / "out" / "3dpw_test_sub")) == [3]
