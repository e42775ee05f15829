"""The commands as a user types them: what they say, where, and with which exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.trees import Tree, make_config
from refit_shard.cli import main
from tests.small import PROJECT, Own, error_line, index_rows, own, refit, refit_process


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Five rows in shards and one in quarantine."""
    tree = own(tmp_path_factory.mktemp("built"), suffix=".png")
    scale = tree.columns["scale"].copy()
    scale[4] = 0
    tree.save(scale=scale)
    assert tree.build("--samples-per-shard", 4).code == 0
    return tree


LAZY = """
import contextlib, sys
from refit_shard.cli import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
heavy = {"ray", "torch", "cv2", "PIL", "webdataset", "rich"} & set(sys.modules)
print("heavy:", sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("args", [["--help"], ["build", "--help"], ["verify", "--help"], []])
def test_help_is_quick_because_nothing_heavy_is_imported(args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY, *args], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stderr.splitlines()[-1] == "heavy: []"
    assert "refit-shard" in done.stdout + done.stderr


def test_the_module_runs_as_a_program_and_says_its_commands() -> None:
    result = refit_process("--help")
    assert result.code == 0
    for command in ("build", "verify", "info", "preview"):
        assert command in result.out
    assert refit_process().code == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--dataset", "cocoo"], "unknown dataset 'cocoo'; known: coco, mpii"),
        ([], "say what to build with --dataset NAME, --config YAML"),
        (["--dataset", "coco", "--npz", "x"], "say what to build with --dataset"),
        (["--config", "x", "--npz", "y"], "say what to build with --dataset"),
        (["--npz", "x.npz"], "--npz, --root and --name go together"),
        (["--npz", "x.npz", "--root", ".", "--name", "a"], "--npz x.npz: no such file"),
        (["--npz", __file__, "--root", "nowhere", "--name", "a"], "--root nowhere: no such folder"),
        (["--npz", __file__, "--root", ".", "--name", "a/b"], "dataset name 'a/b'"),
        (["--npz", __file__, "--root", ".", "--name", "a.b"], "dataset name 'a.b'"),
        (["--npz", __file__, "--root", ".", "--name", "../a"], "dataset name '../a'"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(args: list[str], said: str, tmp_path: Path) -> None:
    result = refit("build", *args, "--out", tmp_path / "out", "--workers", 0)
    assert result.code == 2
    assert said in error_line(result)
    assert result.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DATASET: {LIST: [coco, cocoo], PARTITION: [1, 0]}", "unknown dataset 'cocoo'"),
        ("DATASET: {LIST: [coco]}", "DATASET.PARTITION must be a list, got None"),
        ("DATASET: {LIST: [coco], PARTITION: [0.5]}", "must sum to 1, they sum to 0.5"),
        ("DATASET: {LIST: [coco, coco], PARTITION: [1, 0]}", "must name each dataset once"),
        ("DATASET: {LIST: []}", "DATASET.LIST must be a list"),
        ("DATASET: 3", "must hold DATASET with LIST and PARTITION"),
        ("- a", "must hold DATASET with LIST and PARTITION"),
        ("", "must hold DATASET with LIST and PARTITION"),
        ("a: [", "not YAML"),
        ("DATASET: {LIST: [[1], {a: b}], PARTITION: [1, 0]}", "must name each dataset once"),
        ("x: !!python/object/apply:os.system ['touch planted']", "not YAML"),
    ],
)
def test_a_config_that_names_no_data_sets_is_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    result = refit("build", "--config", "c.yaml", "--workers", 0)
    assert result.code == 2
    assert said in error_line(result)
    assert not Path("planted").exists()


def test_a_config_builds_every_data_set_of_its_list(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("DATASET:\n  LIST: [coco, mpii]\n  PARTITION: [1, 0]\n")
    trees = [own(tmp_path / name) for name in ("coco", "mpii")]
    names = ("coco", "mpii")
    listed = [Tree(name, one.root, one.npz, 6, 3) for name, one in zip(names, trees, strict=True)]
    config = make_config(tmp_path, listed)
    (tmp_path / "dataset_extras").mkdir()
    trees[0].npz.rename(tmp_path / "dataset_extras/coco_2014_eft.npz")
    trees[1].npz.rename(tmp_path / "dataset_extras/mpii_train_eft.npz")
    where = ["--data-config", config, "--out", tmp_path / "out", "--workers", 0, "--json"]
    result = refit("build", "--config", tmp_path / "c.yaml", *where)
    assert result.code == 0, result.err
    said = json.loads(result.out)["built"]
    assert [(one["dataset"], one["rows"]) for one in said] == [("coco", 6), ("mpii", 6)]
    assert [
        one["dataset"] for one in json.loads(refit("info", tmp_path / "out", "--json").out)
    ] == [
        "coco",
        "mpii",
    ]
    assert index_rows(tmp_path / "out/coco")[0]["has_pose_3d"] is False


def test_a_dry_run_writes_nothing_and_its_numbers_are_those_of_the_build(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=60, per_frame=3)
    scale = tree.columns["scale"].copy()
    scale[7] = np.nan
    tree.save(scale=scale)
    before = sorted(path for path in tmp_path.rglob("*"))
    (plan,) = json.loads(tree.build("--samples-per-shard", 10, "--dry-run", "--json").out)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (plan["rows"], plan["frames"], plan["faults"], plan["missing"]) == (59, 20, 1, 0)
    assert plan["seconds"] > 0
    (done,) = json.loads(tree.build("--samples-per-shard", 10, "--json").out)["built"]
    assert (done["rows"], done["frames"], done["shards"]) == (59, 20, plan["shards"])
    assert 0.7 < plan["bytes"] / done["bytes"] < 1.3


def test_a_dry_run_counts_the_rows_of_missing_frames_and_names_some(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=9, per_frame=3)
    tree.save(
        imgname=np.array(["a/000.jpg"] * 3 + ["a/7.jpg"] * 4 + ["no/8.jpg", "a/000.jpg/9.jpg"])
    )
    result = tree.build("--dry-run", "--json")
    assert result.code == 0, result.err
    (plan,) = json.loads(result.out)
    assert (plan["rows"], plan["missing"]) == (9, 6)
    assert set(plan["examples"]) == {"a/7.jpg", "no/8.jpg", "a/000.jpg/9.jpg"}
    text = tree.build("--dry-run")
    assert "nothing was written" in text.out
    assert f"missing below {tree.root}: a/" in text.out
    assert not tree.out.exists()


def test_a_dry_run_of_nothing_but_missing_frames_ends_well(tmp_path: Path) -> None:
    tree = own(tmp_path)
    for path in (tree.root / "a").iterdir():
        path.unlink()
    (plan,) = json.loads(tree.build("--dry-run", "--json").out)
    assert (plan["missing"], plan["bytes"]) == (6, 0)


@pytest.mark.parametrize("command", ["build", "verify", "info"])
def test_json_is_one_document_and_nothing_else_is_on_stdout(built: Own, command: str) -> None:
    args: list[object] = [command, built.out]
    if command == "build":
        args = built.command("--max-bad", 0.9, "--samples-per-shard", 4)
    result = refit_process(*args, "--json")
    assert result.code == 0
    assert result.err == ""
    said: Any = json.loads(result.out)
    assert said


def test_info_says_what_is_there(built: Own) -> None:
    (said,) = json.loads(refit("info", built.out, "--json").out)
    rows = index_rows(built.out)
    sides = [200 * row["scale"] for row in rows]
    assert (said["rows"], said["source_rows"], said["shards"]) == (5, 6, 2)
    assert said["quarantined"] == {"bad_box": 1}
    box = said["box_side_px"]
    assert (box["min"], box["max"]) == pytest.approx((min(sides), max(sides)))
    assert said["share"] == {"smpl": 1.0, "pose_3d": 1.0, "gender": 1.0, "camera": 0.0}
    files = [path for path in built.out.iterdir() if path.stem.startswith("own-")]
    assert said["bytes"] == sum(path.stat().st_size for path in files)
    text = refit("info", built.out.parent)
    assert text.code == 0
    assert "format 3, own: box 256 px at quality 90" in text.out


def test_the_summary_counts_quarantine_by_reason_and_says_where_the_shards_are(
    tmp_path: Path,
) -> None:
    tree = own(tmp_path, rows=8)
    (tree.root / "a/001.jpg").unlink()
    (tree.root / "a/002.jpg").write_bytes(b"")
    result = tree.build()
    assert result.code == 0
    assert "2 empty, 2 missing" in result.out
    assert "4 of 8" in result.out
    assert f"own: {tree.out}" in result.out


def test_more_bad_rows_than_allowed_fail_at_the_end_with_what_to_look_at(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=40)
    (tree.root / "a/001.jpg").unlink()
    assert refit(*tree.command()).code == 0  # two of forty is not more than 5%
    (tree.root / "a/002.jpg").unlink()
    where = ["--root", tree.root, "--name", "own", "--out", tmp_path / "again", "--workers", 0]
    result = refit("build", "--npz", tree.npz, *where)
    assert result.code == 1
    line = error_line(result)
    assert "4 of 40 rows are in quarantine (10.0%; 4 missing), more than --max-bad 0.05" in line
    assert f"{tmp_path}/again/own/quarantine.feather" in line
    assert not (tmp_path / "again/own/manifest.json").exists()


@pytest.mark.parametrize("command", ["verify", "info", "preview"])
def test_a_path_without_shards_is_one_line(tmp_path: Path, command: str) -> None:
    more = ["--out", tmp_path / "x.png"] if command == "preview" else []
    for path in (tmp_path, tmp_path / "nowhere"):
        result = refit(command, path, *more)
        assert result.code == 1
        assert "no shards there" in error_line(result)


def test_the_sheet_shows_each_chosen_sample(built: Own, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    result = refit("preview", built.out, "--out", sheet, "--n", 4)
    assert result.code == 0, result.err
    image = cv2.imread(str(sheet))
    assert image is not None
    assert image.shape == (256 + 18, 4 * 256, 3)
    cells = np.split(image[:256], 4, axis=1)
    assert all(cell.std() > 10 for cell in cells)
    again = tmp_path / "again.png"
    assert refit("preview", built.out, "--out", again, "--n", 4).code == 0
    assert again.read_bytes() == sheet.read_bytes()
    assert refit("preview", built.out, "--out", again, "--n", 4, "--seed", 3).code == 0
    assert again.read_bytes() != sheet.read_bytes()


def test_every_command_on_finished_sets_takes_a_name_in_data_shards(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(built.folder)
    for command in (["info"], ["verify"], ["bench", "--rounds", 1, "--seconds", 0.01]):
        result = refit(command[0], "own", *command[1:])
        assert result.code == 0, result
        assert "own" in result.out
    labels = tmp_path / "labels.npz"
    np.savez(labels, other=np.zeros(6))
    result = refit("add-labels", "own", labels, "--keep", "foo")
    assert "has none of the labels" in error_line(result)  # so the set was found
    for command in (["info"], ["verify"], ["bench"]):
        result = refit(command[0], "elsewhere")
        assert result.code == 1
        assert "elsewhere: no such folder, and no dataset of that name" in error_line(result)


def test_add_labels_refuses_a_folder_of_several_sets(built: Own, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(built.out)
    result = refit("add-labels", tmp_path, tmp_path / "x.npz", "--keep", "foo")
    assert result.code == 2
    assert "holds 2 datasets; give one of them" in error_line(result)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["query", "own", "--colums", "key"], "--colums key (did you mean --columns?)"),
        (["build", "--datset=coco"], "--datset=coco (did you mean --dataset?)"),
        (["info", "own", "--zzz"], "unrecognized arguments: --zzz\n"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_command_s_usage(
    capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: refit-shard {args[0]} ")
    assert said in err


def test_a_picture_is_written_under_no_other_kind_s_name(built: Own, tmp_path: Path) -> None:
    for command in (["preview", built.out], ["show", built.out, "own-00000000"]):
        out = tmp_path / "sheet.jpg"
        result = refit(*command, "--out", out)
        assert result.code == 2
        assert "must end with .png" in error_line(result)
        assert not out.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--n", 0], "--n: must be at least 1, got 0"),
        (["--stream", "x.yaml"], "give either datasets or --stream"),
    ],
)
def test_preview_s_wrong_use_is_one_line(
    built: Own, tmp_path: Path, args: list[object], said: str
) -> None:
    result = refit("preview", built.out, "--out", tmp_path / "x.png", *args)
    assert result.code == 2
    assert said in error_line(result)


def test_preview_replaces_no_device(built: Own, tmp_path: Path) -> None:
    """A name that is there and is no file stays what it is."""
    place = tmp_path / "sheet.png"
    os.mkfifo(place)
    result = refit("preview", built.out, "--out", place)
    assert result.code == 1
    assert "not a regular file" in error_line(result)
    assert place.is_fifo()


def test_verify_looks_at_all_sets_beside_one_of_another_format(built: Own, tmp_path: Path) -> None:
    """It still ends with 2, and says of the others what it found."""
    for name in ("a", "b", "c"):
        shutil.copytree(built.out, tmp_path / name)
    (tmp_path / "a" / "manifest.json").write_text("[]")
    (tmp_path / "b" / "manifest.json").write_text("{")
    result = refit("verify", tmp_path)
    assert result.code == 2
    assert "not a refit-shard manifest" in error_line(result)
    assert "b: BROKEN" in result.out
    assert "c: ok" in result.out


def test_a_reader_of_our_output_that_leaves_is_no_error(built: Own) -> None:
    command = [sys.executable, "-m", "refit_shard", "info", str(built.out), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_an_empty_path_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["verify", ""], ["info", ""], ["preview", "", "--out", "sheet.png"]):
        assert main(words) == 2
        assert "a path is empty" in capsys.readouterr().err


def test_an_out_that_names_no_place_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = own(tmp_path)
    where = ["--npz", str(tree.npz), "--root", str(tree.root), "--name", "a", "--workers", "0"]
    for out in ("", "s3://", "file://"):
        assert main(["build", *where, "--out", out]) == 2
        assert "--out" in capsys.readouterr().err


def test_a_config_nested_too_deep_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "deep.yaml"
    config.write_text("[" * 5000)
    assert main(["build", "--config", str(config)]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("ending", ["tar", "arrow"])
def test_a_fifo_in_a_shards_place_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    tree = own(tmp_path)
    assert tree.build().code == 0
    shard = next(tree.out.glob(f"*-000000.{ending}"))
    shard.unlink()
    os.mkfifo(shard)
    assert main(["verify", str(tree.out)]) == 1
    assert "not a regular file" in capsys.readouterr().out


def test_a_root_to_copy_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    tree = own(tmp_path / "my data", rows=8)
    where = ["--root", tree.root / "a", "--name", "own", "--out", tmp_path / "out", "--workers", 0]
    result = refit("build", "--npz", tree.npz, *where)
    assert result.code == 1
    assert f"pass --root '{tree.root}'" in result.err
