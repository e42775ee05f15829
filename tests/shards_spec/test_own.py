"""What a mirror exchanges: the tables against joints by name, and manifests that state nonsense."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.shards_spec.columns import columns_of, parse_columns
from refit_shard.shards_spec.errors import RefitShardError, ShardError, UsageError
from refit_shard.shards_spec.fields import Field, is_own_name, standard_fields, with_own
from refit_shard.shards_spec.own import TABLES, Motion, check_flip
from tests.searches import examples

# By name, as the bodies' own documentations list them.
BODY = [
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
    *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar"),
    *("right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist"),
]
FINGERS = [
    f"{one}{part}" for one in ("index", "middle", "pinky", "ring", "thumb") for part in "123"
]
LEFT, RIGHT = ([f"{side}_{one}" for one in FINGERS] for side in ("left", "right"))
JOINTS = {
    "smpl": [*BODY, "left_hand", "right_hand"],
    "smplh": [*BODY, *LEFT, *RIGHT],
    "smplx": [*BODY, "jaw", "left_eye", "right_eye", *LEFT, *RIGHT],
    "hands": [*LEFT, *RIGHT],
    "mano": ["wrist", *FINGERS],
    "mano_pair": ["left_wrist", *LEFT, "right_wrist", *RIGHT],
    "coco": [
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder"),
        *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip"),
        *("right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    ],
    "openpose": [
        *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder"),
        *("left_elbow", "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle"),
        *("left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear"),
        *("left_big_toe", "left_small_toe", "left_heel"),
        *("right_big_toe", "right_small_toe", "right_heel"),
    ],
    "spin": [
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow"),
        *("left_wrist", "neck", "top_of_head", "pelvis", "thorax", "spine", "jaw", "head"),
        *("spin_nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    ],
}
JOINTS["spin49"] = [*JOINTS["openpose"], *(f"{name} of spin" for name in JOINTS["spin"])]


def other_side(name: str) -> str:
    """The joint on the body's other side."""
    for here, there in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(here):
            return there + name.removeprefix(here)
    return name


def test_each_table_exchanges_left_and_right() -> None:
    assert TABLES.keys() == JOINTS.keys()
    for name, joints in JOINTS.items():
        assert [joints[one] for one in TABLES[name].flip] == list(map(other_side, joints)), name
        check_flip(TABLES[name].flip, name)


def test_the_joints_of_smplx_are_those_of_its_package() -> None:
    names = pytest.importorskip("smplx.joint_names").JOINT_NAMES[:55]
    assert [name.removesuffix("_smplhf") for name in names] == JOINTS["smplx"]


def test_the_roots_are_in_the_camera_s_frame() -> None:
    assert TABLES["hands"].roots == ()
    assert TABLES["mano_pair"].roots == (0, 16)
    others = TABLES.keys() - {"hands", "mano_pair"}
    assert {TABLES[name].roots for name in others} == {(0,)}


@pytest.mark.parametrize(
    "flip",
    [[], [1], [0, 0], [1, 2, 0], [0.0], [True], "10", None, {"0": 0}, [-1], [0, 2], [[0]], 5],
)
def test_a_permutation_that_is_no_mirror_is_refused(flip: Any) -> None:
    with pytest.raises(UsageError, match=r"^here: "):
        check_flip(flip, "here")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "pose",
            "center",
            "key",
            "img",
            "rot",
            "openpose",
            "shape",
            "has_contact",
            "record_crc32c",
        ),
        *("", "1st", "a-b", "a.b", "é", "a b", "x" * 64, "_x", "sample"),
    ],
)
def test_names_with_another_meaning_are_not_for_own_labels(name: str) -> None:
    assert not is_own_name(name)


STANDARD = standard_fields(extrinsics=False, key_bytes=12, imgname_bytes=12)
FLIP = Motion(kind="points2d", flip=(1, 0, 2))
OWN = Field(name="ears", dtype="float32", shape=(3, 2), motion=FLIP, doc="own label")
COLUMNS = json.loads(json.dumps(columns_of(with_own(STANDARD, [OWN]))))


def test_a_motion_survives_the_manifest() -> None:
    assert parse_columns(COLUMNS, "here")[-2] == OWN
    still = columns_of(with_own(STANDARD, [replace(OWN, motion=Motion())]))
    assert "motion" not in still[-2]


@pytest.mark.parametrize(
    "change",
    [
        {"motion": None},
        {"motion": {"kind": "points2d"}},
        {"motion": {**FLIP.to_json(), "kind": "none"}},
        {"motion": {**FLIP.to_json(), "kind": "wiggle"}},
        {"motion": {**FLIP.to_json(), "flip": [1, 0]}},
        {"motion": {**FLIP.to_json(), "flip": [1, 2, 0]}},
        {"motion": {**FLIP.to_json(), "roots": [3]}},
        {"motion": {**FLIP.to_json(), "roots": 0}},
        {"motion": {**FLIP.to_json(), "kind": "axis_angle"}},
        {"motion": {**FLIP.to_json(), "more": 1}},
        {"dtype": "int32"},
        {"shape": [3]},
        {"shape": [6]},
        {"name": "img"},
        {"name": "has_ears"},
    ],
)
def test_a_column_that_contradicts_its_motion_is_damage(change: dict[str, Any]) -> None:
    changed = [*COLUMNS[:-2], {**COLUMNS[-2], **change}, COLUMNS[-1]]
    with pytest.raises(ShardError, match=r"^here: .*damaged"):
        parse_columns(changed, "here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=examples(150))
@given(
    kind=st.sampled_from(["permute", "points2d", "points3d", "axis_angle"]) | JSON,
    flip=st.permutations(range(3)) | JSON,
    roots=st.lists(st.integers(-1, 4), max_size=3) | JSON,
    shape=st.lists(st.integers(1, 9), max_size=3),
    dtype=st.sampled_from(["float32", "float16", "bool", "int64"]),
)
def test_any_motion_is_read_or_refused(
    kind: Any, flip: Any, roots: Any, shape: list[int], dtype: str
) -> None:
    """What is read fits its column: nothing that it does to a row can fail."""
    motion = {"kind": kind, "flip": flip, "roots": roots}
    column = {"name": "own", "dtype": dtype, "shape": shape, "motion": motion}
    try:
        field = parse_columns([*COLUMNS[:-2], column, COLUMNS[-1]], "here")[-2]
    except RefitShardError:
        return
    count = len(field.motion.flip)
    if field.motion.kind == "permute":
        assert field.shape[0] == count
    elif field.motion.kind == "axis_angle":
        assert field.size == 3 * count
    else:
        assert field.size == count * field.shape[-1]
    assert all(0 <= root < count for root in field.motion.roots)
