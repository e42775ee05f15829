"""``query`` and ``show`` as a user types them: what they print, for people and for programs."""

import contextlib
import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv

from refit_shard.row_text import csv_lines, json_lines
from tests.refit_shard.test_plain_install import COMMAND, plain_python
from tests.small import Own, Result, error_line, own, refit, refit_command

ROWS = 8
HOSTILE = 'x/\x1b]0;owned\x07\n,"é.jpg'


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Seven rows in two shards, one in quarantine; a label with a NaN, and hostile texts."""
    tree = own(tmp_path_factory.mktemp("query"), rows=ROWS)
    scale = tree.columns["scale"].copy()
    scale[4] = 0
    weight = np.linspace(0, 1, ROWS).astype(np.float32)
    weight[3] = np.nan
    openpose = tree.columns["openpose"].copy()
    openpose[:, 1:, 2] = 0
    tree.save(
        scale=scale,
        weight=weight,
        openpose=openpose,
        tag=np.array([HOSTILE] * ROWS, object).astype(str),
    )
    assert tree.build("--samples-per-shard", 4, "--keep", "weight,tag").code == 0
    return tree


def query(built: Own, *args: object) -> Result:
    """What it says of the only set; it ends with 0."""
    result = refit("query", built.out, *args)
    assert result.code == 0, result
    assert result.err == ""
    return result


def test_json_is_one_object_a_line(built: Own) -> None:
    names = "key,scale,weight,tag,nose,keypoints,pose_3d,pose,has_smpl,gender,center"
    said = query(built, "--format", "json", "--columns", names).out
    found = [json.loads(line) for line in said.splitlines()]
    assert len(found) == ROWS - 1
    for row in found:
        assert list(row) == names.split(",")
        source = {name: values[int(row["key"][-8:])] for name, values in built.columns.items()}
        points = np.concatenate([source["openpose"], source["part"]]).astype(np.float32)
        assert np.array_equal(np.array(row["keypoints"], np.float32), points)
        assert np.array_equal(np.array(row["pose_3d"], np.float32), source["S"].astype(np.float32))
        assert row["center"] == source["center"].tolist()
        assert row["scale"] == source["scale"]
        assert list(row["nose"]) == ["x", "y", "conf"]
        assert np.float32(row["nose"]["x"]) == points[25 + 19, 0]
        assert (row["tag"], row["has_smpl"]) == (HOSTILE, True)
        assert row["gender"] == int(source["gender"] == "f")
        isnan = np.isnan(source["weight"])
        assert row["weight"] is None if isnan else np.float32(row["weight"]) == source["weight"]
    assert "0.14285715," in said  # a float32's own digits, not those of its value as a double


def test_csv_is_read_by_other_programs(built: Own) -> None:
    said = query(built, "--format", "csv", "--columns", "key,weight,nose,betas,tag,has_smpl").out
    rows = list(csv.DictReader(io.StringIO(said)))
    by_arrow = arrow_csv.read_csv(io.BytesIO(said.encode())).to_pylist()
    assert len(rows) == len(by_arrow) == len(said.splitlines()) - 1 == ROWS - 1
    for row, other in zip(rows, by_arrow, strict=True):
        source = {name: one[int(row["key"][-8:])] for name, one in built.columns.items()}
        assert np.float32(row["nose.y"]) == np.float32(source["part"][19, 1])
        betas = np.array(json.loads(row["betas"]), np.float32)
        assert np.array_equal(betas, source["shape"].astype(np.float32))
        assert row["tag"] == other["tag"] == r'x/\x1b]0;owned\x07\n,"é.jpg'
        assert (row["has_smpl"], other["has_smpl"]) == ("true", True)
    none = query(built, "--format", "csv", "--where", "false").out
    assert next(csv.reader([none])) == [
        "key",
        "imgname",
        "scale",
        "gender",
        "has_smpl",
    ]


def test_a_table_is_for_people(built: Own) -> None:
    said = query(built).out.splitlines()
    assert said[0] == f"{ROWS - 1} rows"
    assert said[1].split() == ["key", "imgname", "scale", "gender", "has_smpl"]
    assert said[2].split()[0] == "own-00000000"
    assert len(said) == 2 + ROWS - 1
    few = query(built, "--limit", 2, "--columns", "key, betas,weight,nose.x").out.splitlines()
    assert few[0] == f"{ROWS - 1} rows; 2 are shown, --limit N shows more"
    assert len(few) == 4
    nose = f"{built.columns['part'][0, 19, 0]:.5g}"
    assert few[2].split()[-5:] == ["…", "10", "numbers", "0", nose]
    assert query(built, "--where", "scale > 9").out.splitlines()[0] == "0 rows"
    everything = query(built, "--columns", "all").out
    assert HOSTILE not in everything
    assert all(map(str.isprintable, everything.splitlines()))


def test_limits_hold_in_every_format(built: Own) -> None:
    for limit in (0, 1, 5, 100):
        count = min(limit, ROWS - 1)
        assert query(built, "--format", "json", "--limit", limit).out.count("\n") == count
        assert query(built, "--format", "csv", "--limit", limit).out.count("\n") == count + 1
        assert query(built, "--limit", limit).out.count("own-") == count


def test_counts_are_told_by_set(built: Own) -> None:
    where = ["--where", "weight > 0.5", "--count"]
    right = int((np.delete(built.columns["weight"], 4) > 0.5).sum())
    assert query(built, *where).out.splitlines()[0] == f"{right} of {ROWS - 1} rows"
    line = json.loads(query(built, *where, "--format", "json").out)
    assert line == {"dataset": "own", "rows": right, "of": ROWS - 1, "path": str(built.out)}
    (row,) = csv.DictReader(io.StringIO(query(built, *where, "--format", "csv").out))
    assert row["rows"] == f"{right}"
    bad = query(built, "--quarantine", "--count", "--where", "reason = 'bad_box'").out
    assert bad.splitlines()[0] == "1 of 1 rows"


def test_the_quarantine_says_why(built: Own) -> None:
    (row,) = map(json.loads, query(built, "--quarantine", "--format", "json").out.splitlines())
    assert (row["source_row"], row["imgname"], row["reason"]) == (4, "a/002.jpg", "bad_box")
    assert "must be at least" in row["detail"]


def test_a_folder_of_sets_and_names_are_taken(
    built: Own, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for places in ([built.folder / "shards"], ["own", "--shards", built.folder / "shards"]):
        result = refit("query", *places, "--count")
        assert result.out.startswith(f"{ROWS - 1} of {ROWS - 1} rows"), result
    (tmp_path / "data").symlink_to(built.folder)
    assert refit("query", "own", "--count").code == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--where", "scal > 1"], 2, "where: no column 'scal' (did you mean 'scale'?)"),
        (["--where", "scale > "], 2, "where: scale > : is incomplete"),
        (["--columns", "key,,scale"], 2, "columns: no column ''"),
        (["--columns", "keys"], 2, "columns: no column 'keys' (did you mean 'key'?)"),
        (["--limit", "-1"], 2, "--limit: must be at least 0, got -1"),
        (["--count", "--limit", "1"], 2, "--count cannot be combined with --columns or --limit"),
        (
            ["elsewhere"],
            1,
            "elsewhere: no such folder, and no dataset of that name: data/shards/else",
        ),
        (["no/where"], 1, "no/where: no shards there"),
    ],
)
def test_wrong_use_is_one_line(built: Own, args: list[str], code: int, said: str) -> None:
    result = refit("query", built.out, *args)
    assert result.code == code
    assert said in error_line(result)
    assert result.out == ""


def test_without_duckdb_rows_are_printed_and_a_condition_names_the_extra(built: Own) -> None:
    done = plain_python(COMMAND, "query", built.out, hidden={"duckdb", "rich"})
    assert (done.returncode, done.stderr) == (0, "")
    done = plain_python(COMMAND, "query", built.out, "--where", "true", hidden={"duckdb"})
    assert done.returncode == 2
    assert "pip install 'refit-shard[query]'" in done.stderr


def test_a_reader_who_leaves_ends_it_quietly(built: Own) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left:
        command = refit_command("query", built.out, "--format", "json")
        done = subprocess.run(command, stdout=left, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_arrays_that_are_missing_or_not_finite_are_null() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "one": pa.array([np.inf, None, 1.5]),
            "none": pa.nulls(3, pa.list_(pa.float32(), 4)),
            "four": pa.FixedSizeListArray.from_arrays(
                pa.array([1, 2, 3, np.nan] * 3, pa.float32()), 4
            ),
            "half": pa.array(np.array([0.1, 1, np.nan], np.float16)),
            "big": pa.array([2**63 - 1, -(2**63), 0]),
        }
    )
    shapes: dict[str, Any] = {"four": (2, 2), "none": (2, 2)}
    rows = [json.loads(line) for line in json_lines(batch, shapes).splitlines()]
    assert [row["one"] for row in rows] == [None, None, 1.5]
    assert [row["none"] for row in rows] == [None] * 3
    assert [row["four"] for row in rows] == [[[1, 2], [3, None]]] * 3
    assert [row["half"] for row in rows] == [0.099975586, 1, None]
    assert [row["big"] for row in rows] == [2**63 - 1, -(2**63), 0]
    lines = csv_lines(batch, shapes, header=True).splitlines()
    assert lines[1:] == [
        'inf,,"[[1.0, 2.0], [3.0, null]]",0.099975586,9223372036854775807',
        ',,"[[1.0, 2.0], [3.0, null]]",1,-9223372036854775808',
        '1.5,,"[[1.0, 2.0], [3.0, null]]",nan,0',
    ]


# ------------------------------------------------------------------------------------------- show


def shown(built: Own, folder: Path, *args: object) -> tuple[np.ndarray[Any, Any], str]:
    """The picture that show writes, and what it prints."""
    out = folder / "row.png"
    result = refit("show", built.out, *args, "--out", out)
    assert result.code == 0, result
    assert result.err == ""
    return np.asarray(cv2.imread(str(out))), result.out


def test_a_key_shows_one_row_and_its_labels(built: Own, tmp_path: Path) -> None:
    picture, said = shown(built, tmp_path, "own-00000002")
    assert picture.shape == (512 + 18, 512, 3)
    lines = dict(line.split(None, 1) for line in said.splitlines() if line)
    assert lines["key"] == "own-00000002"
    assert lines["scale"] == f"{built.columns['scale'][2]:.5g}"
    assert lines["weight"] == "0.28571"
    assert lines["tag"] == r'x/\x1b]0;owned\x07\n,"é.jpg'
    assert lines["joints"].startswith("25 of 49 known: op_nose, right_ankle, right_knee")
    assert "own-00000003" not in said


def test_a_frame_shows_all_people_in_it(built: Own, tmp_path: Path) -> None:
    picture, said = shown(built, tmp_path, "a/001.jpg")
    assert picture.shape == (512 + 18, 2 * 512, 3)
    assert [line.split()[1] for line in said.splitlines() if line.startswith("key ")] == [
        *("own-00000002", "own-00000003"),
    ]
    alone = [shown(built, tmp_path, "001.jpg", "--person", one)[0] for one in (1, 2)]
    assert np.array_equal(np.hstack(alone), picture)
    assert not np.array_equal(alone[0], alone[1])
    assert picture[:400].std() > 20


def test_the_picture_has_the_key_s_name_where_no_other_is_given(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refit("show", built.out, "own-00000000").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["own-00000000.png"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nobody"], "'nobody': no row has this key or imgname; list some with: refit-shard query"),
        (["a/002.jpg", "--person", "2"], "--person: must be 1 to 1, got 2"),
        (["a/001.jpg", "--person", "0"], "--person: must be 1 to 2, got 0"),
        (["a/001.jpg", "--out", "s3://x/y.png"], "--out: must be on this machine"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    built: Own, args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = refit("show", built.out, *args)
    assert result.code == 2
    assert said in error_line(result)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_crop_is_told_and_no_picture_is_left(built: Own, tmp_path: Path) -> None:
    import shutil

    place = Path(shutil.copytree(built.out, tmp_path / "own"))
    tar = min(place.glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    result = refit("show", place, "own-00000000", "--out", tmp_path / "row.png")
    assert result.code == 1
    assert "crc32c" in error_line(result)
    assert not (tmp_path / "row.png").exists()


def test_a_terminal_is_never_sent_what_a_name_holds(built: Own) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert refit("query", built.out, "--columns", "tag", "--format", "csv").code == 0
    assert "\x1b" not in said.getvalue()
