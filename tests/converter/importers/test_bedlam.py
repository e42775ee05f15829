"""BEDLAM's labels: values worked out by hand, a reference of meshes, layouts, and other models."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.annotations import bedlam_scene, write_npz, write_zip
from tests.converter.importers.command import imported, refused
from tests.converter.importers.joints_reference import extra_regressor, spin_joints
from tests.loaders.body_model import JOINTS, VERTICES, licensed_bytes, make_body
from tests.small import error_line, refit

SCENE = "20221010_3_1000_batch01hand_6fps"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without body models at data/smpl, whatever the checkout has there."""
    monkeypatch.chdir(tmp_path)


def write_smpl(folder: Path, body: dict[str, Any], extra: Any, *, pickled: bool = False) -> Path:
    """A folder with the two files that joints need."""
    folder.mkdir(parents=True)
    if pickled:
        (folder / "SMPL_NEUTRAL.pkl").write_bytes(licensed_bytes(body))
    else:
        np.savez(folder / "SMPL_NEUTRAL.npz", **cast(Any, body))
    np.save(folder / "J_regressor_extra.npy", extra)
    return folder


def still_body() -> tuple[dict[str, Any], Any]:
    """A body that pose and shape do not change, but for its bones: joint j is vertex j, each row r
    of the extra regressor is vertex 100 + r.
    """
    body = make_body(0)
    body["shapedirs"][:] = 0
    body["posedirs"][:] = 0
    body["v_template"][:] = 0
    body["J_regressor"] = np.eye(JOINTS, VERTICES)
    extra = np.zeros((9, VERTICES))
    extra[np.arange(9), 100 + np.arange(9)] = 1
    return body, extra


