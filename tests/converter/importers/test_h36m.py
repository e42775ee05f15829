"""Human3.6M's CDF and masks: values worked out by hand, a scalar reference, links that lead out."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from benchmarks.annotations import write_cdf, write_h36m, write_masks
from tests.converter.importers.command import imported, refused
from tests.small import error_line, refit

# What of Human3.6M's 32 joints stands at each of SPIN's 24 places, if anything.
OF_32 = {
    **{14: 11, 3: 6, 4: 7, 5: 8, 2: 1, 1: 2, 0: 3, 16: 12, 12: 24, 17: 14, 18: 15},
    **{9: 17, 10: 18, 11: 19, 8: 25, 7: 26, 6: 27},
}


def mask_of(x0: int, y0: int, x1: int, y1: int, height: int = 60, width: int = 50) -> Any:
    """A mask whose corners alone are set: x1 and y1 are exclusive."""
    mask = np.zeros((height, width))
    mask[y0, x0] = mask[y1 - 1, x1 - 1] = 1
    return mask


def test_the_values_of_one_row_by_hand(tmp_path: Path) -> None:
    """A mask from x 10 to 29 and y 5 to 44 is the box 10, 5, 30, 45: centre (20, 25), scale
    0.9 * 40 / 200 = 0.18. Joint 11 at (1000, 200, 5000) mm, joint 6 at (1100, 0, 4500) mm.
    """
    d3, d2 = np.zeros((1, 96)), np.zeros((1, 64))
    d3[0, 33:36] = 1000, 200, 5000
    d3[0, 18:21] = 1100, 0, 4500
    d2[0, 22:24] = 512, 300.5
    d2[0, 12:14] = 500, 310
    write_h36m(tmp_path, 1, "Directions 1.54138969", d3, d2, [mask_of(10, 5, 30, 45)])
    found = imported(tmp_path / "o.npz", tmp_path)
    assert found["imgname"].tolist() == ["images/S1_Directions_1.54138969_000001.jpg"]
    assert found["center"].tolist() == [[20, 25]]
    np.testing.assert_allclose(found["scale"], [0.18])
    assert found["part"][0, 14].tolist() == [512, 300.5, 1]
    assert found["part"][0, 3].tolist() == [500, 310, 1]
    assert found["S"][0, 14].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(found["S"][0, 3], [0.1, -0.2, -0.5, 1])
    for place in (13, 15, 19, 20, 21, 22, 23):
        assert not found["part"][0, place].any()
    assert found.keys() == {"imgname", "center", "scale", "part", "S"}


def make_tree(root: Path) -> list[tuple[str, Any, Any, Any]]:
    """Three sequences of two subjects, one of validation, and one that is no action."""
    made = []
    for number, (subject, name, frames) in enumerate(
        [(1, "Eating.55011271", 11), (1, "WalkDog 1.60457274", 6), (8, "Photo.58860488", 1)]
    ):
        rng = np.random.default_rng(number)
        d3, d2 = rng.normal(0, 900, (frames, 96)), rng.uniform(0, 1000, (frames, 64))
        corners = rng.integers(0, 20, (frames, 2)), rng.integers(30, 50, (frames, 2))
        masks = [mask_of(*low, *high) for low, high in zip(*corners, strict=True)]
        write_h36m(root, subject, name, d3, d2, masks)
        made.append((f"images/S{subject}_{name.replace(' ', '_')}", d3, d2, masks))
    write_h36m(root, 9, "Eating.55011271", d3, d2, masks)
    write_h36m(root, 1, "_ALL.55011271", d3, d2, masks)
    return made


def test_every_fifth_frame_equals_a_scalar_reference(tmp_path: Path) -> None:
    made = make_tree(tmp_path)
    found = imported(tmp_path / "o.npz", tmp_path, also=["--workers", 2])
    row = 0
    for stem, d3, d2, masks in made:
        for frame in range(len(d3)):
            if frame % 5:
                continue
            assert found["imgname"][row] == f"{stem}_{frame + 1:06d}.jpg"
            seen = [
                (x, y)
                for y, line in enumerate(masks[frame])
                for x, value in enumerate(line)
                if value == 1
            ]
            x0, y0 = min(x for x, _ in seen), min(y for _, y in seen)
            x1, y1 = max(x for x, _ in seen) + 1, max(y for _, y in seen) + 1
            assert found["center"][row].tolist() == [(x0 + x1) / 2, (y0 + y1) / 2]
            np.testing.assert_allclose(found["scale"][row], 0.9 * max(x1 - x0, y1 - y0) / 200)
            for place, joint in OF_32.items():
                assert found["part"][row, place].tolist() == [*d2[frame, 2 * joint :][:2], 1]
                metres = [(d3[frame, 3 * joint + k] - d3[frame, 33 + k]) / 1000 for k in range(3)]
                np.testing.assert_allclose(found["S"][row, place], [*metres, 1], atol=1e-12)
            row += 1
    assert row == len(found["imgname"]) == 6


def test_frames_without_a_mask_are_left_out(tmp_path: Path) -> None:
    """The second that counts has an empty one, the third none."""
    rng = np.random.default_rng(0)
    masks = [mask_of(1, 1, 9, 9)] * 5 + [np.zeros((60, 50))] * 5
    write_h36m(tmp_path, 5, "A.1", rng.normal(size=(11, 96)), rng.normal(size=(11, 64)), masks)
    result = refit("import-annotations", tmp_path, "--out", tmp_path / "o.npz")
    assert result.code == 0, result.err
    counts = dict(line.rsplit(maxsplit=1) for line in result.out.splitlines()[2:6])
    assert counts == {
        "kept": "1",
        "passed over: 1 frame in 5 is kept": "8",
        "no mask": "1",
        "an empty mask": "1",
    }


def test_compressed_variables_are_read(tmp_path: Path) -> None:
    write_h36m(tmp_path, 1, "A.1", np.ones((1, 96)), np.ones((1, 64)), [mask_of(1, 1, 9, 9)])
    path = tmp_path / "S1/MyPoseFeatures/D2_Positions/A.1.cdf"
    path.unlink()
    write_cdf(path, np.full((1, 64), 7.0), compress=6)
    assert (imported(tmp_path / "o.npz", tmp_path)["part"][0, 0] == [7, 7, 1]).all()


def outward(path: Path, secret: Path, kind: str) -> None:
    """Masks of which one, or all, lead to another file."""
    with h5py.File(path, "w") as file:
        reference = np.empty((1, 1), h5py.ref_dtype)
        if kind == "link":
            file["Masks"] = h5py.ExternalLink(str(secret), "Masks")
            return
        if kind == "soft":
            reference[0, 0] = file.create_dataset("m", data=mask_of(1, 1, 9, 9).T).ref
            file.create_dataset("held/M", data=reference)
            file["Masks"] = h5py.SoftLink("/held/M")
            return
        if kind == "virtual":
            layout = h5py.VirtualLayout((50, 60), np.uint8)
            layout[:] = h5py.VirtualSource(str(secret), "secret", (50, 60))
            data = file.create_virtual_dataset("m", layout)
        elif kind == "external":
            shape = {"shape": (50, 60), "dtype": np.uint8}
            data = file.create_dataset("m", **shape, external=[(str(secret), 0, 3000)])
        else:
            data = file.create_group("m")
        reference[0, 0] = data.ref
        file.create_dataset("Masks", data=reference)


@pytest.mark.parametrize("kind", ["link", "soft", "virtual", "external", "group"])
def test_masks_that_lead_out_of_their_file_are_refused(tmp_path: Path, kind: str) -> None:
    write_h36m(tmp_path, 1, "A.1", np.ones((1, 96)), np.ones((1, 64)), [mask_of(1, 1, 9, 9)])
    secret = write_masks(tmp_path / "secret.mat", [mask_of(1, 1, 9, 9)])
    with h5py.File(secret, "r+") as file:
        file["secret"] = np.ones((50, 60), np.uint8)
    path = tmp_path / "S1/MySegmentsMat/ground_truth_bb/A.1.mat"
    outward(path, secret, kind)
    result = refused(tmp_path / "o.npz", tmp_path)
    assert result.code == 1
    line = error_line(result)
    assert str(path) in line
    assert "or is in another file" in line or "not stored in this file as plain data" in line


@pytest.mark.parametrize("file", ["D3_Positions_mono", "D2_Positions", "ground_truth_bb"])
@pytest.mark.parametrize("damage", ["missing", "cut", "text", "short"])
def test_a_file_that_is_not_as_it_must_be_is_named(tmp_path: Path, file: str, damage: str) -> None:
    write_h36m(tmp_path, 1, "A.1", np.ones((6, 96)), np.ones((6, 64)), [mask_of(1, 1, 9, 9)] * 6)
    (path,) = tmp_path.rglob(f"{file}/A.1.*")
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 3])
    if damage == "text":
        path.write_text("neither CDF nor MATLAB")
    if damage == "short" and path.suffix == ".mat":
        with h5py.File(path, "w") as other:
            other["Masks"] = np.zeros((6, 1))
    if damage == "short" and path.suffix == ".cdf":
        path.unlink()
        write_cdf(path, np.ones((6, 32)))
    result = refused(tmp_path / "o.npz", tmp_path)
    assert result.code == (2 if (file, damage) == ("D3_Positions_mono", "missing") else 1)
    assert str(path if path.exists() else "") in error_line(result) or damage == "missing"


def test_a_mask_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    """Chunks that were never written are zeros to HDF5, as many as the header says."""
    write_h36m(tmp_path, 1, "A.1", np.ones((1, 96)), np.ones((1, 64)), [mask_of(1, 1, 9, 9)])
    path = tmp_path / "S1/MySegmentsMat/ground_truth_bb/A.1.mat"
    with h5py.File(path, "w") as file:
        big = file.create_dataset("m", (1 << 20, 1 << 20), np.uint8, chunks=(64, 64))
        file.create_dataset("Masks", data=np.array([[big.ref]], h5py.ref_dtype))
    line = error_line(refused(tmp_path / "o.npz", tmp_path))
    assert "mask 0 is of shape (1048576, 1048576)" in line
