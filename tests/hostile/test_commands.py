"""Commands on hostile shards: one clean line, no control characters, no unexpected error."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard.console import plain
from refit_shard.sheet import draw_skeleton
from tests.hostile.test_records import INT32
from tests.searches import examples
from tests.small import Own, Result, error_line, own, read_arrow, refit

ESCAPES = "\x1b]0;owned\x07\x1b[2J[red]\u202e\r\n"
STEM = "own-000000"
NUMBERS = [0, -1, 10**12, 2**63 - 1, 2**63, 10**400]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A dataset of six rows in one shard."""
    tree = own(tmp_path_factory.mktemp("commands"))
    assert tree.build().code == 0
    return tree


@pytest.fixture
def folder(built: Own, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built.out, tmp_path / "own"))


def is_clean(result: Result) -> bool:
    """True if the output has no control characters, and no traceback or internal error."""
    lines = (result.out + result.err).split("\n")
    return all(map(str.isprintable, lines)) and "Traceback" not in result.err


def exported(folder: Path, form: str) -> Result:
    """The arguments of an export into a new folder."""
    out = folder.parent / "exports" / form
    shutil.rmtree(out, ignore_errors=True)
    return refit("export", folder, "--format", form, "--out", out)


def looked_at(folder: Path) -> list[Result]:
    """Run every command that reads shards; each must end with exit code 0 to 2 and clean lines."""
    results = [
        refit("info", folder),
        refit("info", folder, "--json"),
        refit("verify", folder),
        refit("verify", folder, "--quick"),
        refit("preview", folder, "--out", folder.parent / "sheet.png"),
        refit("query", folder, "--columns", "all", "--where", "scale > 0"),
        refit("query", folder, "--columns", "key,imgname,keypoints", "--format", "csv"),
        refit("show", folder, "own-00000000", "--out", folder.parent / "row.png"),
        *(exported(folder, form) for form in ("shards", "energon", "parquet")),
    ]
    for result in results:
        assert result.code in (0, 1, 2), result
        assert is_clean(result), result
        assert result.err.count("\n") <= 1, result
    return results


def rewrite(folder: Path, **changed: Any) -> None:
    """Change keys of the manifest; those that begin with ``shard_`` are keys of its shard."""
    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())
    for key, value in changed.items():
        holder = content["shards"][0] if key.startswith("shard_") else content
        holder[key.removeprefix("shard_")] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../own", "/etc", "Own", "o.wn", "", "own/..", "o" * 64, ESCAPES])
def test_a_data_set_s_name_is_checked_as_a_build_checks_it(folder: Path, name: str) -> None:
    rewrite(folder, dataset=name)
    for result in looked_at(folder):
        assert result.code == 1 or '"dataset name' in result.out
        assert "dataset name" in result.out + result.err


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("key", ["rows", "source_rows", "frames", "seed", "box_px", "quality"])
def test_wild_numbers_in_a_manifest_are_clean(folder: Path, key: str, value: int) -> None:
    rewrite(folder, **{key: value})
    if key in ("rows", "source_rows"):
        rewrite(folder, rows=value, source_rows=value, shard_rows=value)
    looked_at(folder)


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["frames", "seed", "box_px", "quality", "restart_interval", "imgname_bytes"]),
    st.integers(0, 2**64),
    st.floats(),
    st.text(max_size=8),
)
def test_typed_values_of_any_kind_are_clean(
    built: Own, tmp_path: Path, key: str, number: int, scale: float, text: str
) -> None:
    shutil.rmtree(tmp_path / "own", ignore_errors=True)
    folder = Path(shutil.copytree(built.out, tmp_path / "own"))
    envelope = {"scale": scale, "rotation": True, "margin": abs(scale)}
    rewrite(folder, **{key: number}, envelope=envelope)
    looked_at(folder)
    rewrite(folder, plan_hash=text, source_sha256=text, quarantined={text: 0})
    looked_at(folder)


