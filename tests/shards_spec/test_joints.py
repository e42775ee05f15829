"""The 49 joints against SPIN's own lists, written down here again."""

from pathlib import Path

from refit_shard.shards_spec.joints import (
    JOINTS,
    OPENPOSE,
    PLACE,
    SPIN,
    SPIN_NAMES,
    markdown_table,
    mirror,
)
from refit_shard.shards_spec.own import TABLES
from tests.small import PROJECT

# nkolot/SPIN, constants.py: JOINT_NAMES, J24_FLIP_PERM and J49_FLIP_PERM.
JOINT_NAMES = """
OP Nose, OP Neck, OP RShoulder, OP RElbow, OP RWrist, OP LShoulder, OP LElbow, OP LWrist, OP MidHip,
OP RHip, OP RKnee, OP RAnkle, OP LHip, OP LKnee, OP LAnkle, OP REye, OP LEye, OP REar, OP LEar,
OP LBigToe, OP LSmallToe, OP LHeel, OP RBigToe, OP RSmallToe, OP RHeel,
Right Ankle, Right Knee, Right Hip, Left Hip, Left Knee, Left Ankle, Right Wrist, Right Elbow,
Right Shoulder, Left Shoulder, Left Elbow, Left Wrist, Neck (LSP), Top of Head (LSP), Pelvis (MPII),
Thorax (MPII), Spine (H36M), Jaw (H36M), Head (H36M), Nose, Left Eye, Right Eye, Left Ear, Right Ear
"""
J24_FLIP = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 23, 22]
OPENPOSE_FLIP = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24]
OPENPOSE_FLIP += [19, 20, 21]


def plain_name(spin: str) -> str:
    """SPIN's name as words: without the dataset, sides and toes spelled out."""
    words = spin.partition(" (")[0].removeprefix("OP ")
    for short, side in (("R", "right "), ("L", "left ")):
        if words[:1] == short and words[1:2].isupper():
            words = side + words[1:]
    spelled = "".join(f" {one}" if one.isupper() else one for one in words)
    return "_".join(spelled.lower().split())


def test_the_names_are_those_of_spin_in_its_order() -> None:
    theirs = [name.strip() for name in JOINT_NAMES.replace("\n", " ").split(",")]
    assert list(SPIN_NAMES.values()) == theirs
    plain = [plain_name(name) for name in theirs]
    for place, (name, bare) in enumerate(zip(JOINTS, plain, strict=True)):
        namesakes = [other for other, one in enumerate(plain) if one == bare]
        assert name == (f"op_{bare}" if len(namesakes) > 1 and place < 25 else bare)
    assert (JOINTS[21], JOINTS[30], JOINTS[14], JOINTS[39]) == (
        *("left_heel", "left_ankle", "op_left_ankle", "pelvis"),
    )
    assert [PLACE[name] for name in JOINTS] == list(range(49))


def test_a_mirror_exchanges_what_spin_exchanges() -> None:
    assert list(mirror(SPIN)) == J24_FLIP == list(TABLES["spin"].flip)
    assert list(mirror(OPENPOSE)) == OPENPOSE_FLIP == list(TABLES["openpose"].flip)
    whole = OPENPOSE_FLIP + [25 + one for one in J24_FLIP]
    assert list(mirror(JOINTS)) == whole == list(TABLES["spin49"].flip)


def test_the_page_has_the_table() -> None:
    page = Path(PROJECT / "docs/reference/joints.md").read_text()
    assert markdown_table() in page
