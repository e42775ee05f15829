"""EFT's json: values worked out by hand, a scalar reference, and what is no such file."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.annotations import eft_entry, write_eft
from refit_shard.converter.importers.json_stream import MAX_VALUE_CHARS, JsonStream
from tests.converter.importers.command import imported, refused
from tests.converter.importers.reference import vector_of
from tests.searches import examples
from tests.small import encoded, error_line, picture, refit

EYES = np.tile(np.eye(3), (24, 1, 1))


def test_the_values_of_one_entry_by_hand(tmp_path: Path) -> None:
    """A quarter turn about z is (0, 0, pi/2), a half turn about x is (pi, 0, 0)."""
    pose = [np.eye(3).tolist() for _ in range(24)]
    pose[0] = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    pose[23] = [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
    points = [[float(joint), joint + 0.5, 1.0] for joint in range(49)]
    entry = eft_entry(
        "COCO_train2014_000000000009.jpg",
        parm_pose=pose,
        parm_shape=[0.1 * i for i in range(10)],
        bbox_center=[120.5, 80.25],
        bbox_scale=1.25,
        gt_keypoint_2d=points,
    )
    found = imported(tmp_path / "o.npz", write_eft(tmp_path / "c.json", [entry]))
    assert found["imgname"].tolist() == ["train2014/COCO_train2014_000000000009.jpg"]
    assert found["center"].tolist() == [[120.5, 80.25]]
    assert found["scale"].tolist() == [1.25]
    assert found["openpose"][0, [0, 24]].tolist() == [[0.0, 0.5, 1.0], [24.0, 24.5, 1.0]]
    assert found["part"][0, [0, 23]].tolist() == [[25.0, 25.5, 1.0], [48.0, 48.5, 1.0]]
    np.testing.assert_allclose(found["pose"][0, :3], [0, 0, math.pi / 2], atol=1e-12)
    np.testing.assert_allclose(np.abs(found["pose"][0, 69:]), [math.pi, 0, 0], atol=1e-12)
    assert not found["pose"][0, 3:69].any()
    np.testing.assert_allclose(found["shape"][0], [0.1 * i for i in range(10)])
    assert found["has_smpl"].tolist() == [1]
    assert "S" not in found


def test_many_entries_equal_a_scalar_reference(tmp_path: Path) -> None:
    """More than one batch; matrices as vectors of at most pi, lists as they are."""
    entries = [eft_entry(f"{i:09d}.jpg", seed=i) for i in range(700)]
    found = imported(tmp_path / "o.npz", write_eft(tmp_path / "m.json", entries, "MPII"))
    assert found["imgname"].tolist() == [f"images/{i:09d}.jpg" for i in range(700)]
    for row in range(0, 700, 23):
        entry = entries[row]
        assert found["center"][row].tolist() == entry["bbox_center"]
        assert found["part"][row].tolist() == entry["gt_keypoint_2d"][25:]
        assert found["openpose"][row].tolist() == entry["gt_keypoint_2d"][:25]
        vectors = [part for matrix in entry["parm_pose"] for part in vector_of(matrix)]
        np.testing.assert_allclose(found["pose"][row], vectors, atol=1e-9)


@pytest.mark.parametrize(
    ("dbname", "name", "expected"),
    [
        ("COCO2014-Part", "COCO_train2014_1.jpg", "train2014/COCO_train2014_1.jpg"),
        ("COCO2014-Val", "COCO_val2014_1.jpg", "val2014/COCO_val2014_1.jpg"),
        ("MPII", "000001163.jpg", "images/000001163.jpg"),
    ],
)
def test_where_the_images_of_each_set_lie(
    tmp_path: Path, dbname: str, name: str, expected: str
) -> None:
    path = write_eft(tmp_path / "e.json", [eft_entry(name)], dbname)
    assert imported(tmp_path / "o.npz", path)["imgname"].tolist() == [expected]


def test_keys_may_come_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(
        json.dumps({"data": [eft_entry("1.jpg")], "meta": {"dbname": "MPII"}}, indent=1)
    )
    assert imported(tmp_path / "o.npz", path)["imgname"].tolist() == ["images/1.jpg"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bbox_center": [1.0]}, r"entry 3: bbox_center must have shape \(2,\), got \(1,\)"),
        ({"parm_shape": "x"}, "entry 3: parm_shape must be numbers"),
        ({"gt_keypoint_2d": [[1, 2], [3]]}, "entry 3: gt_keypoint_2d must be numbers"),
        (
            {"parm_pose": (2 * EYES).tolist()},
            "entry 3: parm_pose .* not rot",
        ),
        (
            {"parm_pose": (-EYES).tolist()},
            "entry 3: parm_pose .* not rot",
        ),
        ({"imageName": 5}, "entry 3 has no imageName"),
        ({"imageName": "x" * 5000}, "entry 3 has no imageName, or one that is not a file's name"),
    ],
)
def test_an_entry_of_another_form_is_named(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    entries = [eft_entry(f"{i}.jpg", seed=i) for i in range(5)]
    entries[3] |= changed
    result = refused(tmp_path / "o.npz", write_eft(tmp_path / "e.json", entries))
    assert result.code == 1
    line = error_line(result)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"data": [1',
        '{"data": {}}',
        '{"meta": {"dbname": "LSPet"}, "data": []}',
        '{"images": [' + "1," * 3_000_000 + "1]}",
        '{"data": [' + "[" * 100_000 + "]}",
        '{"data": [], "data": []}',
        '{"data": []} more',
        '{"meta": "\ud800'.encode("utf-8", "surrogatepass").decode("latin1"),
        "<!doctype html><html>",
    ],
    ids=range(13),
)
def test_what_is_no_such_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "e.json"
    path.write_bytes(text.encode("latin1"))
    result = refused(tmp_path / "o.npz", path)
    assert result.code == 1
    assert str(path) in error_line(result)


@pytest.mark.parametrize("images", [1, 300_000], ids=["small", "large"])
def test_coco_s_own_annotations_are_answered_with_the_page_of_own_data(
    tmp_path: Path, images: int
) -> None:
    path = tmp_path / "person_keypoints_val2017.json"
    listed = ",".join(['{"id": 1, "file_name": "1.jpg"}'] * images)
    path.write_text(f'{{"info": {{}}, "images": [{listed}], "annotations": []}}')
    result = refused(tmp_path / "o.npz", path)
    assert result.code == 1
    assert "docs/guides/own-data.md" in error_line(result)


def test_another_data_set_than_asked_for_is_refused(tmp_path: Path) -> None:
    path = write_eft(tmp_path / "e.json", [eft_entry("1.jpg")], "MPII")
    result = refused(tmp_path / "o.npz", path, also=["--dataset", "coco"])
    assert result.code == 2
    assert "is of 'mpii', --dataset says 'coco'" in error_line(result)
    other = write_eft(tmp_path / "f.json", [eft_entry("1.jpg")])
    result = refused(tmp_path / "o.npz", path, other)
    assert "import each into its own npz" in error_line(result)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=examples(100))
@given(st.dictionaries(st.text(), JSON), st.lists(JSON), st.sampled_from([None, 1]), st.booleans())
def test_a_stream_of_values_is_what_json_reads(
    beside: dict[str, Any], values: list[Any], indent: int | None, ascii_only: bool
) -> None:
    """Read in pieces of a few characters, so that every value is cut somewhere."""
    content = {**beside, "data": values}
    data = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode()
    read: dict[str, Any] = {"data": []}
    counted: list[int] = []
    with patch("refit_shard.converter.importers.json_stream._CHUNK", 3):
        for key, value in JsonStream(io.BytesIO(data), counted.append).members("data"):
            if key == "data":
                read["data"].append(value)
            else:
                read[key] = value
    assert read == json.loads(data)
    assert sum(counted) == len(data)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A gigabyte that never ends a value is left after a few MB of it."""
    path = tmp_path / "e.json"
    with path.open("wb") as stream:
        stream.write(b'{"data": ["')
        stream.truncate(1 << 30)
    read: list[int] = []
    with path.open("rb") as stream, pytest.raises(ValueError, match="more than"):
        for _ in JsonStream(stream, read.append).members("data"):
            pass
    assert sum(read) < 3 * MAX_VALUE_CHARS


def test_the_npz_goes_straight_into_a_build(tmp_path: Path) -> None:
    box = {"bbox_center": [48, 32], "bbox_scale": 0.25, "gt_keypoint_2d": [[40.0, 30.0, 1.0]] * 49}
    entries = [eft_entry(f"{i}.jpg", i, **box) for i in range(4)]
    out = tmp_path / "mpii.npz"
    imported(out, write_eft(tmp_path / "e.json", entries, "MPII"))
    (tmp_path / "root/images").mkdir(parents=True)
    for i in range(4):
        (tmp_path / f"root/images/{i}.jpg").write_bytes(encoded(".jpg", picture(i)))
    what = ["--npz", out, "--root", tmp_path / "root", "--name", "own", "--out", tmp_path / "s"]
    result = refit("build", *what, "--workers", 0)
    assert result.code == 0, result.err
    assert refit("verify", tmp_path / "s").code == 0
    assert "4 of 4" in result.out
