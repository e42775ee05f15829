"""Two builds are the same one where all is the same that decides rows, labels and pixels."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard.converter.annotations.datasets import DATASETS, Dataset
from refit_shard.converter.annotations.remaps import prefix_remap
from refit_shard.converter.annotations.source import frame_path
from refit_shard.converter.build.driver import Prepared, prepare
from refit_shard.converter.build.identity import first_difference
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.shards_spec.manifest import plan_hash
from tests.small import Own, Result, error_line, hashes, index_rows, own, quarantine, refit

SHARDED = ("--samples-per-shard", 2)


def build(tree: Own, root: object, *more: object, npz: object = None) -> Result:
    """Build the tree with its frames said to be below ``root``."""
    what = ["build", "--npz", npz or tree.npz, "--root", root, "--name", "own", "--max-bad", 1]
    return refit(*what, "--out", tree.out.parent, "--workers", 0, *SHARDED, *more)


def kept(result: Result) -> int:
    """How many shards a build with ``--json`` kept."""
    assert result.code == 0, result.err
    return int(json.loads(result.out)["built"][0]["kept_shards"])


def absolute(tree: Own, *roots: Path) -> None:
    """Give the rows absolute names, an equal part below each root."""
    part = -(-len(tree.names) // len(roots))
    names = [str(roots[row // part] / name) for row, name in enumerate(tree.names)]
    tree.save(imgname=np.array(names))


WAYS: dict[str, Callable[[Path], str]] = {
    "file URL": lambda root: f"file://{root}",
    "a slash at the end": lambda root: f"{root}/",
    "through a link": lambda root: str(linked(root)),
    "with dots": lambda root: f"{root}/a/..",
}


def linked(folder: Path) -> Path:
    """A symbolic link to a folder."""
    link = folder.with_name("link")
    link.symlink_to(folder)
    return link


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("names", ["relative", "absolute"])
def test_the_same_root_however_written_is_the_same_build(
    tmp_path: Path, way: str, names: str
) -> None:
    tree = own(tmp_path, rows=8)
    if names == "absolute":
        absolute(tree, tree.root)
    assert build(tree, tree.root).code == 0
    before = hashes(tree.out)
    assert kept(build(tree, WAYS[way](tree.root), "--json")) == 4
    assert hashes(tree.out) == before


def test_names_through_a_link_are_found_below_the_true_root_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    tree = own(tmp_path, rows=4)
    link = linked(tree.root)
    for written, root in ((link, tree.root), (tree.root, link)):
        absolute(tree, written)
        assert build(tree, root, "--overwrite").code == 0
        assert quarantine(tree.out) == {}


def test_a_set_that_was_moved_is_the_same_build(tmp_path: Path) -> None:
    tree = own(tmp_path / "here", rows=8)
    assert build(tree, tree.root).code == 0
    before = hashes(tree.out)
    moved = shutil.move(tree.root, tmp_path / "frames of the same")
    npz = shutil.copy(tree.npz, tmp_path / "other name.npz")
    assert kept(build(tree, moved, "--json", npz=npz)) == 4
    assert kept(build(tree, moved, "--json", "--remap", "nowhere/=a/", npz=f"file://{npz}")) == 4
    assert hashes(tree.out) == before


def test_another_root_is_refused_and_nothing_goes(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=8)
    absolute(tree, tree.root)
    assert build(tree, tree.root).code == 0
    before = hashes(tree.out)
    (tmp_path / "other").mkdir()
    result = build(tree, tmp_path / "other")
    assert result.code == 2
    assert "from frames at other places below their root (--root or --remap" in error_line(result)
    assert hashes(tree.out) == before
    assert build(tree, tmp_path / "other", "--overwrite").code == 1  # no row can be used
    assert refit("verify", tree.out).code == 0
    assert hashes(tree.out).items() >= before.items()
    assert kept(build(tree, tree.root, "--json")) == 4


def test_names_half_below_one_root_and_half_below_another_are_two_builds(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=8)
    second = shutil.copytree(tree.root, tmp_path / "second")
    absolute(tree, tree.root, second)
    assert build(tree, tree.root).code == 0
    before = hashes(tree.out)
    assert build(tree, second).code == 2
    assert hashes(tree.out) == before
    assert build(tree, second, "--overwrite").code == 0
    assert sorted(row["source_row"] for row in index_rows(tree.out)) == [4, 5, 6, 7]
    assert quarantine(tree.out) == dict.fromkeys(range(4), "path_outside_root")
    assert refit("verify", tree.out).code == 0


@pytest.mark.parametrize("name", DATASETS)
def test_registered_names_are_not_to_be_had_by_npz(tmp_path: Path, name: str) -> None:
    tree = own(tmp_path)
    where = ["--root", tree.root, "--out", tmp_path / "shards", "--workers", 0]
    result = refit("build", "--npz", tree.npz, "--name", name, *where)
    assert result.code == 2
    assert f"use --dataset {name}" in error_line(result)
    assert not (tmp_path / "shards").exists()


def planned(tree: Own, **changed: Any) -> Prepared:
    """The tree's plan with another dataset, other options or another root."""
    options = BuildOptions(samples_per_shard=2, **changed.pop("options", {}))
    dataset = replace(Dataset(name="own", root_variable="--root"), **changed.pop("traits", {}))
    places = {"npz": str(tree.npz), "root": str(tree.root), "out": str(tree.out)} | changed
    return prepare(BuildRequest(dataset=dataset, options=options, **places))


