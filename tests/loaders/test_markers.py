"""Labels against pixels: discs are drawn at the joints, augmented, and found where labels say."""

import itertools
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage import transform

from refit_shard import Augmentation, RenderOptions, render
from tests.loaders.photographs import OwnSet, Row, build_own, labels

Floats = NDArray[np.float64]
rotate: Any = transform.rotate  # it carries no types

OPENPOSE = [
    *("Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist"),
    *("MidHip", "RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle"),
    *("REye", "LEye", "REar", "LEar"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
]
SPIN = [
    *("RAnkle", "RKnee", "RHip", "LHip", "LKnee", "LAnkle"),
    *("RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow", "LWrist"),
    *("NeckLsp", "TopOfHead", "Pelvis", "Thorax", "Spine", "Jaw", "Head", "SpinNose"),
    *("LEye", "REye", "LEar", "REar"),
]
SMPL = [
    *("Pelvis", "LHip", "RHip", "Spine1", "LKnee", "RKnee", "Spine2", "LAnkle", "RAnkle"),
    *("Spine3", "LFoot", "RFoot", "Neck", "LCollar", "RCollar", "Head", "LShoulder", "RShoulder"),
    *("LElbow", "RElbow", "LWrist", "RWrist", "LHand", "RHand"),
]
RADIUS = 9.0
PLAIN = RenderOptions(image="uint8")
TURNS = (0.0, -60.0, 25.0, 60.0)
CASES = [
    Augmentation(flip=flip, rot=rot, sc=sc)
    for flip, rot, sc in itertools.product((False, True), TURNS, (0.75, 1.0, 1.25))
]
MIRROR = np.diag([-1.0, 1.0, 1.0])


def mirrored(names: list[str]) -> list[int]:
    """For each joint the one on the body's other side, by name."""
    other = {"L": "R", "R": "L"}
    partner = [other.get(name[0], "") + name[1:] for name in names]
    return [names.index(p) if p in names else i for i, p in enumerate(partner)]


def level(joint: int) -> int:
    """The grey that tells a joint's disc from all others."""
    return 60 + 4 * joint


def draw_discs(height: int, width: int, points: Floats) -> NDArray[np.uint8]:
    """A black frame with an anti-aliased disc at each point; pixel centres are whole numbers."""
    y, x = np.mgrid[:height, :width]
    frame = np.zeros((height, width))
    for joint, (px, py) in enumerate(points):
        cover = np.clip(RADIUS + 0.5 - np.hypot(x - px, y - py), 0.0, 1.0)
        frame = np.maximum(frame, cover * level(joint))
    return np.repeat(np.rint(frame)[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> OwnSet:
    """Four frames of 49 discs in a jittered lattice; boxes inside and across the frame's edges."""
    rng = np.random.default_rng(3)
    frames: list[NDArray[np.uint8]] = []
    rows: list[Row] = []
    for (cx, cy), side in [
        ((450.3, 350.8), 512.0),
        ((430.0, 371.25), 607.3),
        ((210.7, 300.1), 500.9),
        ((700.2, 520.6), 450.4),
    ]:
        lattice = np.array(list(itertools.product(range(-3, 4), repeat=2))) / 7.5
        points = rng.permutation(lattice + rng.uniform(-0.01, 0.01, (49, 2))) * side + (cx, cy)
        points = points.astype(np.float32).astype(np.float64)
        row = labels(rng, (cx, cy), side)
        row["openpose"][:, :2], row["part"][:, :2] = points[:25], points[25:]
        row["openpose"][:, 2] = row["part"][:, 2] = 1.0
        row["S"][:, :2] = (points[25:] - (cx, cy)) / side
        rows.append({**row, "frame": len(frames)})
        frames.append(draw_discs(700, 900, points))
    return build_own(tmp_path_factory.mktemp("marked"), frames, rows, "--quality", 100)


def find_disc(image: NDArray[np.uint8], x: float, y: float, reach: int) -> tuple[Floats, float]:
    """Centroid of what is bright around (x, y), and the grey in its middle."""
    left, top = round(x) - reach, round(y) - reach
    window = image[top : top + 2 * reach + 1, left : left + 2 * reach + 1, 0].astype(np.float64)
    window[window < 8] = 0.0
    assert window.sum() > 0, f"nothing at ({x:.1f}, {y:.1f})"
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    place = np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum()
    column, row = np.rint(place).astype(int)
    grey = float(np.median(window[row - 1 : row + 2, column - 1 : column + 2]))
    return place + np.array([left, top]), grey


def discs_in_view(
    own: OwnSet, index: int, one: Augmentation, options: RenderOptions
) -> list[tuple[int, Floats, float, Floats]]:
    """(joint, pixel by its label, grey found there, pixel found) of all discs wholly in view."""
    row = own.rows[index]
    item = render(own.samples[index], one, options)
    image, keypoints = item["img"].numpy(), item["keypoints"].numpy()
    reach = round(RADIUS * 256 / (200 * row["scale"] * one.sc)) + 4
    height, width = own.frames[index].shape[:2]
    partner = mirrored(OPENPOSE) + [25 + j for j in mirrored(SPIN)]
    source = np.concatenate([row["openpose"], row["part"]])[:, :2]
    found = []
    for joint, (x, y, _) in enumerate(keypoints.tolist()):
        px, py = (x + 1) * 128 - 0.5, (y + 1) * 128 - 0.5
        origin = source[partner[joint] if one.flip else joint]
        stored = (origin > 12).all() and origin[0] < width - 13 and origin[1] < height - 13
        if stored and reach < px < 255 - reach and reach < py < 255 - reach:
            place, grey = find_disc(image, px, py, reach)
            found.append((joint, np.array([px, py]), grey, place))
    return found


@pytest.mark.parametrize(
    "one", CASES, ids=lambda a: f"{'flip' if a.flip else 'same'}{a.rot}x{a.sc}"
)
def test_joints_are_where_their_keypoints_say(marked: OwnSet, one: Augmentation) -> None:
    """Each label points at its own disc; after a flip at that of the body's other side."""
    partner = mirrored(OPENPOSE) + [25 + j for j in mirrored(SPIN)]
    seen = 0
    for index in range(len(marked.rows)):
        for joint, label, grey, place in discs_in_view(marked, index, one, PLAIN):
            assert np.hypot(*(place - label)) < 0.1
            assert round((grey - 60) / 4) == (partner[joint] if one.flip else joint)
            seen += 1
    assert seen > 60


def test_refits_own_keypoints_are_within_their_rounding(marked: OwnSet) -> None:
    """Under compat="refit" labels lie within two pixels of the discs."""
    options = RenderOptions(image="uint8", compat="refit")
    for one in CASES:
        for index in range(len(marked.rows)):
            for _, label, _, place in discs_in_view(marked, index, one, options):
                assert np.abs(place - label).max() < 2.0


def test_pose_3d_turns_and_flips_as_the_pixels_do(marked: OwnSet) -> None:
    """The discs found, put back to units of the box, are the x and y of pose_3d."""
    for one in CASES:
        for index, row in enumerate(marked.rows):
            joints = render(marked.samples[index], one, PLAIN)["pose_3d"].numpy()
            for joint, _, _, place in discs_in_view(marked, index, one, PLAIN):
                if joint >= 25:
                    back = (place - 127.5) / 256 * one.sc
                    off = np.abs(joints[joint - 25, :2] - back) * 200 * row["scale"]
                    assert off.max() < 2.5, "source pixels; the box itself is cut by up to one"


def rigid_body(rng: np.random.Generator) -> Floats:
    """SPIN's joints of a body that is its own mirror image, root at rest."""
    body = rng.normal(0, 0.4, (24, 3))
    partner = mirrored(SPIN)
    for joint, other in enumerate(partner):
        body[other] = body[joint] @ MIRROR if other != joint else body[joint] * (0, 1, 1)
    return body


def test_pose_turns_and_flips_as_pose_3d_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The augmented root rotation takes a symmetric body to the augmented joints.

    The other joints' rotations are those of the body's other side, mirrored.
    """
    rng = np.random.default_rng(8)
    rows: list[Row] = []
    bodies = [rigid_body(rng) for _ in range(6)]
    for body in bodies:
        row = labels(rng, (80.0, 60.0), 100.0)
        row["has_smpl"] = 1.0
        row["pose"][:3] = Rotation.random(None, rng).as_rotvec()
        row["S"][:, :3] = Rotation.from_rotvec(row["pose"][:3]).apply(body)
        rows.append({**row, "frame": 0})
    frame = np.full((120, 160, 3), 90, np.uint8)
    own = build_own(tmp_path_factory.mktemp("rigid"), [frame], rows)
    for one, (row, body, sample) in itertools.product(
        CASES, zip(own.rows, bodies, own.samples, strict=True)
    ):
        item = render(sample, one)
        pose = item["pose"].numpy().reshape(24, 3)
        joints = item["pose_3d"].numpy()[:, :3]
        np.testing.assert_allclose(Rotation.from_rotvec(pose[0]).apply(body), joints, atol=1e-4)
        before = Rotation.from_rotvec(row["pose"].reshape(24, 3)).as_matrix()
        if one.flip:
            before = MIRROR @ before[mirrored(SMPL)] @ MIRROR
        after = Rotation.from_rotvec(pose).as_matrix()
        np.testing.assert_allclose(after[1:], before[1:], atol=1e-5)


@pytest.mark.parametrize("rot", [0.0, -60.0, 17.0, 60.0])
@pytest.mark.parametrize("flip", [False, True])
def test_center_is_found_in_the_whole_frame(
    tmp_path_factory: pytest.TempPathFactory, flip: bool, rot: float
) -> None:
    """Flip and turn all of the frame, as the crop is turned: the box's centre lies at the label."""
    cx, cy = 330.4, 110.9
    frame = draw_discs(360, 480, np.array([[cx, cy]]))
    row = labels(np.random.default_rng(0), (cx, cy), 120.0)
    own = build_own(tmp_path_factory.mktemp("center"), [frame], [{**row, "frame": 0}])
    whole: Any = cv2.flip(frame, 1) if flip else frame
    # On the screen a crop that is turned, then flipped, is one that is flipped and turned back.
    whole = rotate(whole, -rot if flip else rot, preserve_range=True)[:, :, 0]
    rows, columns = np.mgrid[:360, :480]
    found = np.array([(columns * whole).sum(), (rows * whole).sum()]) / whole.sum()
    label = render(own.samples[0], Augmentation(flip=flip, rot=rot))["center"].numpy()
    assert np.abs(found - label).max() < 1.5, "pixels; ReFit's middle is off by half of one"
    shift = np.abs(np.array([cx, cy]) - label).max()
    assert (shift > 20) == (flip or rot != 0.0)