def test_the_values_of_one_row_by_hand(tmp_path: Path) -> None:
    """Right ankle (joint 8) at (1, 2, 0) and pelvis (row 4 of the regressor, vertex 104) at
    (0, 1, 0) of a body at rest, at trans_cam (0, 0, 4) + cam_ext's (0, 0, 1). With a focal length
    of (400 + 600) / 2 = 500 and a principal point of (360, 640): 500 * 1 / 5 + 360 = 460 and
    500 * 2 / 5 + 640 = 840; the pelvis at (360, 500 * 1 / 5 + 640 = 740). Scale 1.5 * 1.12 = 1.68.
    """
    body, extra = still_body()
    body["v_template"][8] = 1, 2, 0
    body["v_template"][104] = 0, 1, 0
    smpl = write_smpl(tmp_path / "smpl", body, extra)
    scene = bedlam_scene(1)
    scene["pose_cam"][:] = 0
    scene["trans_cam"][:] = 0, 0, 4
    scene["cam_ext"][:, :3, 3] = 0, 0, 1
    scene["cam_int"][:] = [[400, 0, 360], [0, 600, 640], [0, 0, 1]]
    scene["scale"][:] = 1.5
    path = write_npz(tmp_path / f"{SCENE}.npz", scene)
    found = imported(tmp_path / "o.npz", path, also=["--smpl", smpl])
    assert found["imgname"].tolist() == [f"{SCENE}/png/seq_000000/seq_000000_0000.png"]
    np.testing.assert_allclose(found["part"][0, 0], [460, 840, 1])
    np.testing.assert_allclose(found["part"][0, 14], [360, 740, 1])
    np.testing.assert_allclose(found["S"][0, 0], [1, 1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found["S"][0, 14], [0, 0, 0, 1], atol=1e-12)
    assert found["img_focal"].tolist() == [500]
    assert found["img_center"].tolist() == [[360, 640]]
    np.testing.assert_allclose(found["scale"], [1.68])
    assert found["center"].tolist() == scene["center"].tolist()
    assert found["pose"].tolist() == scene["pose_cam"].tolist()
    assert found["shape"].tolist() == scene["shape"][:, :10].tolist()


@pytest.mark.parametrize("pickled", [False, True])
def test_joints_equal_those_of_meshes(tmp_path: Path, pickled: bool) -> None:
    body, extra = make_body(5), extra_regressor(6)
    smpl = write_smpl(tmp_path / "smpl", body, extra, pickled=pickled)
    scene = bedlam_scene(9)
    path = write_npz(tmp_path / f"{SCENE}.npz", scene)
    found = imported(tmp_path / "o.npz", path, also=["--smpl", smpl])
    for row in range(9):
        joints = spin_joints(body, extra, scene["pose_cam"][row], scene["shape"][row, :10])
        moved = joints + scene["trans_cam"][row] + scene["cam_ext"][row, :3, 3]
        np.testing.assert_allclose(found["S"][row, :, :3], moved - moved[14], atol=1e-9)
        for joint, (x, y, z) in enumerate(moved):
            pixel = 902 * x / z + 640, 902 * y / z + 360
            np.testing.assert_allclose(found["part"][row, joint, :2], pixel, rtol=1e-7)
    assert (found["S"][:, :, 3] == 1).all()
    assert (found["part"][:, :, 2] == 1).all()


def test_small_boxes_are_left_out(tmp_path: Path) -> None:
    """0.26 * 1.12 is 0.2912, 0.27 * 1.12 is 0.3024."""
    scene = bedlam_scene(4)
    scene["scale"][:] = 0.26, 0.27, 1, 0.1
    path = write_npz(tmp_path / f"{SCENE}.npz", scene)
    result = refit("import-annotations", path, "--out", tmp_path / "o.npz", "--json")
    said = json.loads(result.out)
    assert said["rows"] == 2
    assert said["left_out"] == {"scale of at most 0.3": 2}
    with np.load(tmp_path / "o.npz") as file:
        assert file["center"].tolist() == scene["center"][1:3].tolist()


def make_labels(folder: Path) -> dict[str, dict[str, Any]]:
    """Three scenes, and labels of AGORA's beside them as in the download."""
    scenes = {f"2022101{i}_scene": bedlam_scene(3 + i, seed=i) for i in range(3)}
    for name in ("2022101" + str(i) + "_scene" for i in (2, 0, 1)):
        write_npz(folder / f"{name}.npz", scenes[name])
    write_npz(folder / "agora-bfh.npz", bedlam_scene(2))
    return scenes


@pytest.mark.parametrize("place", ["folder", "zip", "stored zip", "flat zip", "files"])
def test_each_layout_gives_the_scenes_by_name(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "all_npz_12_smpl_training"
    scenes = make_labels(folder)
    files = {f"{folder.name}/{path.name}": path for path in folder.iterdir()}
    write_zip(tmp_path / "zip", files)
    write_zip(tmp_path / "stored zip", files, zipfile.ZIP_STORED)
    write_zip(tmp_path / "flat zip", {path.name: path for path in folder.iterdir()})
    given = {"folder": [folder], "files": sorted(folder.iterdir())}.get(place, [tmp_path / place])
    out = tmp_path / "o.npz"
    result = refit("import-annotations", *given, "--out", out)
    assert result.code == 0, result.err
    assert "agora-bfh.npz: labels of AGORA, not of a BEDLAM scene; left out" in result.out
    assert "missing: part, S: they need SMPL_NEUTRAL.pkl (or .npz) and J_reg" in result.out
    with np.load(out) as file:
        names = [f"{name}/png/{one}" for name, scene in scenes.items() for one in scene["imgname"]]
        assert file["imgname"].tolist() == names
        shape = np.concatenate([scene["shape"][:, :10] for scene in scenes.values()])
        np.testing.assert_array_equal(file["shape"], shape)
        wanted = {"imgname", "center", "scale", "pose", "shape", "img_focal", "img_center"}
        assert set(file) == wanted


def test_labels_of_smpl_x_are_told_from_smpl_s(tmp_path: Path) -> None:
    smpl = write_smpl(tmp_path / "smpl", make_body(1), extra_regressor(1))
    path = write_npz(tmp_path / "a.npz", bedlam_scene(4, pose=165))
    out = tmp_path / "o.npz"
    result = refit("import-annotations", path, "--out", out, "--smpl", smpl)
    assert result.code == 0, result.err
    said = "missing: pose, shape, part, S: pose_cam is SMPL-X's, with 165 numbers"
    assert said in result.out
    with np.load(out) as file:
        assert set(file) == {"imgname", "center", "scale", "img_focal", "img_center"}
    other = write_npz(tmp_path / "b.npz", bedlam_scene(4))
    result = refused(tmp_path / "p.npz", path, other)
    assert "b.npz: its pose_cam belongs to another body model" in error_line(result)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pose_cam", None, "has no pose_cam, so it is not one of BEDLAM's"),
        ("cam_int", None, "key 'cam_int' is missing"),
        ("center", np.zeros((4, 3)), r"center must be numbers of shape (4, 2), got float64 (4, 3)"),
        ("scale", np.zeros(3), "scale must be numbers of shape (4,)"),
        ("imgname", np.zeros(4), "imgname must be strings"),
        ("imgname", np.array([b"\xff"] * 4), "imgname is not UTF-8"),
        ("shape", np.zeros((4, 9)), "got 72 and 9"),
        ("pose_cam", np.zeros((4, 66)), "got 66 and 11"),
        ("pose_cam", np.array([[None] * 72] * 4), "pose_cam must be numbers"),
    ],
)
def test_a_scene_of_another_form_is_one_line(
    tmp_path: Path, key: str, value: Any, said: str
) -> None:
    scene = {**bedlam_scene(4), key: value}
    kept = {name: array for name, array in scene.items() if array is not None}
    result = refused(tmp_path / "o.npz", write_npz(tmp_path / "a.npz", kept))
    assert result.code == 1
    line = error_line(result)
    assert "a.npz: " in line
    assert said in line


