"""3DPW's pickles: values worked out by hand, a scalar reference, layouts, and hostile ones."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.annotations import sequence_3dpw, write_pickle, write_zip
from tests.converter.importers.command import imported, refused
from tests.converter.importers.reference import box, matrix_of, times, vector_of
from tests.small import error_line


def test_the_values_of_one_row_by_hand(tmp_path: Path) -> None:
    """Joints seen from x 10 to 110 and y 20 to 220, one unseen far off: centre (60, 120), scale
    1.2 * 200 / 200 = 1.2. A root turned by pi/4 about z, seen by a camera turned by pi/2: 3 pi/4.
    The second frame's camera is not valid.
    """
    points = np.zeros((2, 3, 18))
    points[:, :, 0] = 10, 220, 0.5
    points[:, :, 1] = 110, 20, 0.1
    points[:, :, 2] = 5000, 5000, 0
    points[:, :, 3:] = np.array([50, 50, 1.0])[:, None]
    cameras = np.tile(np.eye(4), (2, 1, 1))
    cameras[:, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose = np.zeros((2, 72))
    pose[:, 2] = math.pi / 4
    pose[:, 71] = 0.3
    content = {
        "sequence": "downtown_arguing_00",
        "genders": ["f"],
        "poses": [pose],
        "betas": [np.arange(300.0)],
        "poses2d": [points],
        "cam_poses": cameras,
        "campose_valid": [np.array([1, 0])],
    }
    path = write_pickle(tmp_path / "s.pkl", content)
    found = imported(tmp_path / "o.npz", path)
    assert found["imgname"].tolist() == ["imageFiles/downtown_arguing_00/image_00000.jpg"]
    np.testing.assert_allclose(found["center"], [[60, 120]])
    np.testing.assert_allclose(found["scale"], [1.2])
    np.testing.assert_allclose(found["pose"][0, :3], [0, 0, 3 * math.pi / 4], atol=1e-12)
    assert found["pose"][0, 71] == 0.3
    assert found["shape"].tolist() == [list(range(10))]
    assert found["gender"].tolist() == ["f"]
    assert found.keys() == {"imgname", "center", "scale", "pose", "shape", "gender"}


def reference(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of one sequence, by scalars."""
    rows = []
    for person, gender in enumerate(content["genders"]):
        for frame in range(len(content["poses"][person])):
            if not content["campose_valid"][person][frame]:
                continue
            xs, ys, sure = content["poses2d"][person][frame]
            seen = [(x, y) for x, y, c in zip(xs, ys, sure, strict=True) if c > 0]
            center, scale = box(seen, 1.2)
            pose = list(content["poses"][person][frame])
            camera = [row[:3] for row in content["cam_poses"][frame][:3]]
            pose[:3] = vector_of(times(camera, matrix_of(pose[:3])))
            name = f"imageFiles/{content['sequence']}/image_{frame:05d}.jpg"
            rows.append((name, center, scale, pose, content["betas"][person][:10], gender))
    return rows


def check(found: dict[str, Any], contents: list[dict[str, Any]]) -> None:
    """That an npz holds the rows of sequences, in their order."""
    expected = [row for content in contents for row in reference(content)]
    assert found["imgname"].tolist() == [row[0] for row in expected]
    assert found["gender"].tolist() == [row[5] for row in expected]
    for key, at in (("center", 1), ("scale", 2), ("pose", 3), ("shape", 4)):
        np.testing.assert_allclose(found[key], [row[at] for row in expected], atol=1e-9)


def make_tree(root: Path) -> dict[str, list[dict[str, Any]]]:
    """3DPW's sequenceFiles, written in another order than that of the names."""
    made = {}
    for number, split in enumerate(("train", "validation", "test")):
        contents = [sequence_3dpw(9, 2, 10 * number + i, f"{split}_{i}") for i in range(3)]
        for content in reversed(contents):
            name = f"sequenceFiles/{split}/{content['sequence']}.pkl"
            write_pickle(root / name, content)
        made[split] = contents
    return made