CHANGES: dict[str, dict[str, Any]] = {
    "use_pose_3d True": {"traits": {"use_pose_3d": False}},
    "cropped False": {"traits": {"cropped": True}},
    "the rule never": {"traits": {"turned": "bedlam-closeup"}},
    "dataset own": {"traits": {"name": "mine"}},
    "box_px 256, not 300": {"options": {"box_px": 300}},
    "another envelope (--envelope)": {"options": {"envelope": 1.5}},
    "quality 90, not 91": {"options": {"quality": 91}},
    "seed 0, not 1": {"options": {"seed": 1}},
    "other rows of the npz": {"options": {"limit": 3}},
    "places below their root": {"options": {"remaps": (prefix_remap("a/000", "a/002"),)}},
}


@pytest.mark.parametrize("words", CHANGES)
def test_whatever_decides_rows_labels_or_pixels_is_in_the_plan(tmp_path: Path, words: str) -> None:
    tree = own(tmp_path)
    before, after = planned(tree).identity, planned(tree, **CHANGES[words]).identity
    assert plan_hash(before) != plan_hash(after)
    assert words in first_difference(before, after)


def test_rows_that_cannot_be_used_are_in_the_plan_and_the_npz_is(tmp_path: Path) -> None:
    tree = own(tmp_path)
    before = planned(tree).identity
    tree.save(scale=np.array([np.nan, *tree.columns["scale"][1:]]))
    after = planned(tree).identity
    assert before["faults_sha256"] != after["faults_sha256"]
    assert "from another npz" in first_difference(before, after)


def test_the_plan_and_what_is_stored_hold_no_place_of_this_machine(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=12)
    (tree.root / "a/000.jpg").unlink()
    (tree.root / "a/001.jpg").unlink()
    (tree.root / "a/001.jpg").mkdir()
    (tree.root / "a/002.jpg").unlink()
    (tree.root / "a/002.jpg").symlink_to(tree.root / "a/002.jpg")
    tree.put("a/003.jpg", b"")
    tree.put("a/004.jpg", b"not an image")
    assert tree.build(*SHARDED).code == 0
    assert len(quarantine(tree.out)) == 10
    for path in tree.out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_backslashes_are_slashes_where_a_name_has_no_others(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(imgname=np.array([name.replace("/", "\\") for name in tree.names]))
    assert tree.build().code == 0
    assert quarantine(tree.out) == {}
    assert frame_path("a/b\\c.jpg", "/data", ()) == "a/b\\c.jpg"
    assert frame_path("..\\..\\etc\\passwd", "/data", ()) is None
    assert frame_path("D:\\set\\a.jpg", "/data", (prefix_remap("D:/set/", ""),)) == "a.jpg"


@pytest.mark.parametrize("name", ["//", "/", "///x", "/../x", "\0", "/\0", "/" * 9000, "..\\"])
def test_names_that_are_no_place_end_at_once(name: str) -> None:
    assert frame_path(name, "/data", ()) is None
