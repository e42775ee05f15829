"""A build begins with a look at its labels and some frames: what cannot be right stops it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.trees import Tree, make_config, make_tree
from refit_shard.converter.doctor.findings import Limits
from tests.small import HEIGHT, WIDTH, Result, encoded, error_line, own, picture, refit

Labels = dict[str, Any]


class Spoilt:
    """A tree of a registered dataset whose npz is another's to change."""

    def __init__(self, tree: Tree, folder: Path) -> None:
        self.name = tree.name
        self.npz = folder / "labels.npz"
        self.out = folder / "out"
        self.labels: Labels = dict(np.load(tree.npz))
        self.config = folder / "config.py"
        variable = {"bedlam": "BEDLAM_ROOT", "coco": "COCO_ROOT", "3dpw": "PW3D_ROOT"}[tree.name]
        files = {tree.name: str(self.npz)}
        self.config.write_text(f"{variable} = {str(tree.root)!r}\nDATASET_FILES = [{{}}, {files}]")

    def build(self, *args: object) -> Result:
        """Build from the labels as they are now; None leaves a key out."""
        np.savez(self.npz, **{k: v for k, v in self.labels.items() if v is not None})
        where = ["--data-config", self.config, "--out", self.out, "--workers", 0]
        return refit("build", "--dataset", self.name, *where, *args)

    def doctor(self, *args: object) -> Result:
        """Examine them."""
        return refit("doctor", "--data-config", self.config, *args)


@pytest.fixture
def bedlam(bedlam_tree: Tree, tmp_path: Path) -> Spoilt:
    """Has every key that a camera and SMPL need."""
    return Spoilt(bedlam_tree, tmp_path)


def multiply(key: str, factor: float) -> Callable[[Labels], None]:
    def spoil(labels: Labels) -> None:
        labels[key] = labels[key] * factor

    return spoil


def rename(old: str, new: str | None) -> Callable[[Labels], None]:
    def spoil(labels: Labels) -> None:
        values = labels.pop(old)
        labels.update({} if new is None else {new: values})

    return spoil


def boxes_in_pixels(labels: Labels) -> None:
    labels["scale"] *= 200


def another_size(labels: Labels) -> None:
    """Labels of frames of 2560x1440; orig_shape would quarantine them, so nobody wrote it."""
    labels["img_center"] = labels["img_center"] * 2.0
    labels["orig_shape"] = None


def turned(labels: Labels) -> None:
    """Portrait labels, though not where BEDLAM's own portrait scenes have their middle."""
    labels["img_center"] = np.tile([361.0, 640.0], (len(labels["scale"]), 1))
    labels["orig_shape"] = None


def larger_frames(labels: Labels) -> None:
    """Labels whose boxes begin in the frame and end beyond it; no key says of what size it was."""
    for key in ("center", "part", "openpose"):
        labels[key][..., 0] += 1300
    labels["scale"] = np.full(len(labels["scale"]), 15.0)
    for key in ("img_center", "img_focal", "orig_shape"):
        labels[key] = None


def boxes_as_shares(labels: Labels) -> None:
    labels["center"] = labels["center"] / [1280, 720]
    for key in ("part", "openpose"):
        labels[key][:, :, 2] = 0


def shares_of_the_frame(labels: Labels) -> None:
    for key in ("part", "openpose"):
        labels[key][:, :, :2] = labels[key][:, :, :2] / [1280, 720] * 2 - 1


def of_other_rows(labels: Labels) -> None:
    for key in ("part", "openpose"):
        labels[key][:, :, :2] += 3000


def millimetres(labels: Labels) -> None:
    labels["S"][:, :, :3] *= 1000


