"""MPI-INF-3DHP's mats: values worked out by hand, and a scalar reference of the whole selection."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.annotations import write_annot
from tests.converter.importers.command import imported, refused
from tests.converter.importers.reference import box
from tests.small import error_line, refit

# From SPIN's joints to 3DHP's 28: what stands at each of SPIN's 24 places, if anything.
OF_28 = {
    **{14: 4, 3: 18, 4: 19, 5: 20, 2: 23, 1: 24, 0: 25, 16: 3, 12: 5, 17: 6, 18: 7},
    **{9: 9, 10: 10, 11: 11, 8: 14, 7: 15, 6: 16},
}
USED_CAMERAS = [0, 1, 2, 4, 5, 6, 7, 8]


def test_the_values_of_one_row_by_hand(tmp_path: Path) -> None:
    """Joint 4 at (300, 500) and all others at (100, 200), so the box is 200 wide and 300 high:
    centre (200, 350), scale 1.2 * 300 / 200 = 1.8. Joint 4 at (1000, 0, 2000) mm and joint 18 at
    (1500, -250, 2000) mm: 0.5, -0.25 and 0 m from the pelvis.
    """
    points = np.tile([100.0, 200.0], (1, 28))
    points[0, 8:10] = 300, 500
    points_mm = np.zeros((1, 84))
    points_mm[0, 12:15] = 1000, 0, 2000
    points_mm[0, 54:57] = 1500, -250, 2000
    write_annot(tmp_path, 1, 1, {0: points}, {0: points_mm})
    found = imported(tmp_path / "o.npz", tmp_path)
    assert found["imgname"].tolist() == ["S1/Seq1/imageFrames/video_0/frame_000001.jpg"]
    np.testing.assert_allclose(found["center"], [[200, 350]])
    np.testing.assert_allclose(found["scale"], [1.8])
    np.testing.assert_allclose(found["part"][0, 14], [300, 500, 1])
    np.testing.assert_allclose(found["part"][0, 0], [100, 200, 1])
    np.testing.assert_allclose(found["S"][0, 14], [0, 0, 0, 1])
    np.testing.assert_allclose(found["S"][0, 3], [0.5, -0.25, 0, 1])
    for place in (13, 15, 19, 20, 21, 22, 23):
        assert not found["part"][0, place].any()
        assert not found["S"][0, place].any()


def make_tree(root: Path, frames: int) -> dict[tuple[int, int], tuple[Any, Any]]:
    """Three sequences with joints around the frame's border."""
    made = {}
    for number, (subject, sequence) in enumerate([(1, 2), (3, 1), (8, 2)]):
        rng = np.random.default_rng(number)
        cameras = range(14)
        annot2 = {c: rng.uniform(-20, 2068, (frames, 56)) for c in cameras}
        for c in cameras:  # most rows are inside
            inside = rng.random(frames) < 0.7
            annot2[c][inside] = rng.uniform(0, 2047.9, (int(inside.sum()), 56))
        annot3 = {c: rng.normal(0, 800, (frames, 84)) for c in cameras}
        packed = {"do_compression": bool(number % 2)}
        write_annot(root, subject, sequence, annot2, annot3, **packed)
        made[subject, sequence] = annot2, annot3
    return made


def test_the_selection_equals_a_scalar_reference(tmp_path: Path) -> None:
    """Every tenth row with all 17 joints inside, counted through cameras and sequences."""
    made = make_tree(tmp_path, 23)
    found = imported(tmp_path / "o.npz", tmp_path, also=["--workers", 2])
    expected, counter, outside = [], 0, 0
    for (subject, sequence), (annot2, annot3) in made.items():
        for camera in USED_CAMERAS:
            for frame in range(23):
                joints = {
                    place: (annot2[camera][frame][2 * j], annot2[camera][frame][2 * j + 1])
                    for place, j in OF_28.items()
                }
                if not all(0 <= x < 2048 and 0 <= y < 2048 for x, y in joints.values()):
                    outside += 1
                    continue
                counter += 1
                if counter % 10 != 1:
                    continue
                name = f"S{subject}/Seq{sequence}/imageFrames/video_{camera}"
                expected.append(
                    (f"{name}/frame_{frame + 1:06d}.jpg", joints, annot3[camera][frame])
                )
    assert found["imgname"].tolist() == [name for name, _, _ in expected]
    assert len(expected) > 20
    for row, (_, joints, mm) in enumerate(expected):
        center, scale = box(list(joints.values()), 1.2)
        np.testing.assert_allclose(found["center"][row], center)
        np.testing.assert_allclose(found["scale"][row], scale)
        for place, joint in OF_28.items():
            np.testing.assert_allclose(found["part"][row, place], [*joints[place], 1])
            metres = [(mm[3 * joint + k] - mm[12 + k]) / 1000 for k in range(3)]
            np.testing.assert_allclose(found["S"][row, place], [*metres, 1], atol=1e-12)
    result = refit("import-annotations", tmp_path, "--out", tmp_path / "p.npz")
    assert f"a joint outside the 2048 px  {outside:9d}".split() == next(
        line.split() for line in result.out.splitlines() if line.startswith("a joint outside")
    )
    assert (tmp_path / "o.npz").read_bytes() == (tmp_path / "p.npz").read_bytes()


@pytest.mark.parametrize(
    ("x", "y", "kept"),
    [(0, 0, True), (2047.99, 5, True), (2048, 5, False), (-0.01, 5, False), (5, 2048, False)],
)
def test_the_frame_s_border(tmp_path: Path, x: float, y: float, kept: bool) -> None:
    points = np.tile([100.0, 200.0], (2, 28))
    points[0, 50:52] = x, y  # joint 25, which is taken
    points[1, 0:2] = 9999, 9999  # joint 0, which is not
    write_annot(tmp_path, 2, 1, {4: points}, {4: np.zeros((2, 84))})
    (name,) = imported(tmp_path / "o.npz", tmp_path)["imgname"].tolist()
    assert name.endswith(f"video_4/frame_00000{1 if kept else 2}.jpg")


@pytest.mark.parametrize("damage", ["cut", "keys", "shape", "frames", "text", "v73", "empty"])
def test_what_is_no_annot_mat_is_one_line(tmp_path: Path, damage: str) -> None:
    points, points_mm = np.full((3, 56), 5.0), np.zeros((3, 84))
    if damage == "shape":
        points = points[:, :54]
    if damage == "frames":
        points_mm = points_mm[:2]
    if damage == "empty":
        points = points[:0]
        points_mm = points_mm[:0]
    path = write_annot(tmp_path, 1, 1, {0: points}, {0: points_mm})
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    if damage == "keys":
        path.write_bytes(whole.replace(b"annot3", b"annot9"))
    if damage == "text":
        path.write_text("not a mat")
    if damage == "v73":
        path.write_bytes(b"MATLAB 7.3 MAT-file" + whole)
    result = refused(tmp_path / "o.npz", tmp_path)
    assert result.code == 1
    assert str(path) in error_line(result)


def test_a_part_of_the_sequences_is_told(tmp_path: Path) -> None:
    make_tree(tmp_path, 12)
    said = refit("import-annotations", tmp_path, "--out", tmp_path / "o.npz").out
    assert "3 of 16 sequences exist (S1/Seq2, S3/Seq1, S8/Seq2)" in said
    assert "missing: pose, shape, has_smpl" in said
