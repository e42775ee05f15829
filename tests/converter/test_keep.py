"""Labels of one's own on their way into shards: what is kept, and what is refused with its line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refit_shard import ShardSet
from refit_shard.converter.annotations.keep import parse_keeps
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.own import TABLES
from tests.small import Own, error_line, hashes, index_rows, own, refit, samples_of

ROWS = 6


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """Six people in three frames."""
    return own(tmp_path, rows=ROWS)


def kept(tree: Own, **arrays: NDArray[Any]) -> dict[str, Any]:
    """Each array as the built set gives it back, in the rows' order; verified."""
    tree.save(**arrays)
    result = tree.build("--keep", ",".join(arrays))
    assert result.code == 0, result.err
    assert refit("verify", tree.out).code == 0
    return {name: [sample[name] for sample in samples_of(tree.out)] for name in arrays}


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", ">f4", ">i2"),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_numbers_come_back_as_they_were(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    tree = own(tmp_path, rows=ROWS)
    values = np.random.default_rng(0).integers(0, 100, (ROWS, *shape)).astype(dtype)
    found = np.array(kept(tree, mine=values)["mine"])
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.shape == values.shape
    assert np.array_equal(found, values)


def test_float64_becomes_float32_unless_told(tree: Own) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, 2))
    tree.save(short=values, long=values)
    assert tree.build("--keep", "short", "--keep", "long:float64").code == 0
    row, sample = 3, samples_of(tree.out)[3]
    assert sample["short"].dtype == np.float32
    assert np.array_equal(sample["short"], values[row].astype(np.float32))
    assert sample["long"].dtype == np.float64
    assert np.array_equal(sample["long"], values[row])


def test_strings_of_any_kind_are_kept(tree: Own) -> None:
    words = ["", "walking", "läuft", "走る", "a b,c:d", "x" * 300]
    text = np.array(words)
    data = np.array([word.encode() for word in words])
    found = kept(tree, text=text, data=data, empty=np.array([""] * ROWS))
    assert found["text"] == found["data"] == words
    assert found["empty"] == [""] * ROWS


def test_nan_is_kept_and_costs_no_row(tree: Own) -> None:
    values = np.full((ROWS, 3), np.nan, np.float32)
    values[1] = np.inf
    values[2] = -0.0
    found = np.array(kept(tree, mine=values)["mine"])
    assert found.tobytes() == values.tobytes()
    assert len(index_rows(tree.out)) == ROWS


def test_own_labels_change_neither_the_rows_nor_the_pixels(tree: Own, tmp_path: Path) -> None:
    """Also where two rows differ in nothing else: a repeat is one by the labels that all have."""
    center, repeat = tree.columns["center"], np.arange(ROWS)
    repeat[1] = 0  # in the same frame
    tree.save(**{name: values[repeat] for name, values in tree.columns.items()})
    assert center.shape == (ROWS, 2)
    assert tree.build().code == 0
    plain = {row["source_row"]: row for row in index_rows(tree.out)}
    tree.save(mine=np.arange(ROWS))
    out = tmp_path / "more"
    assert refit(*tree.command("--max-bad", 0.9, "--keep", "mine", "--out", out)).code == 0
    own_rows = index_rows(out / "own")
    assert {row.pop("mine") == row["source_row"] for row in own_rows} == {True}
    same = ("jpg_crc32c", "shard", "window", "keypoints")
    for row in own_rows:
        assert [row[name] for name in same] == [plain[row["source_row"]][name] for name in same]
    assert sorted(row["source_row"] for row in own_rows) == sorted(plain)
    assert 1 not in plain


def test_what_is_kept_is_a_part_of_the_build(tree: Own) -> None:
    tree.save(mine=np.zeros((ROWS, 2)), other=np.zeros(ROWS))
    assert tree.build("--keep", "mine:points2d").code == 0
    before = hashes(tree.out)
    assert tree.build("--keep", "mine:points2d").code == 0
    for changed in (("--keep", "mine"), ("--keep", "mine:points2d,other"), ()):
        result = tree.build(*changed)
        assert result.code == 2
        assert "with other columns (--keep differs)" in error_line(result)
    assert hashes(tree.out) == before


def test_what_is_kept_is_said(tree: Own) -> None:
    tree.save(smplx_pose=np.zeros((ROWS, 165)), word=np.array(["a"] * ROWS))
    said = tree.build("--keep", "smplx_pose,word").err
    assert "own: kept smplx_pose float32[165] (axis_angle), word string (none)" in said
    assert "not used: smplx_pose" not in said
    assert "own labels: smplx_pose float32[165] (axis_angle), word" in refit("info", tree.out).out
    assert json.loads(refit("info", tree.out, "--json").out)[0]["labels"][1] == "word string (none)"


def refused(tree: Own, keep: str, **arrays: Any) -> str:
    """The line that a build with a kept array ends with; nothing is left of it."""
    tree.save(**arrays)
    result = tree.build("--keep", keep)
    assert result.code in (1, 2)
    assert not tree.out.exists()
    return error_line(result)


