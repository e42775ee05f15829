"""Each fault is planted in a dataset that was fine, and the doctor names it and its fix."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.doctor.dataset import (
    DatasetPaths,
    Report,
    check_dataset,
    check_disk,
    check_npz,
)
from refit_shard.converter.doctor.extras import Extra, check_extra, fault_of
from refit_shard.converter.doctor.findings import Finding
from tests.small import HEIGHT, WIDTH, Own, encoded, picture

ROWS = 40
COMMAND = "refit-shard build --dataset own"


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Twenty 96x64 frames of two people each."""
    data = Own(tmp_path, [f"images/{row // 2:03d}.jpg" for row in range(ROWS)])
    data.save(orig_shape=np.full((ROWS, 2), [HEIGHT, WIDTH]))
    return data


def examine(own: Own, sample: int | None = None, dataset: Dataset | None = None) -> Report:
    """Everything that is said of one's own dataset."""
    dataset = dataset or Dataset(name="own", root_variable="OWN_ROOT")
    place = DatasetPaths(
        dataset=dataset, npz=str(own.npz), root=str(own.root), out=str(own.out), command=COMMAND
    )
    planned: list[int] = []
    seen: list[None] = []
    report = check_dataset(place, sample, planned.append, lambda: seen.append(None))
    assert sum(planned) == len(seen)
    return report


def bad(report: Report) -> list[Finding]:
    """What is not fine; each with its fix."""
    found = [one for one in report.findings if one.status != "ok"]
    assert all(one.fix for one in found)
    return found


def only(report: Report, check: str, *words: str) -> Finding:
    """The one finding that is not fine, which says these words."""
    (one,) = bad(report)
    assert one.check == check
    for word in words:
        assert word in one.detail
    return one


def frame(own: Own, index: int) -> Path:
    """The file of a frame."""
    return own.root / f"images/{index:03d}.jpg"


# ------------------------------------------------------------------------------- no fault


def test_a_good_data_set_has_no_fault(own: Own) -> None:
    report = examine(own)
    assert not bad(report)
    assert [one.check for one in report.findings] == ["npz", "rows", "present", "frames"]
    assert report.bytes > 10_000
    assert not own.out.exists()


def test_a_sample_looks_at_as_many_frames(own: Own) -> None:
    assert "3 of 20 frames checked" in examine(own, 3).findings[-1].detail
    assert "20 of 20 frames checked" in examine(own, 500).findings[-1].detail


# ------------------------------------------------------------------------------------ npz


def test_npz_faults(own: Own) -> None:
    whole = own.npz.read_bytes()
    own.npz.write_bytes(whole[: len(whole) // 2])
    assert "not an npz" in only(examine(own), "npz").detail
    own.npz.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    only(examine(own), "npz", "is a Git LFS pointer")
    own.save(scale=None)
    only(examine(own), "npz", "no key scale", "found: imgname")
    own.save(scale=np.ones(3))
    only(examine(own), "labels", "'scale' must have shape (40,), got (3,)")
    own.save(scale=np.array([{}] * ROWS, object))
    assert "np.array(list_of_scale)" in only(examine(own), "npz", "unpickling").fix


def test_a_hostile_header_is_a_finding(own: Own) -> None:
    with zipfile.ZipFile(own.npz, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
        size = len(header).to_bytes(2, "little")
        for key in ("imgname", "center", "scale"):
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00" + size + header)
    dataset = Dataset(name="own", root_variable="OWN_ROOT")
    place = DatasetPaths(
        dataset=dataset, npz=str(own.npz), root=str(own.root), out="", command=COMMAND
    )
    (one,) = check_npz(place)
    assert one.status == "fail"


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("nonfinite_label", lambda own, rows: own.columns["pose"].__setitem__(rows, np.nan)),
        ("bad_box", lambda own, rows: own.columns["scale"].__setitem__(rows, -1.0)),
        ("bad_box", lambda own, rows: own.columns["center"].__setitem__(rows, np.inf)),
        ("path_outside_root", lambda own, rows: own.columns["imgname"].__setitem__(rows, "../x")),
    ],
)
def test_bad_rows_warn_and_many_fail(
    own: Own, reason: str, spoil: Callable[[Own, slice], None]
) -> None:
    spoil(own, slice(1, 2))
    own.save()
    assert only(examine(own), "rows", f"1 of 40 rows: {reason}", "row 1 ").status == "warn"
    spoil(own, slice(0, 4))
    own.save()
    assert only(examine(own), "rows", f"4 of 40 rows: {reason}").status == "fail"


def test_duplicates(own: Own) -> None:
    own.save(**{key: np.concatenate([a[:-3], a[:3]]) for key, a in own.columns.items()})
    assert only(examine(own), "rows", "3 of 40 rows: duplicate_row", "row 0").status == "fail"


# --------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("empty", b""),
        ("lfs_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("not_an_image", b"<html>Please log in</html>"),
        ("corrupt", encoded(".jpg", picture(0))[:900]),
        ("wrong_size", encoded(".jpg", picture(0, 80, 64))),
        ("turned_frame", encoded(".jpg", picture(0, HEIGHT, WIDTH))),
    ],
)
def test_a_bad_frame_is_named_with_its_fix(own: Own, reason: str, data: bytes) -> None:
    frame(own, 7).write_bytes(data)
    found = only(examine(own), "frames", f"2 of 40 rows checked (20 of 20 frames): {reason}")
    assert found.status == "warn"
    assert "images/007.jpg" in found.detail
    for index in range(4):
        frame(own, index).write_bytes(data)
    assert only(examine(own), "frames", f": {reason}").status == "fail"