@pytest.mark.parametrize(("dataset", "split"), [("3dpw", "train"), ("3dpw_test", "test")])
@pytest.mark.parametrize("place", ["root", "folder", "split", "zip", "flat zip"])
def test_each_layout_equals_a_scalar_reference(
    tmp_path: Path, place: str, dataset: str, split: str
) -> None:
    root = tmp_path / "3dpw"
    made = make_tree(root)
    source = {
        "root": root,
        "folder": root / "sequenceFiles",
        "split": root / "sequenceFiles" / split,
        "zip": tmp_path / "sequenceFiles.zip",
        "flat zip": tmp_path / "flat.zip",
    }[place]
    files = {str(path.relative_to(root)): path for path in root.rglob("*.pkl")}
    write_zip(tmp_path / "sequenceFiles.zip", files)
    flat = {Path(name).name: path for name, path in files.items() if f"/{split}/" in name}
    write_zip(tmp_path / "flat.zip", flat)
    check(imported(tmp_path / "o.npz", source, also=["--dataset", dataset]), made[split])


def test_lists_of_people_may_be_arrays(tmp_path: Path) -> None:
    content = sequence_3dpw(6, 2)
    arrays = {key: np.array(content[key]) for key in ("poses", "poses2d", "campose_valid")}
    path = write_pickle(tmp_path / "s.pkl", {**content, **arrays})
    check(imported(tmp_path / "o.npz", path), [content])


def test_splits_side_by_side_need_a_choice(tmp_path: Path) -> None:
    make_tree(tmp_path)
    result = refused(tmp_path / "o.npz", tmp_path)
    assert result.code == 2
    assert "--dataset 3dpw for train" in error_line(result)


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_another_split_than_asked_for_is_not_taken(place: str, tmp_path: Path) -> None:
    """Where a download was not finished, say."""
    path = write_pickle(tmp_path / "sequenceFiles/train/s.pkl", sequence_3dpw(5, 1))
    write_zip(tmp_path / "some.zip", {"sequenceFiles/train/s.pkl": path})
    source = tmp_path / ("some.zip" if place == "zip" else "sequenceFiles")
    result = refused(tmp_path / "o.npz", source, also=["--dataset", "3dpw_test"])
    assert result.code == 2
    assert "3DPW's test, from which 3dpw_test is made, is missing; found: train" in error_line(
        result
    )


def test_a_frame_without_a_joint_is_left_out(tmp_path: Path) -> None:
    content = sequence_3dpw(5, 1)
    content["campose_valid"] = [np.ones(5)]
    content["poses2d"][0][2, 2] = 0
    found = imported(tmp_path / "o.npz", write_pickle(tmp_path / "s.pkl", content))
    assert [name[-7:-4] for name in found["imgname"].tolist()] == ["000", "001", "003", "004"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("poses", [np.zeros((5, 69))]),
        ("poses", np.zeros((2, 5, 72))),
        ("poses", {}),
        ("betas", [np.zeros(9)]),
        ("betas", []),
        ("poses2d", [np.zeros((5, 18, 3))]),
        ("campose_valid", [np.zeros(4)]),
        ("cam_poses", np.zeros((5, 4, 4))),
        ("cam_poses", None),
        ("genders", ["x"]),
        ("genders", [["m"]]),
        ("sequence", "../../etc"),
        ("sequence", 5),
        ("sequence", "x" * 300),
    ],
)
def test_a_content_that_is_not_3dpw_s_is_one_line(tmp_path: Path, key: str, value: Any) -> None:
    content = {**sequence_3dpw(5, 1), "campose_valid": [np.ones(5)], key: value}
    result = refused(tmp_path / "o.npz", write_pickle(tmp_path / "s.pkl", content))
    assert result.code == 1
    assert "s.pkl: not a sequence of 3DPW" in error_line(result)


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, planted: Path) -> None:
        self.planted = planted

    def __reduce__(self) -> Any:
        return Path.touch, (self.planted,)


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    content = {**sequence_3dpw(5, 1), "extra": Evil(planted)}
    path = tmp_path / "s.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    result = refused(tmp_path / "o.npz", path)
    assert result.code == 1
    assert "does not need" in error_line(result)
    assert not planted.exists()
