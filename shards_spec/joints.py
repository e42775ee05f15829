"""Names of the 49 keypoints, in the order of the column ``keypoints``: OpenPose's 25 joints, then
the 24 that SPIN collects from several datasets. If both have a joint, OpenPose's is called
``op_…``.
"""

from collections.abc import Mapping, Sequence

# The names in SPIN's constants.py (JOINT_NAMES), by our names.
SPIN_NAMES: Mapping[str, str] = {
    "op_nose": "OP Nose",
    "op_neck": "OP Neck",
    "op_right_shoulder": "OP RShoulder",
    "op_right_elbow": "OP RElbow",
    "op_right_wrist": "OP RWrist",
    "op_left_shoulder": "OP LShoulder",
    "op_left_elbow": "OP LElbow",
    "op_left_wrist": "OP LWrist",
    "mid_hip": "OP MidHip",
    "op_right_hip": "OP RHip",
    "op_right_knee": "OP RKnee",
    "op_right_ankle": "OP RAnkle",
    "op_left_hip": "OP LHip",
    "op_left_knee": "OP LKnee",
    "op_left_ankle": "OP LAnkle",
    "op_right_eye": "OP REye",
    "op_left_eye": "OP LEye",
    "op_right_ear": "OP REar",
    "op_left_ear": "OP LEar",
    "left_big_toe": "OP LBigToe",
    "left_small_toe": "OP LSmallToe",
    "left_heel": "OP LHeel",
    "right_big_toe": "OP RBigToe",
    "right_small_toe": "OP RSmallToe",
    "right_heel": "OP RHeel",
    "right_ankle": "Right Ankle",
    "right_knee": "Right Knee",
    "right_hip": "Right Hip",
    "left_hip": "Left Hip",
    "left_knee": "Left Knee",
    "left_ankle": "Left Ankle",
    "right_wrist": "Right Wrist",
    "right_elbow": "Right Elbow",
    "right_shoulder": "Right Shoulder",
    "left_shoulder": "Left Shoulder",
    "left_elbow": "Left Elbow",
    "left_wrist": "Left Wrist",
    "neck": "Neck (LSP)",
    "top_of_head": "Top of Head (LSP)",
    "pelvis": "Pelvis (MPII)",
    "thorax": "Thorax (MPII)",
    "spine": "Spine (H36M)",
    "jaw": "Jaw (H36M)",
    "head": "Head (H36M)",
    "nose": "Nose",
    "left_eye": "Left Eye",
    "right_eye": "Right Eye",
    "left_ear": "Left Ear",
    "right_ear": "Right Ear",
}
JOINTS: tuple[str, ...] = tuple(SPIN_NAMES)
OPENPOSE, SPIN = JOINTS[:25], JOINTS[25:]
# A joint's index among the 49.
PLACE: Mapping[str, int] = {name: place for place, name in enumerate(JOINTS)}

_SIDES = {"left": "right", "right": "left"}


def other_side(name: str) -> str:
    """The joint on the other side of the body; the same one if it is in the middle."""
    return "_".join(_SIDES.get(word, word) for word in name.split("_"))


def mirror(names: Sequence[str]) -> tuple[int, ...]:
    """The permutation of a mirror: joint i gets the values of joint ``mirror(names)[i]``."""
    return tuple(names.index(other_side(name)) for name in names)


def markdown_table() -> str:
    """The table of joints for ``docs/reference/joints.md``."""
    rows = ["| index | name | in SPIN's constants.py | flipped |", "|---|---|---|---|"]
    for place, (name, spin) in enumerate(SPIN_NAMES.items()):
        other = other_side(name)
        rows.append(f"| {place} | `{name}` | {spin} | {f'`{other}`' if other != name else ''} |")
    return "\n".join(rows)