@pytest.mark.parametrize(
    ("keep", "array", "said"),
    [
        ("mine", None, "'mine': is missing; found: imgname, center"),
        ("mine", np.zeros(5), "must have 6 rows like 'imgname', got (5,)"),
        ("mine", np.zeros(()), "must have 6 rows"),
        ("mine", np.zeros((6, 0)), "a row of shape (0,)"),
        ("mine", np.zeros((6,) + (1,) * 9), "cannot be kept"),
        ("mine", np.zeros(6, complex), "must be numbers or strings, got complex128"),
        ("mine", np.zeros(6, "M8[s]"), "must be numbers or strings"),
        ("mine", np.array([{}] * 6), "holds Python objects"),
        ("mine", np.array([["a", "b"]] * 6), "cannot be kept"),
        ("mine", np.array([b"\xff"] * 6), "row 0: b'\\xff' is not UTF-8"),
        ("mine", np.zeros((6, 1 << 17)), "too many labels are kept: a row has more than"),
        ("mine:points2d", np.zeros((6, 3, 2)), "points2d needs a table of what a mirror exchanges"),
        ("mine:points2d=coco", np.zeros((6, 3, 2)), "the permutation has 17 entries, a row 3"),
        ("mine:points2d=coco", np.zeros((6, 34)), "the permutation has 17 entries, a row 1"),
        ("mine:points2d=coco", np.zeros((6, 17, 2), int), "must be floating-point numbers"),
        ("mine:points3d=coco", np.zeros((6, 17, 2)), "must hold 3 or more numbers a point"),
        ("mine:permute=coco", np.zeros(6), "the permutation has 17 entries, a row []"),
        ("mine:axis_angle=smplx", np.zeros((6, 72)), "55 joints have 165 numbers, a row [72]"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_build(
    tree: Own, keep: str, array: Any, said: str
) -> None:
    arrays = {} if array is None else {"mine": array}
    assert said in refused(tree, keep, **arrays)


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("pose", "not a possible name of an own label"),
        ("img", "not a possible name of an own label"),
        ("has_contact", "not a possible name of an own label"),
        ("", "must be NAME"),
        ("a,,b", "must be NAME"),
        ("a:wiggle", "MOTION one of none, permute, points2d"),
        ("a:none=coco", "none takes no TABLE"),
        ("a:points2d=", "must be NAME"),
        ("a:permute=coco:points2d=coco", "must be NAME"),
        ("a,b,a", "'a' is declared twice"),
        ("a:permute=nowhere.json", "nowhere.json: No such file"),
        ("a:permute=.", "not a regular file"),
        ("a:permute=/dev/zero", "not a regular file"),
    ],
)
def test_a_wrong_declaration_is_wrong_use(tree: Own, keep: str, said: str) -> None:
    result = tree.build("--keep", keep)
    assert result.code == 2
    assert said in error_line(result)


@pytest.mark.parametrize(
    "content", [b"", b"[0, 2, 1", b"{}", b"[1, 2, 0]", b"[" * 10_000, b"\xff", b"1" * (2 << 20)]
)
def test_a_file_that_is_no_permutation_is_wrong_use(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "flip.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"flip\.json: "):
        parse_keeps(["a:permute=flip.json"], tmp_path)


def test_a_declaration_s_parts() -> None:
    by_name, told, wide = parse_keeps(
        ["smplx_pose, smplx_pose2:axis_angle=smplx", "c:float64:none"]
    )
    assert (
        (by_name.kind, by_name.table) == (told.kind, told.table) == ("axis_angle", TABLES["smplx"])
    )
    assert wide.wide
    assert wide.kind == "none"
    assert parse_keeps(["smplx_pose:none"])[0].table is None


def test_more_labels_than_numpy_reads_the_names_of_are_refused(tree: Own) -> None:
    many = {f"label_with_a_long_name_{number:040d}": np.zeros(ROWS) for number in range(150)}
    assert "in a .npy's header, more than 10000" in refused(tree, ",".join(many), **many)


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
def test_labels_read_in_slices_of_any_size_are_the_same(
    tree: Own, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("refit_shard.converter.annotations.npz._SLICE_BYTES", size)
    numbers = np.asfortranarray(np.arange(ROWS * 6.0).reshape(ROWS, 2, 3))
    words = ["a", "läuft", "", "bb", "走る", "c" * 40]
    found = kept(tree, numbers=numbers, word=np.array(words), more=numbers[:, 0])
    assert np.array_equal(np.array(found["numbers"]), numbers)
    assert np.array_equal(np.array(found["more"]), numbers[:, 0])
    assert found["word"] == words


def test_of_an_npz_that_is_used_in_part_so_are_its_labels(tree: Own) -> None:
    """The longest string of the rows in use is what a record has room for."""
    words = np.array(["a", "bb", "ccc", "d", "e", "f" * 99])
    tree.save(word=words, number=np.arange(ROWS))
    assert tree.build("--keep", "word,number", "--limit", 4).code == 0
    assert [sample["word"] for sample in samples_of(tree.out)] == words[:4].tolist()
    assert [int(sample["number"]) for sample in samples_of(tree.out)] == [0, 1, 2, 3]
    assert ShardSet.open(str(tree.out)).own[0].width == 3
    assert refit("verify", tree.out).code == 0