WRONG: list[tuple[str, Callable[[Labels], None], list[str]]] = [
    ("frames", boxes_in_pixels, ["huge_box", "scale is the box's side in pixels divided by 200"]),
    ("frames", another_size, ["other_size", "img_center is the middle of 2560x1440"]),
    ("frames", turned, ["turned_size", "a quarter"]),
    ("frames", larger_frames, ["center_outside_image", "the labels are for larger frames"]),
    ("frames", multiply("orig_shape", 2), ["wrong_size", "orig_shape says 2560x1440"]),
    ("labels", shares_of_the_frame, ["keypoints_off_box", "in pixels of the whole frame"]),
    ("labels", of_other_rows, ["keypoints_off_box", "in the order of imgname"]),
    ("labels", boxes_as_shares, ["box_in_first_pixel", "in pixels"]),
    ("labels", multiply("pose", 57.3), ["pose_not_radians", "radians"]),
    ("labels", multiply("pose", 0.0), ["blank_pose", "has_smpl"]),
    ("labels", millimetres, ["joints_not_metres", "metres"]),
    ("smpl", rename("pose", "pose_cam"), ["no pose beside shape", "pose = pose_cam[:, :72]"]),
    ("smpl", rename("shape", "betas"), ["no shape beside pose", "shape = betas[:, :10]"]),
    ("smpl", rename("shape", None), ["no shape beside pose", "pose (N, 72) in radians"]),
    ("camera", rename("img_center", None), ["img_focal without img_center", "add img_center"]),
    ("camera", rename("img_focal", "f"), ["img_center without img_focal", "leave img_center out"]),
    ("rows", multiply("scale", -1.0), ["bad_box"]),
]


@pytest.mark.parametrize(("check", "spoil", "words"), WRONG)
def test_labels_that_cannot_be_right_stop_the_build_with_what_to_do(
    bedlam: Spoilt, check: str, spoil: Callable[[Labels], None], words: list[str]
) -> None:
    spoil(bedlam.labels)
    result = bedlam.build()
    assert result.code == 1
    assert f"bedlam: not built: a check failed ({check})" in error_line(result)
    assert "--skip-checks" in error_line(result)
    (line,) = [line for line in result.err.splitlines() if line.startswith("FAIL")]
    for word in words:
        assert word in line
    assert " -> " in line
    assert not bedlam.out.exists()
    said = bedlam.doctor("--sample", 4).out.splitlines()
    assert [one for one in said if one.startswith("FAIL  bedlam") and words[0] in one]


@pytest.mark.parametrize("spoil", [boxes_in_pixels, another_size, rename("pose", "pose_cam")])
def test_whoever_knows_better_builds_all_the_same(
    bedlam: Spoilt, spoil: Callable[[Labels], None]
) -> None:
    spoil(bedlam.labels)
    result = bedlam.build("--skip-checks")
    assert result.code == 0, result.err
    assert "WARN" not in result.err
    assert (bedlam.out / "bedlam" / "manifest.json").is_file()


def test_a_dry_run_finds_the_same_and_says_the_plan(bedlam: Spoilt) -> None:
    boxes_in_pixels(bedlam.labels)
    bedlam.labels["pose"][4] = np.nan
    result = bedlam.build("--dry-run")
    assert result.code == 1
    assert "huge_box" in result.err
    assert "1 rows cannot be used: nonfinite_label; first, row 4 (" in result.err
    assert "nothing was written" in result.out
    (plan,) = json.loads(bedlam.build("--dry-run", "--json").out)
    assert [(one["check"], one["status"]) for one in plan["findings"]] == [("frames", "fail")]
    assert [(one["reason"], one["rows"], one["first_row"]) for one in plan["unusable"]] == [
        ("nonfinite_label", 1, 4)
    ]
    assert bedlam.build("--dry-run", "--skip-checks").code == 0
    assert not bedlam.out.exists()


def test_what_concerns_single_rows_is_counted_and_does_not_stop(bedlam: Spoilt) -> None:
    labels = bedlam.labels
    labels["scale"][3] *= 300
    labels["part"][5, :, :2] += 5000
    labels["openpose"][5, :, :2] += 5000
    labels["scale"][6] = 0
    labels["center"][7] = np.nan
    result = bedlam.build("--max-bad", 0.2)
    assert result.code == 0, result.err
    assert "2 rows cannot be used: bad_box; first, row 6 (" in result.err
    summary = [line for line in result.out.splitlines() if line.startswith("bedlam: warning: ")]
    rows = len(labels["scale"]) - 2
    assert [line.split(";")[0] for line in summary] == [
        f"bedlam: warning: 1 of {rows} rows: keypoints_off_box: the 2D keypoints are not where the "
        "box is",
        f"bedlam: warning: 1 of {rows} rows checked (12 of 12 frames): huge_box",
    ]
    (checked,) = json.loads(bedlam.build("--max-bad", 0.2, "--overwrite", "--json").out)["checked"]
    assert [one["status"] for one in checked["findings"]] == ["warn", "warn"]
    assert [one["rows"] for one in checked["unusable"]] == [2]