def change_index(folder: Path, name: str, value: Any) -> None:
    """Set a column to a value in all rows, and make all hashes right again."""
    path = folder / f"{STEM}.arrow"
    table = read_arrow(path)
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    column = pa.array([value] * len(table), field.type)
    (batch,) = table.set_column(at, field, column).combine_chunks().to_batches()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = path.read_bytes()
    rewrite(
        folder, shard_arrow_bytes=len(data), shard_arrow_sha256=hashlib.sha256(data).hexdigest()
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("scale", value) for value in (0.0, 1e308, float("nan"), float("inf"))),
        *(("center", [value] * 2) for value in (1e308, float("nan"), float("-inf"))),
        *(("k", [value] * 2) for value in (0.0, 1e308, float("nan"))),
        *(("window", [value] * 4) for value in (INT32, -INT32)),
        *(("keypoints", [value] * 147) for value in (3e38, float("nan"), float("inf"))),
        *(("key", value) for value in (ESCAPES, "\0", "x" * 10**6)),
        *(("imgname", value) for value in (ESCAPES, "../../etc/passwd")),
        *((name, value) for name in ("height", "width") for value in (0, -1, INT32)),
        *(("jpg_offset", value) for value in (2**64 - 1, 2**63, 10**12)),
        *(("jpg_length", value) for value in (0, 2**32 - 1)),
    ],
)
def test_wild_values_in_an_index_are_clean(folder: Path, name: str, value: Any) -> None:
    change_index(folder, name, value)
    results = looked_at(folder)
    assert results[2].code == 1  # verify finds it
    assert results[0].code == 0


def test_preview_shows_no_image_that_is_not_the_one_that_was_built(folder: Path) -> None:
    tar = folder / f"{STEM}.tar"
    data = bytearray(tar.read_bytes())
    row = read_arrow(folder / f"{STEM}.arrow").to_pylist()[0]
    data[row["jpg_offset"] + row["jpg_length"] // 2] ^= 0x40
    tar.write_bytes(data)
    result = refit("preview", folder, "--out", folder.parent / "sheet.png")
    assert result.code == 1
    assert f"{STEM}: {row['key']}: the JPEG's crc32c" in error_line(result)
    assert not (folder.parent / "sheet.png").exists()


def test_a_skeleton_of_any_numbers_is_drawn() -> None:
    for value in (np.nan, np.inf, -np.inf, 3e38):
        draw_skeleton(np.zeros((32, 32, 3), np.uint8), np.full((49, 3), value, np.float32))


def test_a_build_says_names_of_the_npz_without_their_escapes(tmp_path: Path) -> None:
    tree = own(tmp_path)
    names = np.array([f"a/{ESCAPES}{row}.jpg" for row in range(6)])
    tree.save(imgname=names, **{"\x1b[2Jkey": np.zeros(3)})
    for more in ([], ["--dry-run"], ["--on-error", "fail"]):
        result = tree.build(*more)
        assert is_clean(result), result
    said = tree.build("--dry-run").out
    assert "\\x1b]0;owned\\x07\\x1b[2J[red]\\u202e\\r\\n" in said.replace("\n", "")


def test_escaping_leaves_what_is_printable() -> None:
    assert plain("Größe 日本 [red] ✓") == "Größe 日本 [red] ✓"
    assert plain("a\x1bb\u202e\ud800\n") == "a\\x1bb\\u202e\\ud800\\n"


def test_a_folder_of_other_files_is_no_unfinished_build(tmp_path: Path) -> None:
    (tmp_path / "backup.tar").write_bytes(b"x")
    (tmp_path / "table.arrow").write_bytes(b"x")
    for command in ("verify", "info"):
        assert "no shards there" in error_line(refit(command, tmp_path))
    assert "no shards there" in error_line(refit("preview", tmp_path, "--out", tmp_path / "x.png"))
    (tmp_path / f"{STEM}.tar").write_bytes(b"x")
    assert "its build is not finished" in refit("verify", tmp_path).out


def test_out_below_the_home_folder_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = own(tmp_path / "tree")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    command = tree.command()
    command[command.index("--out") + 1] = "~/shards"
    assert refit(*command).code == 0
    assert (tmp_path / "home/shards/own/manifest.json").is_file()
    assert "~" not in os.listdir(tmp_path)
