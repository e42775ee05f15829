"""Annotations that nobody vouches for: what is read, what is quarantined, what is refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard.converter.annotations.remaps import parse_remaps
from refit_shard.converter.annotations.source import Annotations, frame_path
from refit_shard.converter.annotations.source import _Names as Names
from refit_shard.converter.annotations.spool import Spool
from tests.searches import examples
from tests.small import (
    Own,
    encoded,
    error_line,
    hashes,
    index_rows,
    own,
    picture,
    quarantine,
    refit,
)


def rows_of(tree: Own) -> dict[int, dict[str, Any]]:
    """Index rows by source row."""
    return {row["source_row"]: row for row in index_rows(tree.out)}


def spoilt(tree: Own, key: str, row: int, value: Any) -> Any:
    """A column with all or one number of a row changed."""
    column = tree.columns[key].copy()
    column[row] = value
    return column


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("scale", 0.0, "bad_box"),
        ("scale", -1.0, "bad_box"),
        ("scale", 1e-9, "bad_box"),
        ("scale", np.nan, "bad_box"),
        ("scale", np.inf, "bad_box"),
        ("scale", 1e307, "bad_box"),
        ("center", np.nan, "bad_box"),
        ("center", (np.inf, 3.0), "bad_box"),
        ("center", (5000.0, 10.0), "box_outside_image"),
        ("center", (30.0, -500.0), "box_outside_image"),
        ("center", (1e300, -1e300), "bad_box"),
        ("center", (1e6, -1e6), "box_outside_image"),
        ("part", np.nan, "nonfinite_label"),
        ("openpose", -np.inf, "nonfinite_label"),
        ("part", 1e300, "nonfinite_label"),  # infinite as float32
        ("pose", np.nan, "nonfinite_label"),
        ("shape", np.inf, "nonfinite_label"),
        ("S", np.nan, "nonfinite_label"),
    ],
)
def test_a_row_of_unusable_numbers_is_quarantined_alone(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    tree = own(tmp_path)
    tree.save(**{key: spoilt(tree, key, 3, value)})
    result = tree.build()
    assert result.code == 0, result.err
    assert quarantine(tree.out) == {3: reason}
    assert f"1 {reason}" in result.out
    assert sorted(rows_of(tree)) == [0, 1, 2, 4, 5]
    assert refit("verify", tree.out).code == 0


def test_one_nan_among_a_row_s_numbers_is_enough(tmp_path: Path) -> None:
    tree = own(tmp_path)
    part = tree.columns["part"].copy()
    part[4, 17, 1] = np.nan
    tree.save(part=part)
    assert tree.build().code == 0
    assert quarantine(tree.out) == {4: "nonfinite_label"}


def test_an_enormous_box_over_the_whole_frame_is_stored(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(scale=spoilt(tree, "scale", 0, 5.0))
    assert tree.build().code == 0
    row = rows_of(tree)[0]
    assert row["window"] == [0, 0, 96, 64]
    assert row["width"] == pytest.approx(96 * 256 / 1000, abs=0.5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"center": np.zeros((6, 3))}, "'center' must have shape (6, 2), got (6, 3)"),
        ({"scale": np.ones(5)}, "'scale' must have shape (6,), got (5,)"),
        ({"part": np.zeros((6, 25, 3))}, "'part' must have shape (6, 24, 3), got (6, 25, 3)"),
        ({"pose": np.zeros((7, 72))}, "'pose' must have shape (6, 72), got (7, 72)"),
        ({"gender": np.array(["m"] * 4)}, "'gender' must have shape (6,), got (4,)"),
        ({"imgname": np.array([["a"] * 2] * 6)}, "'imgname' must have shape (N,), got (6, 2)"),
        ({"imgname": np.arange(6)}, "'imgname' must be strings, got dtype int64"),
        ({"center": np.zeros((6, 2), complex)}, "'center' must be numbers, got dtype complex128"),
        ({"scale": np.ones(6, "M8[s]")}, "'scale' must be numbers, got dtype datetime64[s]"),
        ({"scale": None}, "key 'scale' is missing; found: imgname, center, part"),
        ({"imgname": None}, "key 'imgname' is missing"),
    ],
)
def test_a_wrong_shape_or_kind_is_one_line_with_key_expected_and_found(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    tree = own(tmp_path)
    tree.save(**changed)
    result = tree.build()
    assert result.code == 1
    line = error_line(result)
    assert said in line
    assert str(tree.npz) in line
    assert not tree.out.exists()


@pytest.mark.parametrize("kind", ["U", "S"])
def test_numeric_strings_are_read_and_other_strings_quarantine_their_row(
    tmp_path: Path, kind: str
) -> None:
    tree = own(tmp_path)
    plain = tree.columns["scale"]
    tree.save(scale=plain.astype(f"{kind}32"))
    assert tree.build().code == 0
    assert [row["scale"] for _, row in sorted(rows_of(tree).items())] == plain.tolist()

    texts = plain.astype(f"{kind}32")
    texts[2] = "big"
    tree.save(scale=texts)
    assert tree.build("--overwrite").code == 0
    assert quarantine(tree.out) == {2: "bad_box"}


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize("key", ["imgname", "center", "part", "gender", "has_smpl"])
def test_an_object_array_is_refused_and_not_unpickled(tmp_path: Path, key: str) -> None:
    planted = tmp_path / "planted"
    tree = own(tmp_path)
    column = np.empty(6, object)
    column[:] = [Bomb(planted)] * 6
    tree.save(**{key: column})
    result = tree.build()
    assert result.code == 1
    assert repr(key) in error_line(result)
    assert not planted.exists()


def test_an_unused_object_array_is_left_alone(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    tree = own(tmp_path)
    column = np.empty(6, object)
    column[:] = [Bomb(planted)] * 6
    tree.save(extra=column)
    result = tree.build()
    assert result.code == 0
    assert "not used: extra" in result.err
    assert not planted.exists()
    np.load(tree.npz, allow_pickle=True)["extra"]
    assert planted.exists(), "the planted pickle does nothing: the test proves nothing"


def test_names_that_leave_the_root_are_refused_and_those_inside_are_found(tmp_path: Path) -> None:
    tree = own(tmp_path)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(".jpg", picture(1)))
    names = {
        "../secret.jpg": "path_outside_root",
        "a/../../secret.jpg": "path_outside_root",
        str(secret): "path_outside_root",
        f"{tree.root}/../secret.jpg": "path_outside_root",
        f"{tree.root}x/000.jpg": "path_outside_root",
        "": "path_outside_root",
        ".": "path_outside_root",
        "..": "path_outside_root",
        "a/": "unreadable",
        str(tree.root / "a/000.jpg"): None,
        "a/../a/001.jpg": None,
        "./a//002.jpg": None,
        "a/000.jpg/b.jpg": "missing",
    }
    count = len(names)
    tree.save(**dict.fromkeys(tree.columns))
    tree.save(
        imgname=np.array(list(names)),
        center=np.full((count, 2), 30.0),
        scale=np.linspace(0.2, 0.3, count),
    )
    result = tree.build()
    assert result.code == 0, result.err
    wanted = {row: reason for row, reason in enumerate(names.values()) if reason}
    assert quarantine(tree.out) == wanted
    assert len(rows_of(tree)) == 3


def test_a_root_behind_a_link_takes_absolute_names_below_it(tmp_path: Path) -> None:
    tree = own(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tree.root)
    tree.save(imgname=np.array([str(link / name) for name in tree.names]))
    where = ["--root", link, "--name", "own", "--out", tmp_path / "shards"]
    result = refit("build", "--npz", tree.npz, *where, "--workers", 0)
    assert result.code == 0, result.err
    assert len(rows_of(tree)) == 6


def test_frames_of_one_name_written_differently_are_one_frame(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(imgname=np.array(["a/000.jpg", "./a/000.jpg", "a//000.jpg"] + ["a/001.jpg"] * 3))
    assert tree.build("--json").code == 0
    assert '"frames": 2' in tree.build("--json").out


def test_names_as_bytes_and_names_that_are_not_text(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(imgname=np.array([name.encode() for name in tree.names]))
    assert tree.build().code == 0
    assert {row["imgname"] for row in rows_of(tree).values()} == set(tree.names)

    names = [name.encode() for name in tree.names]
    names[1] = b"a/\xff\xfe.jpg"
    tree.save(imgname=np.array(names))
    assert tree.build("--overwrite").code == 0
    assert quarantine(tree.out) == {1: "bad_imgname"}


def test_a_name_of_half_a_surrogate_pair_is_quarantined(tmp_path: Path) -> None:
    tree = own(tmp_path)
    names = [*tree.names]
    names[1] = "a/\udcff.jpg"  # what os.listdir gives for a name that is not UTF-8
    tree.save(imgname=np.array(names))
    result = tree.build()
    assert result.code == 0, result.err
    assert quarantine(tree.out) == {1: "bad_imgname"}


def test_one_name_of_absurd_length_is_quarantined_and_makes_no_sample_larger(
    tmp_path: Path,
) -> None:
    tree = own(tmp_path)
    assert tree.build().code == 0
    before = (tree.out / "own-000000.tar").stat().st_size
    tree.save(imgname=np.array([*tree.names[:5], "a/" + "x" * 100_000]))
    assert tree.build("--overwrite").code == 0
    assert quarantine(tree.out) == {5: "bad_imgname"}
    (tar,) = tree.out.glob("*.tar")
    assert tar.stat().st_size < before


@given(
    st.lists(st.text("ab/.\\\0é ", max_size=9) | st.sampled_from(["a/b", "..", "/r/a", ""])),
    st.booleans(),
)
@settings(max_examples=examples(300))
def test_names_that_are_looked_at_together_are_as_each_by_itself(
    names: list[str], is_remapped: bool
) -> None:
    remaps = parse_remaps(["a/=b/"]) if is_remapped else ()
    source = Annotations(
        npz="",
        total=len(names),
        records=Spool(np.dtype([])),
        labels={},
        found=(),
        absent=(),
        unused=(),
    )
    looked = Names("/r", remaps)
    for begin in range(0, len(names), 4):
        looked.add(source, names[begin : begin + 4])
    paths = [frame_path(name, "/r", remaps) for name in names]
    assert source.imgnames == names
    assert source.paths == [path or "" for path in paths]
    outside = {row: "path_outside_root" for row, path in enumerate(paths) if path is None}
    assert {row: fault.reason for row, fault in source.faults.items()} == outside


def test_other_alphabets_in_names(tmp_path: Path) -> None:
    tree = Own(tmp_path, ["кадр/ü 0.jpg", "кадр/人 1.jpg"])
    assert tree.build().code == 0
    assert {row["imgname"] for row in rows_of(tree).values()} == set(tree.names)
    assert refit("verify", tree.out).code == 0


def test_a_row_that_repeats_another_is_quarantined_and_a_second_person_is_not(
    tmp_path: Path,
) -> None:
    tree = own(tmp_path)
    for value in tree.columns.values():
        value[3] = value[2]
        value[5] = value[2]
    tree.columns["pose"][5, 0] += 1.0  # the same box, another body
    tree.save()
    assert tree.build().code == 0
    assert quarantine(tree.out) == {3: "duplicate_row"}


def test_an_empty_npz_and_one_that_is_none(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(**{key: value[:0] for key, value in tree.columns.items()})
    assert "holds no rows" in error_line(tree.build())
    cut = tree.npz.read_bytes()[:-400]
    for data, said in ((b"", "is empty"), (b"text", "not an npz file"), (cut, "not an npz file")):
        tree.npz.write_bytes(data)
        result = tree.build()
        assert result.code == 1
        assert said in error_line(result)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_in_the_npz_is_named(tmp_path: Path, save: Callable[..., None]) -> None:
    tree = own(tmp_path)
    save(tree.npz, **tree.columns)
    with zipfile.ZipFile(tree.npz) as archive:
        at = archive.getinfo("part.npy").header_offset + 1000
    data = bytearray(tree.npz.read_bytes())
    data[at : at + 40] = bytes(40)
    tree.npz.write_bytes(data)
    result = tree.build()
    assert result.code == 1
    assert "part" in error_line(result)
    assert "damaged" in error_line(result)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), change=st.integers(1, 255), compressed=st.booleans())
def test_a_changed_byte_in_the_npz_never_ends_in_a_traceback(
    tmp_path: Path, at: int, change: int, compressed: bool
) -> None:
    tree = own(tmp_path, rows=2)
    (np.savez_compressed if compressed else np.savez)(tree.npz, **tree.columns)  # type: ignore[arg-type]
    data = bytearray(tree.npz.read_bytes())
    data[-1 - at % len(data)] ^= change
    tree.npz.write_bytes(data)
    result = refit(*tree.command("--overwrite", "--max-bad", 1, "--json"))
    assert result.code in (0, 1)
    assert "Traceback" not in result.err


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    tree = own(tmp_path)
    assert tree.build("--limit", 4).code == 0
    assert sorted(rows_of(tree)) == [0, 1, 2, 3]
    assert refit("verify", tree.out).code == 0
    assert tree.build("--limit", 100, "--overwrite").code == 0
    assert sorted(rows_of(tree)) == list(range(6))


def test_remap_replaces_the_first_prefix_that_fits(tmp_path: Path) -> None:
    tree = own(tmp_path)
    (tree.root / "b").mkdir()
    (tree.root / "a/000.jpg").rename(tree.root / "b/x000.jpg")
    result = tree.build("--remap", "a/000=b/x000", "--remap", "a/=a/")
    assert result.code == 0
    assert quarantine(tree.out) == {}
    assert {row["imgname"] for row in rows_of(tree).values()} == set(tree.names)
    before = hashes(tree.out)
    outside = tree.build("--remap", "a/=../", "--overwrite")
    assert outside.code == 1
    assert "6 rows cannot be used: path_outside_root; first, row 0 (a/000.jpg)" in outside.err
    assert "a check failed (rows)" in error_line(outside)
    assert hashes(tree.out) == before


def test_labels_that_do_not_fit_the_frame_are_quarantined(tmp_path: Path) -> None:
    tree = own(tmp_path)
    shapes = np.tile([64, 96], (6, 1))
    shapes[1] = 96, 64
    shapes[2] = 480, 640
    tree.save(orig_shape=shapes)
    assert tree.build().code == 0
    assert quarantine(tree.out) == {1: "size_mismatch", 2: "size_mismatch"}


def test_dtypes_and_shapes_that_mean_the_same_are_read(tmp_path: Path) -> None:
    tree = own(tmp_path)
    plain = dict(tree.columns)
    tree.save(
        scale=plain["scale"].astype(np.float32)[:, None],
        part=plain["part"].reshape(6, 72).astype(">f8"),
        gender=np.array([b"M", b"f", b"female", b"?", b"", b"Male"]),
        has_smpl=np.array([1, 0, 1, 1, 1, 0], np.uint8)[:, None],
    )
    assert tree.build().code == 0
    rows = rows_of(tree)
    assert [rows[row]["gender"] for row in range(6)] == [0, 1, 1, -1, -1, 0]
    assert [rows[row]["has_smpl"] for row in range(6)] == [True, False, True, True, True, False]
    assert not np.any(rows[1]["pose"])
    assert rows[0]["pose"] == plain["pose"][0].astype(np.float32).tolist()
    assert rows[0]["keypoints"][75:] == plain["part"][0].ravel().astype(np.float32).tolist()
    assert rows[0]["scale"] == np.float32(plain["scale"][0])


def test_extrinsics_need_all_three_keys(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(cam_R=np.ones((6, 3, 3)), cam_t=np.ones((6, 3)))
    assert tree.build().code == 0
    assert "cam_R" not in rows_of(tree)[0]
    tree.save(trans=np.full((6, 3), 2.0))
    assert tree.build("--overwrite").code == 0
    assert rows_of(tree)[0]["trans"] == [2.0, 2.0, 2.0]
    assert refit("verify", tree.out).code == 0


def test_all_rows_bad_fails_whatever_is_allowed(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(scale=np.zeros(6))
    result = refit(*tree.command("--max-bad", 1))
    assert result.code == 1
    said = "all 6 rows are in quarantine (6 bad_box), so there is nothing to publish"
    assert said in error_line(result)
    assert not (tree.out / "manifest.json").exists()
    assert len(quarantine(tree.out)) == 6