def test_a_size_that_only_img_center_implies(own: Own) -> None:
    middle = np.full((ROWS, 2), [WIDTH / 2 + 1, HEIGHT / 2 - 1])
    own.save(orig_shape=None, img_focal=np.full(ROWS, 100.0), img_center=middle)
    assert not bad(examine(own))
    frame(own, 7).write_bytes(encoded(".jpg", picture(0, HEIGHT, WIDTH)))
    frame(own, 8).write_bytes(encoded(".jpg", picture(0, 200, 64)))
    found = bad(examine(own))
    assert [one.detail.split(": ")[1].split(";")[0] for one in found] == [
        "turned_size",
        "other_size",
    ]


def test_boxes_outside_their_frame(own: Own) -> None:
    for key in ("center", "part", "openpose"):
        own.columns[key][5] += 5000
    own.save()
    only(examine(own), "frames", "box_outside_image", "box of", "row 5 ")


def test_missing_frames(own: Own) -> None:
    frame(own, 3).unlink()
    found = only(examine(own), "present", "2 of 40 rows have no frame", "images/003.jpg")
    assert found.status == "warn"
    for index in range(10):
        frame(own, index).unlink(missing_ok=True)
    assert only(examine(own), "present", "20 of 40 rows").status == "fail"


def test_a_bedlam_frame_on_its_side_is_told_from_a_wrong_one(tmp_path: Path) -> None:
    names = [f"closeup/{index}.png" for index in range(4)] + ["zoom/0.png", "zoom/1.png"]
    own = Own(tmp_path, names)
    portrait = np.array([name.startswith("closeup") for name in names])
    size = np.where(portrait[:, None], (1280, 720), (720, 1280))
    own.save(orig_shape=size, img_center=size[:, ::-1] / 2, img_focal=np.full(6, 1e3))
    for name in names:
        own.put(name, encoded(".png", picture(1, 1280, 720)))
    bedlam = Dataset(name="own", root_variable="R", turned="bedlam-closeup")
    report = examine(own, dataset=bedlam)
    assert not bad(report)
    assert "4 of 6 frames are stored on their side, as expected" in report.findings[-1].detail
    own.put(names[0], encoded(".png", picture(1, 720, 1280)))  # upright already: fine too
    own.put(names[4], encoded(".png", picture(1, 720, 1280)))
    own.put(names[5], encoded(".png", picture(1, 640, 480)))
    report = examine(own, dataset=bedlam)
    reasons = {one.detail.split("frames): ")[1].split(";")[0]: one.detail for one in bad(report)}
    assert set(reasons) == {"turned_frame", "wrong_size"}
    assert names[4] in reasons["turned_frame"]
    assert names[5] in reasons["wrong_size"]
    assert "3 of 6 frames are stored on their side" in report.findings[-1].detail


def test_a_cropped_set_has_crops(own: Own) -> None:
    made_by = "refit-shard subset-3dpw"
    cropped = Dataset(name="own", root_variable="R", cropped=True, made_by=made_by)
    one = only(examine(own, dataset=cropped), "frames", "wrong_size", "a crop is 256x256")
    assert one.fix == "run refit-shard subset-3dpw again"


def test_the_doctor_proposes_the_remap(own: Own) -> None:
    (own.root / "images").rename(own.root / "Images")
    missing, layout = bad(examine(own))
    assert (missing.check, layout.check, layout.status) == ("present", "layout", "fail")
    assert "20 of the 20 missing frames" in layout.detail
    assert layout.fix == "build with: refit-shard build --dataset own --remap images/=Images/"
    assert layout.remaps == ("images/=Images/",)
    assert own.build("--remap", *layout.remaps).code == 0


# --------------------------------------------------------------------------- disk, extras


def test_disk_space(tmp_path: Path) -> None:
    assert check_disk(1000, str(tmp_path / "not" / "yet")).status == "ok"
    full = check_disk(10**18, str(tmp_path))
    assert full.status == "fail"
    assert "--out" in full.fix


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.pth", b"", "is empty"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("a.pth", b"<!DOCTYPE html><p>quota exceeded", "is a web page"),
        ("a.pth", b"PK\x03\x04cut", "cut short"),
        ("a.npz", b"\x80\x02}", "damaged"),
        ("a.npy", b"\x80\x02}", "not a plain npy"),
        ("a.arrow", b"\x80\x02}", "not an Arrow file"),
        ("a.pkl", b"\x80\x02}", None),
        ("a.pth", b"\x80\x02}", None),
    ],
)
def test_an_extra_that_is_not_what_its_name_says(
    tmp_path: Path, name: str, data: bytes, fault: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    found = fault_of(path)
    assert found is None if fault is None else fault in str(found)


def test_extras_are_warnings_unless_needed(tmp_path: Path) -> None:
    path = tmp_path / "J.npy"
    extra = Extra(check="x", files=(path,), serves="it", fix="get it", shape=(17, None))
    assert check_extra(extra).status == "warn"
    assert check_extra(replace(extra, needed=True)).status == "fail"
    np.save(path, np.zeros((17, 50)))
    assert check_extra(extra).status == "ok"
    np.save(path, np.zeros((9, 50)))
    assert "must have shape (17, V), has (9, 50)" in check_extra(extra).detail


def test_exif_orientation_counts(own: Own) -> None:
    from PIL import Image

    turned = Image.fromarray(cv2.rotate(picture(0), cv2.ROTATE_90_COUNTERCLOCKWISE))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(frame(own, 0), exif=exif)
    assert not bad(examine(own))