def test_no_true_layout_gives_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {
        **{"bedlam": 4, "agora": 3, "coco": 3, "mpii": 1},
        **{"mpi-inf-3dhp": 1, "h36m": 2, "3dpw": 2, "3dpw_test": 3},
    }
    trees = [make_tree(name, tmp_path, frames=count) for name, count in frames.items()]
    config = make_config(tmp_path, trees)
    monkeypatch.chdir(tmp_path)
    assert refit("subset-3dpw", "--rows", 5).code == 0
    names = [part for name in (*frames, "3dpw_test_sub") for part in ("--dataset", name)]
    result = refit("build", "--data-config", config, *names, "--dry-run", "--json")
    assert result.code == 0
    assert [one["findings"] for one in json.loads(result.out)] == [[]] * 9


def test_true_oddities_are_at_most_warnings(tmp_path: Path) -> None:
    """Boxes that leave their frame by far, a lens off the middle, blank keypoints, a few fits that
    are missing, an upper body's box with the joints of the whole body.
    """
    tree = own(tmp_path, rows=40)
    for key in ("part", "openpose"):
        tree.columns[key][:, :, 2] = 1
    tree.columns["center"][:12] = [WIDTH + 10, HEIGHT / 2]
    for key in ("part", "openpose"):
        tree.columns[key][:12, :, 0] += WIDTH - 30
    tree.columns["part"][12:20] = 0
    tree.columns["openpose"][12:30, :, 2] = 0
    tree.columns["part"][30:, 12:, 1] += 300
    tree.columns["pose"][5:9] = 0
    middle = np.tile([WIDTH / 2 + 12, HEIGHT / 2], (40, 1))
    tree.save(img_focal=np.full(40, 90.0), img_center=middle)
    result = tree.build()
    assert result.code == 0, result.err
    assert "FAIL" not in result.err
    for word in ("center_outside_image", "off_centre_camera", "blank_pose"):
        assert word in result.out


def test_an_own_data_set_needs_no_smpl_and_hears_of_half_of_it(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(pose=None, shape=None)
    assert "WARN" not in tree.build().err
    pose = np.ones((6, 72))
    tree.save(pose=pose)
    result = tree.build("--overwrite")
    assert result.code == 0
    assert "no shape beside pose" in result.out
    tree.save(pose=None, global_orient=pose[:, :3], body_pose=pose[:, 3:], cam_R=np.ones((6, 3, 3)))
    result = tree.build("--overwrite")
    assert result.code == 0
    assert "global_orient and body_pose: not read under these names" in result.out
    assert "cam_R without cam_t and trans: not used" in result.out
    tree.save(part=None, openpose=None)
    assert "built without 2D keypoints" in tree.build("--overwrite").out


# ------------------------------------------------------------------------------------ frames


def test_missing_frames_stop_it_only_where_max_bad_would(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=400)
    for index in range(60):
        (tree.root / f"a/{index:03d}.jpg").unlink()
    stopped = refit(*tree.command())
    assert stopped.code == 1
    assert "120 of 400 rows have no frame below" in stopped.err
    assert "failed (present)" in error_line(stopped)
    assert not tree.out.exists()
    went_on = refit(*tree.command("--max-bad", 0.3))
    assert went_on.code == 0, went_on.err
    assert "120 missing" in went_on.out
    assert "rows checked (50 of 200 frames): missing" in went_on.err


def test_damaged_frames_stop_it_where_they_are_many(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=80)
    for index in range(20):
        tree.put(f"a/{index:03d}.jpg", encoded(".jpg", picture(index))[:700])
    stopped = refit(*tree.command())
    assert stopped.code == 1
    assert "corrupt; first, row 0 (a/000.jpg)" in stopped.err
    assert not tree.out.exists()
    assert tree.build().code == 0


def test_resized_frames_are_found_by_their_boxes(tmp_path: Path, coco_tree: Tree) -> None:
    coco = Spoilt(coco_tree, tmp_path)
    root = tmp_path / "small"
    for path in coco_tree.root.rglob("*.jpg"):
        frame = cv2.imread(str(path))
        assert frame is not None
        small = cv2.resize(frame, None, fx=0.25, fy=0.25)
        place = root / path.relative_to(coco_tree.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), small)
    coco.config.write_text(coco.config.read_text().replace(str(coco_tree.root), str(root)))
    result = coco.build()
    assert result.code == 1
    assert "failed (frames)" in error_line(result)


