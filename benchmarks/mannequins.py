"""Mannequins: random bodies (by seed) in front of a pinhole camera, painted into a frame.

Camera axes everywhere: x right, y down, z away from the camera; metres. Pixels: x right, y down.
A mannequin's 30 joints are SPIN's 24 and the six foot points of OpenPose's body-25, in the order
left big toe, left small toe, left heel, right big toe, right small toe, right heel.
"""

from dataclasses import dataclass
from math import cos, log, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.photographs import Image

Floats = NDArray[np.float64]

_BOX_SIDES = (140.0, 640.0)  # px, in a frame whose shorter side is 720
_BOX_MARGIN = 1.2  # box side over the joints' extent

_RIGHT_LEG, _LEFT_LEG = (2, 1, 0), (3, 4, 5)  # hip, knee, ankle
_RIGHT_ARM, _LEFT_ARM = (8, 7, 6), (9, 10, 11)  # shoulder, elbow, wrist
PELVIS = 14
OPENPOSE = [19, 12, 8, 7, 6, 9, 10, 11, 14, 2, 1, 0, 3, 4, 5, 21, 20, 23, 22, *range(24, 30)]

# Joints of the trunk and head, facing the camera, pelvis at the origin, metres.
_TRUNK = {
    8: (-0.18, -0.46, 0.0),
    9: (0.18, -0.46, 0.0),
    12: (0.0, -0.52, 0.0),
    13: (0.0, -0.81, 0.0),
    15: (0.0, -0.46, 0.0),
    16: (0.0, -0.22, 0.0),
    17: (0.0, -0.61, -0.05),
    18: (0.0, -0.70, 0.0),
    19: (0.0, -0.665, -0.115),
    20: (0.036, -0.70, -0.095),
    21: (-0.036, -0.70, -0.095),
    22: (0.08, -0.68, 0.01),
    23: (-0.08, -0.68, 0.01),
}
_FOOT = np.array([[0.03, 0.07, -0.17], [0.09, 0.07, -0.13], [0.01, 0.06, 0.05]])  # left, - ankle


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with its principal point in the middle of a (W, H) frame; focal in px."""

    width: int
    height: int
    focal: float

    def project(self, points: Floats) -> Floats:
        """Project points (N,3) in camera axes, m, to (N,2) px."""
        middle = np.array([self.width / 2, self.height / 2])
        pixels: Floats = self.focal * points[:, :2] / points[:, 2:] + middle
        return pixels


@dataclass(frozen=True)
class Person:
    """A person: ``joints`` (30,3) m in camera axes, ``pixels`` (30,2), box in px, SMPL ``pose``
    (72,).
    """

    joints: Floats
    pixels: Floats
    center: Floats
    side: float
    pose: Floats


def rotation(x: float, y: float, z: float) -> Floats:
    """The rotation matrix (3,3) about x, then z, then y; angles in radians."""
    about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
    about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
    about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_z @ about_x, dtype=np.float64)


def _limb(
    start: Floats, length: tuple[float, float], spread: float, swing: float, bend: float
) -> tuple[Floats, Floats]:
    """Middle and end joint (3,) m of a limb hanging from ``start``.

    Angles in radians: ``spread`` sideways (positive: to +x), ``swing`` forward, ``bend`` forward
    after the middle joint.
    """

    def bone(angle: float) -> Floats:
        flat = cos(spread)
        return np.array([sin(spread), flat * cos(angle), -flat * sin(angle)])

    middle = start + length[0] * bone(swing)
    return middle, middle + length[1] * bone(swing + bend)


def _body(rng: np.random.Generator) -> Floats:
    """Joints (30,3) m of a body that stands, walks or holds its arms out, facing the camera; the
    pelvis is at the origin.
    """
    joints = np.zeros((30, 3))
    lean = rotation(rng.normal(0.0, 0.07), rng.normal(0.0, 0.1), rng.normal(0.0, 0.06))
    for joint, position in _TRUNK.items():
        joints[joint] = lean @ np.array(position)
    stride = rng.uniform(-0.4, 0.4)
    arms_out = rng.random() < 0.4
    for sign, leg, arm in ((-1, _RIGHT_LEG, _RIGHT_ARM), (1, _LEFT_LEG, _LEFT_ARM)):
        joints[leg[0]] = (sign * 0.1, 0.03, 0.0)
        joints[leg[1]], joints[leg[2]] = _limb(
            joints[leg[0]],
            (0.42, 0.41),
            spread=sign * rng.uniform(0.02, 0.14),
            swing=sign * stride,
            bend=-rng.uniform(0.0, 0.4),
        )
        joints[arm[1]], joints[arm[2]] = _limb(
            joints[arm[0]],
            (0.29, 0.26),
            spread=sign * (rng.uniform(0.9, 1.7) if arms_out else rng.uniform(0.12, 0.5)),
            swing=-sign * stride,
            bend=rng.uniform(0.0, 0.9),
        )
        foot = slice(24, 27) if sign > 0 else slice(27, 30)
        joints[foot] = joints[leg[2]] + _FOOT * (sign, 1, 1)
    return joints * rng.uniform(0.9, 1.1)


def _box(pixels: Floats) -> tuple[Floats, float]:
    """Middle (2,) and side of the square box around the first 24 of ``pixels`` (30,2), px."""
    low, high = pixels[:24].min(axis=0), pixels[:24].max(axis=0)
    return (low + high) / 2, _BOX_MARGIN * float((high - low).max())


def _place(body: Floats, camera: Camera, center: Floats, side: float) -> Floats:
    """``body`` (30,3) m moved so that its box has this ``center`` and ``side``, px: (30,3) m."""
    extent = float(np.ptp(body[:24, :2], axis=0).max())
    position: Floats = np.array([0.0, 0.0, camera.focal * extent * _BOX_MARGIN / side])
    for _ in range(8):
        now_center, now_side = _box(camera.project(body + position))
        position[2] *= now_side / side
        position[:2] += (center - now_center) * position[2] / camera.focal
    placed: Floats = body + position
    return placed


def _targets(count: int, camera: Camera, rng: np.random.Generator) -> Floats:
    """Boxes (count,3): middle x, y and side, px. They are side by side; some exceed the frame a
    bit.
    """
    size = np.array([camera.width, camera.height], dtype=np.float64)
    low, high = (log(side * size.min() / 720) for side in _BOX_SIDES)
    side = np.exp(rng.uniform(low, high, count))
    wish = rng.uniform(0.2, 0.8, (count, 2))
    wish[:, 0] = (wish[:, 0] + rng.permutation(count)) / count
    margin = 0.48 * side[:, None]
    inside = np.clip(wish * size, margin, size - margin)
    margin = margin * rng.uniform(0.4, 0.9, (count, 2))
    outside = np.where(wish < 0.5, margin, size - margin)
    leaves = rng.random((count, 2)) < 0.1
    return np.column_stack([np.where(leaves, outside, inside), side])


def _smpl_pose(turn: float, rng: np.random.Generator) -> Floats:
    """SMPL axis-angles (72,) rad of an upright body, rotated by ``turn`` rad about the vertical."""
    root, _ = cv2.Rodrigues(rotation(0.0, turn, 0.0) @ rotation(pi, 0.0, 0.0))
    pose: Floats = rng.normal(0.0, 0.15, 72)
    pose[:3] = np.ravel(root)
    return pose


def make_people(count: int, camera: Camera, rng: np.random.Generator) -> list[Person]:
    """``count`` people in front of the camera."""
    people = []
    for x, y, wished in _targets(count, camera, rng):
        turn = rng.normal(0.0, 0.6) + (pi if rng.random() < 0.15 else 0.0)
        body = _body(rng) @ rotation(0.0, turn, 0.0).T
        joints = _place(body, camera, np.array([x, y]), float(wished))
        pixels = camera.project(joints)
        center, side = _box(pixels)
        people.append(Person(joints, pixels, center, side, _smpl_pose(turn, rng)))
    return people


# --------------------------------------------------------------------------------- painting

# (joints, radii around them in metres, colour): each part is the convex hull of its joints'
# circles.
_PARTS: tuple[tuple[tuple[int, ...], tuple[float, ...], str], ...] = (
    ((8, 9, 3, 2), (0.06, 0.06, 0.085, 0.085), "shirt"),
    ((2, 3), (0.1, 0.1), "trousers"),
    ((2, 1), (0.095, 0.065), "trousers"),
    ((3, 4), (0.095, 0.065), "trousers"),
    ((1, 0), (0.065, 0.045), "trousers"),
    ((4, 5), (0.065, 0.045), "trousers"),
    ((27, 28, 29), (0.03, 0.03, 0.035), "shoes"),
    ((24, 25, 26), (0.03, 0.03, 0.035), "shoes"),
    ((0, 29), (0.045, 0.035), "shoes"),
    ((5, 26), (0.045, 0.035), "shoes"),
    ((8, 7), (0.06, 0.047), "shirt"),
    ((9, 10), (0.06, 0.047), "shirt"),
    ((7, 6), (0.042, 0.032), "skin"),
    ((10, 11), (0.042, 0.032), "skin"),
    ((6,), (0.05,), "skin"),
    ((11,), (0.05,), "skin"),
    ((12, 18), (0.055, 0.055), "skin"),
    ((17, 18), (0.055, 0.09), "skin"),
    ((22, 23, 13), (0.035, 0.035, 0.06), "hair"),
    ((20, 21, 17), (0.034, 0.034, 0.05), "skin"),
    ((19,), (0.014,), "lips"),
    ((20,), (0.018,), "white"),
    ((21,), (0.018,), "white"),
    ((20,), (0.009,), "dark"),
    ((21,), (0.009,), "dark"),
)
_SHADES = ((1.0, 0.72), (0.75, 0.9), (0.45, 1.05))  # (radius, brightness), outermost first
_SKINS = ((236, 196, 170), (214, 162, 128), (168, 112, 80), (104, 68, 48))
_CIRCLE = np.array([(cos(i * pi / 8), sin(i * pi / 8)) for i in range(16)])


def _clothes(rng: np.random.Generator) -> dict[str, Floats]:
    """Colours of a person's parts, each (3,) RGB in 0..255."""
    fixed = {"lips": (190, 90, 80), "white": (240, 240, 235), "dark": (30, 25, 25)}
    return {
        "skin": np.array(_SKINS[int(rng.integers(len(_SKINS)))], dtype=np.float64),
        "shirt": rng.uniform(40, 240, 3),
        "trousers": rng.uniform(25, 170, 3),
        "shoes": rng.uniform(20, 230) * np.ones(3),
        "hair": rng.uniform(20, 90) * np.array([1.3, 1.0, 0.7]),
        **{name: np.array(rgb, dtype=np.float64) for name, rgb in fixed.items()},
    }


def _fill_hull(frame: Image, centers: Floats, radii: Floats, color: Floats) -> None:
    """Paint the hull of circles (N,2), (N,) px, anti-aliased."""
    points = (centers[:, None] + radii[:, None, None] * _CIRCLE).reshape(-1, 2)
    hull = cv2.convexHull(points.astype(np.float32))
    subpixel = np.rint(np.asarray(hull) * 16).astype(np.int32)
    cv2.fillConvexPoly(frame, subpixel, color.clip(0, 255).tolist(), cv2.LINE_AA, 4)


def paint(frame: Image, person: Person, focal: float, rng: np.random.Generator) -> None:
    """Paint a mannequin onto the frame, parts farther from the camera first."""
    clothes = _clothes(rng)
    depth = person.joints[:, 2]
    for joints, radii, color in sorted(_PARTS, key=lambda part: -depth[list(part[0])].mean()):
        index = list(joints)
        sizes = np.array(radii) * focal / depth[index]
        shades = _SHADES if sizes.max() > 4 else _SHADES[1:2]
        for radius, brightness in shades:
            lit = person.pixels[index] - 0.25 * (1 - radius) * sizes[:, None]
            _fill_hull(frame, lit, sizes * radius, clothes[color] * brightness)
