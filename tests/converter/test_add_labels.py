"""Labels added to finished shards: the tars are those of a build with them, whatever happens."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard import ShardSet
from refit_shard.converter.annotations.keep import parse_keeps
from refit_shard.converter.build.task import ShardResult
from refit_shard.converter.frames import decode, encode
from refit_shard.converter.labels.plan import LabelsPlan, LabelsRequest, plan_labels
from refit_shard.converter.labels.work import add_labels
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.shards_spec.names import OVERWRITE
from tests.converter.kills import kill_at
from tests.small import (
    Own,
    Result,
    error_line,
    hashes,
    index_rows,
    own,
    quarantine,
    refit,
    samples_of,
)

ROWS = 12
KEEP = "smplx_pose,ears:points2d=coco,word"
# As many as a run has, and more.
STEPS = 80


def arrays(rows: int = ROWS) -> dict[str, Any]:
    """Labels of each row that tell it from all others."""
    rng = np.random.default_rng(3)
    ears = rng.uniform(0, 60, (rows, 17, 3))
    ears[1, 2] = np.nan
    return {
        "smplx_pose": rng.normal(0, 0.5, (rows, 165)),
        "ears": ears,
        "word": np.array([f"row {row} läuft" for row in range(rows)]),
    }


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """A built set of three shards and two bad rows; ``labels.npz`` beside it has all rows."""
    tree = own(tmp_path, rows=ROWS)
    tree.save(scale=np.where(np.arange(ROWS) == 5, np.nan, tree.columns["scale"]))
    tree.put(tree.names[8], b"no image")
    assert tree.build("--samples-per-shard", 4).code == 0
    np.savez(tmp_path / "labels.npz", imgname=np.array(tree.names), **arrays())
    return tree


def add(tree: Own, *args: object, npz: str = "labels.npz") -> Result:
    """Add the labels in this process, one shard at a time."""
    return refit("add-labels", tree.out, tree.folder / npz, "--keep", KEEP, "--workers", 1, *args)


def tars(folder: Path) -> Counter[str]:
    """What the tars hold."""
    return Counter(sha for name, sha in hashes(folder).items() if name.endswith(".tar"))


@pytest.fixture
def wanted(tree: Own, tmp_path: Path) -> Counter[str]:
    """The tars that a build with these labels makes."""
    tree.save(**arrays())
    more = ("--samples-per-shard", 4, "--keep", KEEP, "--out", tmp_path / "more")
    assert tree.build(*more).code == 0
    return tars(tmp_path / "more/own")


def test_the_tars_are_those_of_a_build_and_no_image_is_decoded(
    tree: Own, wanted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tree.root)
    bad = quarantine(tree.out)
    with monkeypatch.context() as patch:
        for module, name in ((decode, "decode_frame"), (encode, "encode"), (jpeg, "decode")):
            patch.delattr(module, name)
        result = add(tree)
    assert result.code == 0, result.err
    assert "smplx_pose float32[165] (axis_angle), ears float32[17, 3] (points2d)" in result.out
    assert "added to 9 rows in 3 shards (0 kept)" in result.out
    assert "rows matched by row and imgname" in result.out
    assert tars(tree.out) == wanted
    assert quarantine(tree.out) == bad
    assert refit("verify", tree.out).code == 0
    assert not (tree.out / OVERWRITE).exists()
    assert all("-g1-" in path.name for path in tree.out.glob("own-*"))


def test_the_identity_is_extended_and_a_plain_build_says_so(tree: Own) -> None:
    before = ShardSet.open(str(tree.out)).manifest
    assert add(tree).code == 0
    after = ShardSet.open(str(tree.out)).manifest
    assert after.plan_hash != before.plan_hash
    assert after.content_hash != before.content_hash
    assert {**after.plan, "columns": 0, "labels": 0} == {**before.plan, "columns": 0, "labels": 0}
    (added,) = after.plan["labels"]
    assert added["columns"] == ["smplx_pose", "ears", "word"]
    again = tree.build("--samples-per-shard", 4)
    assert again.code == 2
    assert "built with labels that add-labels added; pass --overwrite" in error_line(again)
    assert tree.build("--samples-per-shard", 4, "--overwrite").code == 0
    assert not ShardSet.open(str(tree.out)).own


def test_the_same_again_does_nothing_and_other_labels_come_beside_them(tree: Own) -> None:
    assert add(tree).code == 0
    before = hashes(tree.out)
    again = add(tree)
    assert again.code == 0
    assert "already has smplx_pose" in again.out
    assert again.out.endswith("; nothing to do\n")
    assert hashes(tree.out) == before
    np.savez(tree.folder / "more.npz", tall=np.arange(ROWS))
    more = refit("add-labels", tree.out, tree.folder / "more.npz", "--keep", "tall", "--json")
    assert json.loads(more.out)["joined_by"] == "row alone"
    assert refit("verify", tree.out).code == 0
    rows = samples_of(tree.out)
    assert len(rows) == 9
    for row in rows:
        assert row["tall"] == row["source_row"]
        assert row["word"] == f"row {row['source_row']} läuft"
    assert "; nothing to do" in add(tree).out


def test_rows_are_joined_by_their_number_in_any_order(tree: Own, wanted: Counter[str]) -> None:
    """Only those that are in the set are needed."""
    order = np.random.default_rng(0).permutation([one for one in range(ROWS) if one != 5])
    some = {name: values[order] for name, values in arrays().items()}
    np.savez(tree.folder / "labels.npz", source_row=order.astype(np.uint64), **some)
    result = add(tree)
    assert result.code == 0, result.err
    assert "rows matched by source_row" in result.out
    assert tars(tree.out) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"imgname": None, "rows": 11}, "has 11 rows, the dataset was built from an npz with 12"),
        ({"imgname": "shifted"}, "belongs to other rows: imgname of source row"),
        ({"source_row": np.arange(1, 13)}, "must hold 0 to 11"),
        ({"source_row": np.arange(-1, 11)}, "must hold 0 to 11"),
        ({"source_row": np.zeros(12, int)}, "holds a row twice"),
        ({"source_row": np.arange(12.0)}, "must be whole numbers"),
        ({"source_row": np.arange(11), "rows": 11}, "has no row for 1 of the"),
        ({"source_row": np.arange(12), "imgname": np.array(["a", "b"])}, "'imgname' must have 12"),
        ({"imgname": np.array(0)}, "'imgname' must have 12 rows"),
        ({"ears": None}, "kept label 'ears': is missing"),
        ({"word": np.array([{}] * 12)}, "holds Python objects"),
    ],
)
def test_an_npz_of_other_rows_is_refused_and_the_set_left_alone(
    tree: Own, change: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"imgname": np.array(tree.names), **arrays(), **change}
    if isinstance(given["imgname"], str):
        given["imgname"] = np.roll(tree.names, 2)
    rows = given.pop("rows", ROWS)
    kept = {
        name: values[:rows] if np.ndim(values) else values
        for name, values in given.items()
        if values is not None
    }
    np.savez(tree.folder / "labels.npz", **kept)
    before = hashes(tree.out)
    result = add(tree)
    assert result.code == 1
    assert said in error_line(result)
    assert hashes(tree.out) == before


def test_a_label_that_is_there_otherwise_is_refused(tree: Own) -> None:
    assert add(tree).code == 0
    before = hashes(tree.out)
    np.savez(
        tree.folder / "other.npz",
        word=np.array(["a"] * ROWS),
        ears=np.zeros((ROWS, 17, 3)),
        smplx_pose=np.zeros((ROWS, 165)),
    )
    result = add(tree, npz="other.npz")
    assert result.code == 2
    assert "has the label 'smplx_pose' already" in error_line(result)
    assert hashes(tree.out) == before


@pytest.mark.parametrize("ending", [".tar", ".arrow"])
def test_damage_of_the_set_is_not_carried_on(tree: Own, ending: str) -> None:
    path = tree.out / f"own-000001{ending}"
    data = bytearray(path.read_bytes())
    row = next(row for row in index_rows(tree.out) if row["shard"] == "own-000001")
    inside = row["jpg_offset"] + row["jpg_length"] // 2
    data[inside if ending == ".tar" else len(data) // 2] ^= 1
    path.write_bytes(data)
    before = hashes(tree.out)
    result = add(tree)
    assert result.code == 1
    assert "own-000001" in error_line(result)
    after = hashes(tree.out)
    assert {name: after[name] for name in before} == before
    assert tree.build("--samples-per-shard", 4).code == 0  # it mends the shard
    assert add(tree).code == 0
    assert refit("verify", tree.out).code == 0


def test_an_overwriting_that_waits_is_left_alone(tree: Own) -> None:
    note = {"generation": 7, "plan_hash": "0" * 64}
    (tree.out / OVERWRITE).write_text(json.dumps(note))
    before = hashes(tree.out)
    result = add(tree)
    assert result.code == 2
    assert "was interrupted: run that command" in error_line(result)
    assert hashes(tree.out) == before


@pytest.mark.parametrize(
    ("folder", "npz", "said"),
    [("nowhere", "labels.npz", "no shards there"), (".", "nowhere.npz", "nowhere.npz: missing")],
)
def test_what_is_not_there_is_one_line(tree: Own, folder: str, npz: str, said: str) -> None:
    place = tree.out if folder == "." else tree.folder / folder
    result = refit("add-labels", place, tree.folder / npz, "--keep", "word")
    assert result.code == 1
    assert said in error_line(result)


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_a_whole_set_stands_and_the_command_goes_on(
    tree: Own, tmp_path: Path, wanted: Counter[str], stride: int
) -> None:
    """The old set or the new one; and the end is that of an undisturbed run, to the byte."""
    built = shutil.copytree(tree.out, tmp_path / "built")
    assert add(tree).code == 0
    undisturbed = hashes(tree.out)
    args = ["add-labels", tree.out, tree.folder / "labels.npz", "--keep", KEEP, "--workers", 1]
    seen: Counter[bool] = Counter()
    for step in range(1, STEPS, stride):
        shutil.rmtree(tree.out)
        shutil.copytree(built, tree.out)
        end = kill_at(step, tree.out, "own", args)
        if end.phase is None:
            break
        assert refit("verify", "--quick", tree.out).code == 0, (step, end)
        seen[bool(ShardSet.open(str(tree.out)).own)] += 1
        again = refit(*args)
        assert again.code == 0, (step, end, again.err)
        assert hashes(tree.out) == undisturbed, (step, end)
    else:
        pytest.fail("a run has more steps than were looked at")
    assert seen[True] > 2 / stride
    assert seen[False] > 20 / stride
    assert tars(tree.out) == wanted


def planned(tree: Own) -> LabelsPlan:
    """The plan of the labels, as the command makes it."""
    npz = str(tree.folder / "labels.npz")
    return plan_labels(LabelsRequest(shards=str(tree.out), npz=npz, keep=parse_keeps([KEEP])))


def test_what_was_written_is_read_again_before_it_takes_the_old_one_s_place(tree: Own) -> None:
    before = ShardSet.open(str(tree.out)).manifest

    def spoil(result: ShardResult) -> None:
        path = tree.out / f"{result.entry.name}.tar"
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)

    with pytest.raises(ShardError, match=r"a new shard is damaged: own-g1-00000\d\.tar"):
        add_labels(planned(tree), spoil)
    assert ShardSet.open(str(tree.out)).manifest == before
    assert refit("verify", tree.out).code == 0
    assert add(tree).code == 0
    assert refit("verify", tree.out).code == 0


def test_a_set_that_was_built_again_meanwhile_is_left_alone(tree: Own) -> None:
    plan = planned(tree)
    assert tree.build("--samples-per-shard", 6, "--overwrite").code == 0
    before = hashes(tree.out)
    with pytest.raises(UsageError, match="built again meanwhile"):
        add_labels(plan, lambda _: None)
    assert hashes(tree.out) == before
