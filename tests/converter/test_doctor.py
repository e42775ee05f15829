"""Each fault is planted in a data set that was fine, and the doctor names it and its fix."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from converter.datasets import Dataset
from converter.doctor import Place, Report, check_dataset, check_disk, check_npz
from converter.extras import Extra, check_extra, fault_of
from converter.findings import Finding
from converter.layouts import alignment, find_cure, prefix_remaps, spread
from tests.small import HEIGHT, WIDTH, Own, encoded, picture

ROWS = 40


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Twenty 96x64 frames of two people each."""
    data = Own(tmp_path, [f"images/{row // 2:03d}.jpg" for row in range(ROWS)])
    data.save(orig_shape=np.full((ROWS, 2), [HEIGHT, WIDTH]))
    return data


def examine(own: Own, sample: int | None = None, dataset: Dataset | None = None) -> Report:
    """Everything that is said of one's own data set."""
    dataset = dataset or Dataset(name="own", root_variable="OWN_ROOT")
    place = Place(dataset=dataset, npz=str(own.npz), root=str(own.root), out=str(own.out))
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
    assert "3 of 20 frames looked at" in examine(own, 3).findings[-1].detail
    assert "20 of 20 frames looked at" in examine(own, 500).findings[-1].detail


# ------------------------------------------------------------------------------------ npz