def test_an_npz_in_spin_s_format_is_told_so(tmp_path: Path) -> None:
    made = {"imgname": np.array(["a"]), "pose": np.zeros((1, 72)), "part": np.zeros((1, 24, 3))}
    result = refused(tmp_path / "o.npz", write_npz(tmp_path / "a.npz", made))
    assert "it is in SPIN's format already: use it for build directly" in error_line(result)


@pytest.mark.parametrize("missing", ["SMPL_NEUTRAL.npz", "J_regressor_extra.npy"])
def test_body_models_that_were_asked_for_must_be_there(tmp_path: Path, missing: str) -> None:
    smpl = write_smpl(tmp_path / "smpl", make_body(1), extra_regressor(1))
    (smpl / missing).unlink()
    path = write_npz(tmp_path / "a.npz", bedlam_scene(1))
    result = refused(tmp_path / "o.npz", path, also=["--smpl", smpl])
    assert result.code == 2
    assert missing.removesuffix(".npz") in error_line(result)


@pytest.mark.parametrize("damage", ["cut", "member", "twice", "encrypted", "method"])
def test_a_zip_that_is_damaged_is_one_line(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "labels"
    make_labels(folder)
    path = write_zip(tmp_path / "labels.zip", {one.name: one for one in folder.iterdir()})
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    if damage == "member":
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(data)
    if damage == "encrypted":
        at = data.rindex(b"PK\x01\x02")
        data[at + 8] |= 1
        path.write_bytes(data)
    if damage in ("twice", "method"):
        method = zipfile.ZIP_LZMA if damage == "method" else zipfile.ZIP_STORED
        name = "agora-bfh.npz" if damage == "twice" else "z.npz"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "a", method) as archive:
            warnings.simplefilter("ignore")
            archive.writestr(name, b"x")
    result = refused(tmp_path / "o.npz", path)
    assert result.code in (1, 2)
    assert str(path) in error_line(result)