def test_names_that_leave_the_root_stop_it_with_the_remap(tmp_path: Path) -> None:
    tree = own(tmp_path)
    tree.save(imgname=np.array([f"/elsewhere/data/{name}" for name in tree.names]))
    result = refit(*tree.command())
    assert result.code == 1
    assert "build with: the same command and --remap /elsewhere/data/=" in result.err
    assert refit(*tree.command("--remap", "/elsewhere/data/=")).code == 0


# ------------------------------------------------------------------------------- the command


def test_ray_is_not_started_for_what_is_not_built(
    bedlam: Spoilt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("refit_shard.converter.build.run.ray_session", start)
    boxes_in_pixels(bedlam.labels)
    assert bedlam.build("--workers", 2).code == 1


def test_one_data_set_that_is_wrong_does_not_keep_the_next_from_being_built(
    tmp_path: Path, bedlam_tree: Tree, coco_tree: Tree
) -> None:
    labels = dict(np.load(bedlam_tree.npz))
    boxes_in_pixels(labels)
    np.savez(tmp_path / "bedlam.npz", **labels)
    files = {"bedlam": str(tmp_path / "bedlam.npz"), "coco": str(coco_tree.npz)}
    roots = f"BEDLAM_ROOT = {str(bedlam_tree.root)!r}\nCOCO_ROOT = {str(coco_tree.root)!r}\n"
    config = tmp_path / "config.py"
    config.write_text(f"{roots}DATASET_FILES = [{{}}, {files}]")
    names = ["--dataset", "bedlam", "--dataset", "coco"]
    where = ["--data-config", config, "--out", tmp_path / "out", "--workers", 0, "--json"]
    result = refit("build", *names, *where)
    assert result.code == 1
    said = json.loads(result.out)
    assert [one["dataset"] for one in said["built"]] == ["coco"]
    assert said["errors"][0].startswith("bedlam: not built: a check failed (frames)")
    assert [one["dataset"] for one in said["checked"]] == ["bedlam", "coco"]


def test_a_build_that_is_published_is_not_looked_at_again(tmp_path: Path) -> None:
    tree = own(tmp_path)
    assert tree.build().code == 0
    for path in (tree.root / "a").iterdir():
        path.unlink()
    result = tree.build()
    assert result.code == 0, result.err
    assert "rows checked" not in result.err


def test_a_sample_decides_only_what_chance_cannot() -> None:
    limits = Limits(max_bad=0.05, certain=True)
    assert limits.grade("corrupt", 8, 50) == "warn"  # chance at 5 % gives 8 once in 300 builds
    assert limits.grade("corrupt", 9, 50) == "fail"
    assert limits.grade("corrupt", 2, 3) == "fail"
    assert limits.grade("corrupt", 50_700, 1_000_000) == "fail"
    assert limits.grade("keypoints_off_box", 25, 50) == "warn"
    assert limits.grade("keypoints_off_box", 26, 50) == "fail"
    assert limits.grade("off_centre_camera", 50, 50) == "warn"
    assert Limits(max_bad=1.0, certain=True).grade("missing", 50, 50) == "warn"
    assert Limits().grade("corrupt", 3, 50) == "fail"
    assert Limits().grade("corrupt", 2, 50) == "warn"