def test_npz_faults(own: Own) -> None:
    whole = own.npz.read_bytes()
    own.npz.write_bytes(whole[: len(whole) // 2])
    assert "not an npz" in only(examine(own), "npz").detail
    own.npz.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    only(examine(own), "npz", "not an npz")
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
    (one,) = check_npz(Place(dataset=dataset, npz=str(own.npz), root=str(own.root), out=""))
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
    found = only(examine(own), "frames", f"2 of 40 rows looked at (20 of 20 frames): {reason}")
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
        "turned_frame",
        "wrong_size",
    ]


def test_boxes_outside_their_frame(own: Own) -> None:
    own.columns["center"][5] = 5000, 5000
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
    assert "4 of 6 frames lie on their side, as they should" in report.findings[-1].detail
    own.put(names[0], encoded(".png", picture(1, 720, 1280)))  # upright already: fine too
    own.put(names[4], encoded(".png", picture(1, 720, 1280)))
    own.put(names[5], encoded(".png", picture(1, 640, 480)))
    report = examine(own, dataset=bedlam)
    reasons = {one.detail.split("frames): ")[1].split(";")[0]: one.detail for one in bad(report)}
    assert set(reasons) == {"turned_frame", "wrong_size"}
    assert names[4] in reasons["turned_frame"]
    assert names[5] in reasons["wrong_size"]
    assert "3 of 6 frames lie on their side" in report.findings[-1].detail


def test_a_cropped_set_has_crops(own: Own) -> None:
    cropped = Dataset(name="own", root_variable="R", cropped=True)
    one = only(examine(own, dataset=cropped), "frames", "wrong_size", "a crop is 256x256")
    assert one.fix == "run refit-shard subset-3dpw again"


# -------------------------------------------------------------------------------- layouts

H36M = [
    f"images/S{subject}_{action}.{camera}_{number:06d}.jpg"
    for subject in (1, 5, 11)
    for action in ("Walking 1", "Eating_2")
    for camera in (54138969, 60457274)
    for number in (1, 6)
]
COCO = [f"train2014/COCO_train2014_{number:012d}.jpg" for number in range(6)]
SCENES = [f"2022101{s}_zoom/png/seq_{n:06d}/seq_{n:06d}_0000.png" for s in "13" for n in range(3)]


def subject(name: str) -> str:
    return name[7:].partition("_")[0]


def place(root: Path, names: list[str], at: Callable[[str], str]) -> str:
    """Put the frames of names elsewhere below a root."""
    for name in names:
        path = root / at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(root)


def cured_by(root: str, names: list[str], remaps: tuple[tuple[str, str], ...]) -> bool:
    """Whether the remaps lead every name to its own frame, by other means than the doctor's."""
    for name in names:
        old, new = next((old, new) for old, new in remaps if name.startswith(old))
        if (Path(root) / (new + name[len(old) :])).read_text() != name:
            return False
    return True


@pytest.mark.parametrize(
    ("names", "at", "first"),
    [
        (H36M, lambda n: n.replace("images/", "Images/"), ("images/", "Images/")),
        (H36M, lambda n: f"Images/{subject(n)}/{n[7:]}", ("images/S11_", "Images/S11/S11_")),
        (H36M, lambda n: f"{subject(n)}/images/{n[7:].rpartition('_')[0]}/{n[7:]}", None),
        (
            H36M,
            lambda n: f"{subject(n)}/images/{n[7:].rpartition('_')[0]}/{n.rpartition('_')[2]}",
            None,
        ),
        (COCO, lambda n: n[10:], ("train2014/", "")),
        (COCO, lambda n: f"images/{n}", ("train2014/", "images/train2014/")),
        (SCENES, lambda n: f"bedlam/{n}", ("2022101", "bedlam/2022101")),
        (SCENES, lambda n: n.replace("/png/", "/"), ("20221011_zoom/png/", "20221011_zoom/")),
        (SCENES, lambda n: f"part{n[7]}/{n}", ("20221011_", "part1/20221011_")),
    ],
)
def test_the_layouts_that_users_have_are_cured(
    tmp_path: Path, names: list[str], at: Callable[[str], str], first: tuple[str, str] | None
) -> None:
    root = place(tmp_path / "root", names, at)
    cure = find_cure(root, sorted(names))
    assert cure is not None
    assert (cure.cured, cure.tried) == (len(names), len(names))
    assert first is None or cure.remaps[0] == first
    assert cured_by(root, names, cure.remaps)
    if cure.root is not None:
        assert all((Path(cure.root) / name).is_file() for name in names)


def test_a_doubled_folder_is_another_root(tmp_path: Path) -> None:
    root = place(tmp_path / "bedlam", SCENES, lambda name: f"bedlam/{name}")
    cure = find_cure(root, SCENES)
    assert cure is not None
    assert cure.root == str(tmp_path / "bedlam" / "bedlam")


def test_a_root_one_level_too_deep_is_its_parent(tmp_path: Path) -> None:
    place(tmp_path / "coco", COCO, lambda name: name)
    root = str(tmp_path / "coco" / "train2014")
    cure = find_cure(root, COCO)
    assert cure is not None
    assert (cure.root, cure.remaps) == (str(tmp_path / "coco"), (("train2014/", ""),))
    assert cured_by(root, COCO, cure.remaps)


def test_absolute_names_of_another_machine(tmp_path: Path) -> None:
    names = [f"/home/someone/coco/{name}" for name in COCO]
    cure = find_cure(place(tmp_path / "coco", names, lambda name: name[19:]), names)
    assert cure is not None
    assert cure.remaps == (("/home/someone/coco/", ""),)


def test_what_cannot_be_told_is_not_guessed(tmp_path: Path) -> None:
    other = place(tmp_path / "other", ["a/b.jpg"], lambda name: name)
    assert find_cure(other, COCO) is None
    both = place(tmp_path / "both", COCO, lambda name: f"one/{name[10:]}")
    place(tmp_path / "both", COCO, lambda name: f"two/{name[10:]}")
    assert find_cure(both, COCO) is None
    (tmp_path / "loop" / "a").mkdir(parents=True)
    (tmp_path / "loop" / "a" / "again").symlink_to(tmp_path / "loop")
    assert find_cure(str(tmp_path / "loop"), COCO) is None
    assert find_cure(str(tmp_path / "none"), ["x/\udc80.jpg", "", "/", "x\0y"]) is None


def test_prefixes_differ_by_whole_folders() -> None:
    assert alignment("images/a.jpg", "Images/a.jpg") == ("images/", "Images/")
    assert alignment("a.jpg", "x/a.jpg") == ("", "x/")
    assert alignment("x/y/a.jpg", "y/a.jpg") == ("x/", "")
    assert alignment("x/a.jpg", "x/b.jpg") == ("x/a.jpg", "x/b.jpg")


def test_prefixes_grow_only_where_they_must() -> None:
    pairs = [("i/", "A/1/", "S1_x.jpg"), ("i/", "A/1/", "S1_y.jpg"), ("i/", "A/11/", "S11_x.jpg")]
    assert prefix_remaps(pairs) == (("i/S11_", "A/11/S11_"), ("i/S1_", "A/1/S1_"))
    assert prefix_remaps(pairs[:2]) == (("i/", "A/1/"),)
    assert prefix_remaps([("i/", "A/", "x"), ("i/", "B/", "x")]) == ()


def test_spread_holds_both_ends() -> None:
    letters = [chr(code) for code in range(97, 123)]
    assert spread(letters, 3) == ["a", "m", "z"]
    assert spread(letters, 100) == letters


def test_the_doctor_proposes_the_remap(own: Own) -> None:
    (own.root / "images").rename(own.root / "Images")
    missing, layout = bad(examine(own))
    assert (missing.check, layout.check, layout.status) == ("present", "layout", "fail")
    assert "20 of 20 missing frames" in layout.detail
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
