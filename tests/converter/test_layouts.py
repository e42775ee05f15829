"""Frames that lie elsewhere, or under other names, than the npz says: found, and cured."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from refit_shard.converter.annotations.remaps import (
    Remap,
    Remaps,
    parse_remaps,
    prefix_remap,
    remapped,
)
from refit_shard.converter.doctor.cures import find_cure, spread
from refit_shard.converter.doctor.differences import (
    Difference,
    alignment,
    difference,
    general_remaps,
    prefix_remaps,
)
from tests.small import Own, refit

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


def cured_by(root: str, names: list[str], remaps: Remaps) -> bool:
    """Whether the remaps, as a shell passes them on, lead every name to its own frame."""
    said = " ".join(shlex.quote(remap.text) for remap in remaps)
    again = parse_remaps(shlex.split(said))
    return all((Path(root) / remapped(name, again)).read_text() == name for name in names)


ACTIONS = [
    f"images/S{subject}_{action}.{camera}_{number:06d}.jpg"
    for subject in (1, 5, 11)
    for action in ("TakingPhoto_1", "WalkingDog", "Walking", "Photo_2")
    for camera in (54138969, 60457274)
    for number in (1, 6)
]
MPI = [
    f"S{subject}/Seq{seq}/imageFrames/video_{video}/frame_{number:06d}.jpg"
    for subject in (1, 2)
    for seq in (1, 2)
    for video in (0, 8)
    for number in (1, 619)
]
BARE_MPI = [name.replace("frame_", "") for name in MPI]


def shorter(name: str) -> str:
    return name.replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")


@pytest.mark.parametrize(
    ("names", "at", "said"),
    [
        (H36M, lambda n: n.replace("images/", "Images/"), ["images/=Images/"]),
        (H36M, lambda n: f"Images/{subject(n)}/{n[7:]}", None),
        (H36M, lambda n: f"{subject(n)}/images/{n[7:].rpartition('_')[0]}/{n[7:]}", None),
        (
            H36M,
            lambda n: f"{subject(n)}/images/{n[7:].rpartition('_')[0]}/{n.rpartition('_')[2]}",
            None,
        ),
        (COCO, lambda n: n[10:], ["train2014/="]),
        (COCO, lambda n: f"images/{n}", ["*=images/*"]),
        (COCO, lambda n: n.replace("2014_", "2017_").replace("n2014/", "n2017/"), None),
        (
            COCO,
            lambda n: n.replace("COCO_train2014_", ""),
            ["train2014/COCO_train2014_=train2014/"],
        ),
        (COCO, lambda n: f"train2017/{n[-16:]}", ["train2014/COCO_train2014_=train2017/"]),
        (COCO, lambda n: n.replace(".jpg", ".png"), ["*.jpg=*.png"]),
        (COCO, lambda n: n.replace(".jpg", ".JPG"), ["*.jpg=*.JPG"]),
        (COCO, lambda n: f"x/{n[-16:-4]}.png", ["train2014/COCO_train2014_*.jpg=x/*.png"]),
        (SCENES, lambda n: f"bedlam/{n}", ["*=bedlam/*"]),
        (SCENES, lambda n: n.replace(".png", ".jpg"), ["*.png=*.jpg"]),
        (SCENES, lambda n: f"bedlam/{n[:-3]}jpg", ["*.png=bedlam/*.jpg"]),
        (SCENES, lambda n: n.replace("/png/", "/jpg/")[:-3] + "jpg", ["*/png/*.png=*/jpg/*.jpg"]),
        (SCENES, lambda n: n.replace("/png/", "/"), ["*/png/*=*/*"]),
        (SCENES, lambda n: f"part{n[7]}/{n}", None),
        (MPI, lambda n: n.replace("frame_", ""), ["*/frame_*=*/*"]),
        (MPI, lambda n: n.replace("frame_", "img-"), ["*/frame_*=*/img-*"]),
        (BARE_MPI, lambda n: n.replace("/000", "/frame_000"), ["*/*=*/frame_*"]),
    ],
)
def test_the_layouts_that_users_have_are_cured(
    tmp_path: Path, names: list[str], at: Callable[[str], str], said: list[str] | None
) -> None:
    root = place(tmp_path / "root", names, at)
    cure = find_cure(root, sorted(names))
    assert cure is not None
    assert (cure.cured, cure.tried) == (len(names), len(names))
    assert said is None or [remap.text for remap in cure.remaps] == said
    assert cured_by(root, names, cure.remaps)
    if cure.root is not None:
        assert all((Path(cure.root) / name).is_file() for name in names)


def test_some_actions_under_other_names_are_cured_and_the_others_are_spared(
    tmp_path: Path,
) -> None:
    """Human3.6M's Photo and WalkDog are TakingPhoto and WalkingDog in half of the copies; Walking
    and a Photo of their own are there as well.
    """
    root = place(tmp_path, ACTIONS, shorter)
    lost = sorted(name for name in ACTIONS if shorter(name) != name)
    standing = sorted(set(ACTIONS) - set(lost))
    cure = find_cure(root, lost, standing)
    assert cure is not None
    texts = {remap.text for remap in cure.remaps}
    assert texts == {"*_TakingPhoto_*=*_Photo_*", "*_WalkingDog.*=*_WalkDog.*"}
    assert cured_by(root, ACTIONS, cure.remaps)


def test_what_is_where_it_should_be_stays_found(tmp_path: Path) -> None:
    moved = [name for name in SCENES if name.startswith("20221011")]
    root = place(tmp_path, SCENES, lambda n: f"bedlam/{n}" if n in moved else n)
    standing = sorted(set(SCENES) - set(moved))
    cure = find_cure(root, moved, standing)
    assert cure is not None
    assert (cure.root, cure.cured) == (None, len(moved))
    assert cured_by(root, SCENES, cure.remaps)


def test_remaps_that_are_given_already_are_kept(tmp_path: Path) -> None:
    given = parse_remaps(["20221013_=old/20221013_"])
    at = {name: f"old/{name}" if "1013_" in name else f"new/{name}" for name in SCENES}
    root = place(tmp_path, SCENES, at.__getitem__)
    lost = [name for name in SCENES if "1011_" in name]
    cure = find_cure(root, lost, sorted(set(SCENES) - set(lost)), given)
    assert cure is not None
    assert cure.remaps[-1:] == given
    assert cured_by(root, SCENES, cure.remaps)


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
    assert (cure.root, cure.remaps) == (str(tmp_path / "coco"), (prefix_remap("train2014/", ""),))
    assert cured_by(root, COCO, cure.remaps)


def test_absolute_names_of_another_machine(tmp_path: Path) -> None:
    names = [f"/home/someone/coco/{name}" for name in COCO]
    cure = find_cure(place(tmp_path / "coco", names, lambda name: name[19:]), names)
    assert cure is not None
    assert cure.remaps == (prefix_remap("/home/someone/coco/", ""),)


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


def test_names_differ_before_and_behind_their_number() -> None:
    assert difference("a/frame_000619.jpg", "b/000619.jpg") == Difference(
        "a/frame_", "b/", "000619.jpg"
    )
    assert difference("i/S1_WalkingDog.5413_000001.jpg", "i/S1_WalkDog.5413_000001.png") == (
        Difference("i/S1_WalkingDog.", "i/S1_WalkDog.", "5413_000001", ".jpg", ".png")
    )
    assert difference("anna.jpeg", "anna.jpg") == Difference("", "", "anna", ".jpeg", ".jpg")
    assert difference("a_00001_1280x720.png", "a_00001_640x360.jpg") == Difference(
        "", "", "a_00001", "_1280x720.png", "_640x360.jpg"
    )


def test_prefixes_grow_only_where_they_must() -> None:
    pairs = [
        Difference("i/", "A/1/", "S1_x.jpg"),
        Difference("i/", "A/1/", "S1_y.jpg"),
        Difference("i/", "A/11/", "S11_x.jpg"),
    ]
    wanted = (prefix_remap("i/S11_", "A/11/S11_"), prefix_remap("i/S1_", "A/1/S1_"))
    assert prefix_remaps(pairs) == wanted
    assert prefix_remaps(pairs[:2]) == (prefix_remap("i/", "A/1/"),)
    assert prefix_remaps([Difference("i/", "A/", "x"), Difference("i/", "B/", "x")]) == ()


def test_what_all_prefixes_change_alike_is_one_remap() -> None:
    many = parse_remaps(["a/png/=a/", "bb/png/=bb/", "c/=d/"])
    assert [remap.text for remap in general_remaps(many)] == ["*/png/*=*/*", "c/=d/"]
    assert general_remaps(many[:1]) == many[:1]
    assert general_remaps((Remap(("", ".a"), ("", ".b")),)) == (Remap(("", ".a"), ("", ".b")),)


def test_spread_holds_both_ends() -> None:
    letters = [chr(code) for code in range(97, 123)]
    assert spread(letters, 3) == ["a", "m", "z"]
    assert spread(letters, 100) == letters


@pytest.mark.parametrize(
    ("names", "at"),
    [
        (COCO, lambda n: n.replace("COCO_train2014_", "")),
        (MPI, lambda n: n.replace("frame_", "")),
        (ACTIONS, shorter),
        (SCENES, lambda n: n.replace(".png", ".jpg")),
        (COCO, lambda n: n.replace(".jpg", ".JPG")),
    ],
)
def test_a_build_stops_with_the_remap_and_ends_well_with_it(
    tmp_path: Path, names: list[str], at: Callable[[str], str]
) -> None:
    tree = Own(tmp_path, names)
    for name in names:
        path = tree.root / name
        if at(name) != name:
            path.rename(tree.root / at(name))
    stopped = refit(*tree.command())
    assert stopped.code == 1
    assert not tree.out.exists()
    (line,) = [line for line in stopped.err.splitlines() if "another layout" in line]
    _, _, options = line.partition("build with: the same command and ")
    result = refit(*tree.command("--max-bad", 0, *shlex.split(options)))
    assert result.code == 0, result.err
    assert f"{len(names)} of {len(names)}" in result.out


def test_what_a_mac_adds_is_no_frame(tmp_path: Path) -> None:
    """Its files have the endings of the true ones."""
    names = [f"S1/S1_Walk_{number:06d}.jpg" for number in range(4)]
    place(tmp_path / "frames", names, lambda name: f"__MACOSX/S1_Walk/._{name[-10:]}")
    assert find_cure(str(tmp_path / "frames"), names) is None
    root = place(tmp_path / "frames", names, lambda name: f"S1/S1_Walk/{name[-10:]}")
    place(tmp_path / "frames", names, lambda name: f"S1/S1_Walk/._{name[-10:]}")
    cure = find_cure(root, names)
    assert cure is not None
    assert cured_by(root, names, cure.remaps)
