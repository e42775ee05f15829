"""Small seeded dataset trees in their true layouts, for the demo, the tests and the benchmarks.

The pictures are real photographs (those inside the scikit-image wheel) with mannequins painted
into them; the labels are the mannequins' own joints, so a wrong or rotated crop is seen at once.

Camera axes everywhere: x right, y down, z away from the camera; metres. Pixels: x right, y down.
A mannequin's 30 joints are SPIN's 24 and the six foot points of OpenPose's body-25, in the order
left big toe, left small toe, left heel, right big toe, right small toe, right heel.
"""

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from math import cos, hypot, log, pi, sin
from pathlib import Path
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]
Row = dict[str, Any]

_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "gravel.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
_GRAIN_SIGMA = 1.6  # of 255
_JPEG_QUALITY = 92
_PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    4,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_FILTERED,
)
_BOX_SIDES = (140.0, 640.0)  # px, in a frame whose shorter side is 720
_BOX_MARGIN = 1.2  # box side over the joints' extent
_CHUNK = 1 << 16  # rows written at a time


@dataclass(frozen=True)
class Tree:
    """A dataset on disk: images under ``root``, annotations in ``npz``."""

    name: str
    root: Path
    npz: Path
    rows: int
    frames: int


# ---------------------------------------------------------------------------------- layouts


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """Frames of one kind. ``size`` is (W, H) of the labels' frame, px; ``people`` is (min, max).

    ``imgname`` may use {nth} (in the scene), {number} (1, 6, 11 .. over the dataset), {seq} and
    {shot}. Without a ``focal`` range (px) the focal length is the frame's diagonal. ``turned``:
    the file is stored rotated, 90 degrees clockwise gives the labels' frame.
    """

    imgname: str
    size: tuple[int, int]
    people: tuple[int, int]
    focal: tuple[float, float] | None = None
    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """One dataset: frame i belongs to scene i modulo their number; ``keys`` are its npz's own."""

    root: str
    npz: str
    scenes: tuple[_Scene, ...]
    keys: tuple[str, ...]
    by_track: bool = False  # rows ordered by person, then frame


_COMMON_KEYS = ("imgname", "center", "scale", "part", "openpose")
_CAMERA_KEYS = ("img_focal", "img_center", "orig_shape")


def _bedlam_scene(name: str, turned: bool = False) -> _Scene:
    return _Scene(
        imgname=name + "/png/seq_{seq:06d}/seq_{seq:06d}_{shot:04d}.png",
        size=(720, 1280) if turned else (1280, 720),
        people=(1, 4),
        focal=(1000.0, 2000.0),
        turned=turned,
    )


def _agora_scene(stem: str, focal: float) -> _Scene:
    imgname = stem + "_{nth:05d}_1280x720.png"
    return _Scene(imgname=imgname, size=(1280, 720), people=(1, 4), focal=(focal, focal))


def _pw3d(npz: str, *sequences: tuple[str, int]) -> _Layout:
    """Sequences are (name, number of people)."""
    return _Layout(
        root="3dpw",
        npz=npz,
        scenes=tuple(
            _Scene(
                imgname="imageFiles/" + name + "/image_{nth:05d}.jpg",
                size=(1080, 1920),
                people=(people, people),
            )
            for name, people in sequences
        ),
        keys=("pose", "shape", "S", "gender"),
        by_track=True,
    )


_LAYOUTS = {
    "bedlam": _Layout(
        root="bedlam",
        npz="bedlam_train",
        scenes=(
            _bedlam_scene("20221010_3-10_500_batch01hand_zoom_suburb_d_6fps"),
            _bedlam_scene("20221011_1_250_batch01hand_closeup_suburb_a_6fps", turned=True),
            _bedlam_scene("20221013_3_250_batch01hand_orbit_bigOffice_6fps"),
            _bedlam_scene("20221024_3-10_100_batch01handhair_static_highSchoolGym_30fps"),
        ),
        keys=("pose", "shape", "S", *_CAMERA_KEYS),
    ),
    "agora": _Layout(
        root="agora",
        npz="agora_train",
        scenes=(
            _agora_scene("train_0/ag_trainset_3dpeople_bfh_archviz_5_10_cam00", 640.0),
            _agora_scene("train_1/ag_trainset_renderpeople_bfh_hdri_50mm_5_10", 1777.8),
            _agora_scene("train_2/ag_trainset_axyz_bfh_brushifygrasslands_5_15", 995.6),
        ),
        keys=("pose", "shape", "S", "has_smpl", "gender", "is_kid", "kid_shape", *_CAMERA_KEYS),
    ),
    "coco": _Layout(
        root="coco",
        npz="coco_2014_eft",
        scenes=tuple(
            _Scene(
                imgname="train2014/COCO_train2014_{number:012d}.jpg",
                size=size,
                people=(1, 3),
            )
            for size in ((640, 480), (640, 480), (480, 640))
        ),
        keys=("pose", "shape", "has_smpl"),
    ),
    "mpii": _Layout(
        root="mpii",
        npz="mpii_train_eft",
        scenes=(_Scene(imgname="images/{number:09d}.jpg", size=(1280, 720), people=(1, 2)),),
        keys=("pose", "shape", "has_smpl"),
    ),
    "mpi-inf-3dhp": _Layout(
        root="mpi_inf_3dhp",
        npz="mpii3d_train",
        scenes=tuple(
            _Scene(
                imgname=f"S1/Seq1/imageFrames/video_{video}/frame_{{number:06d}}.jpg",
                size=(2048, 2048),
                people=(1, 1),
            )
            for video in (0, 1, 2)
        ),
        keys=("S",),
    ),
    "h36m": _Layout(
        root="h36m",
        npz="h36m_train",
        scenes=tuple(
            _Scene(
                imgname=f"images/S1_Directions_1.{camera}_{{number:06d}}.jpg",
                size=(1000, 1002),
                people=(1, 1),
            )
            for camera in (54138969, 55011271, 58860488, 60457274)
        ),
        keys=("pose", "shape", "S", "cam_R", "cam_t", "trans"),
    ),
    "3dpw": _pw3d("3dpw_train", ("courtyard_arguing_00", 2), ("outdoors_slalom_00", 1)),
    "3dpw_test": _pw3d("3dpw_test", ("downtown_arguing_00", 2), ("downtown_runForBus_01", 1)),
}


# ------------------------------------------------------------------------------ photographs


@cache
def _photos() -> tuple[Image, ...]:
    """The photographs, uint8 (H,W,3) RGB."""
    folder = files("skimage") / "data"
    pixels = (cv2.imdecode(_bytes(folder.joinpath(name).read_bytes()), 1) for name in _PHOTOS)
    return tuple(_image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) for bgr in pixels if bgr is not None)


def _bytes(data: bytes) -> Image:
    return np.frombuffer(data, dtype=np.uint8)


def _image(pixels: Any) -> Image:
    return np.asarray(pixels, dtype=np.uint8)


@cache
def _grain_table() -> NDArray[np.int8]:
    """Normal noise by the byte: (256,) quantiles, rounded."""
    normal = NormalDist(0.0, _GRAIN_SIGMA)
    return np.array([round(normal.inv_cdf((i + 0.5) / 256)) for i in range(256)], dtype=np.int8)


def _grain(frame: Image, rng: np.random.Generator) -> Image:
    """The frame with a camera's noise added, uint8 (H,W,3)."""
    draws = _bytes(rng.bytes(frame.size)).reshape(frame.shape)
    noise = cv2.LUT(draws, _grain_table())
    return _image(cv2.add(frame, noise, dtype=cv2.CV_8U))


def _view(width: int, height: int, rng: np.random.Generator) -> Image:
    """One photograph, randomly scaled, mirrored and moved, filling the frame: uint8 (H,W,3).

    It covers the frame's height, so nothing stands on its head; sideways it repeats as in mirrors.
    """
    photos = _photos()
    photo = photos[int(rng.integers(len(photos)))]
    scale = max(rng.uniform(0.8, 2.2) * min(width, height) / 720, height / photo.shape[0])
    flip = scale if rng.random() < 0.5 else -scale
    shift_x = rng.uniform(-1.0, 1.0) * width
    shift_y = rng.random() * (height - scale * photo.shape[0])
    matrix = np.array([[flip, 0.0, shift_x], [0.0, scale, shift_y]])
    return _image(cv2.warpAffine(photo, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101))


def _backdrop(width: int, height: int, rng: np.random.Generator) -> Image:
    """Two to four photographs blended along soft seams, without noise: uint8 (H,W,3) RGB."""
    frame = _view(width, height, rng)
    for _ in range(int(rng.integers(1, 4))):
        coarse = rng.random((3, 4), dtype=np.float32)
        field = cv2.resize(coarse, (width // 8, height // 8), interpolation=cv2.INTER_CUBIC)
        seams = np.clip(6.0 * np.asarray(field) - 2.5, 0.0, 1.0)
        weight = cv2.resize(seams, (width, height))
        inverse = cv2.subtract(np.ones_like(weight), weight)
        frame = _image(cv2.blendLinear(frame, _view(width, height, rng), inverse, weight))
    return frame


def photo_frame(width: int, height: int, rng: np.random.Generator) -> Image:
    """A frame full of photographic texture with a camera's noise: uint8 (H,W,3), RGB."""
    return _grain(_backdrop(width, height, rng), rng)


# ------------------------------------------------------------------------------- mannequins

_RIGHT_LEG, _LEFT_LEG = (2, 1, 0), (3, 4, 5)  # hip, knee, ankle
_RIGHT_ARM, _LEFT_ARM = (8, 7, 6), (9, 10, 11)  # shoulder, elbow, wrist
_PELVIS = 14
_OPENPOSE = [19, 12, 8, 7, 6, 9, 10, 11, 14, 2, 1, 0, 3, 4, 5, 21, 20, 23, 22, *range(24, 30)]

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
class _Camera:
    """A pinhole camera whose axis meets the middle of a (W, H) frame; focal in px."""

    width: int
    height: int
    focal: float

    def project(self, points: Floats) -> Floats:
        """(N,3) m in camera axes to (N,2) px."""
        middle = np.array([self.width / 2, self.height / 2])
        pixels: Floats = self.focal * points[:, :2] / points[:, 2:] + middle
        return pixels


@dataclass(frozen=True)
class _Person:
    """``joints`` (30,3) m in camera axes, ``pixels`` (30,2), the box in px, SMPL ``pose`` (72)."""

    joints: Floats
    pixels: Floats
    center: Floats
    side: float
    pose: Floats


def _rotation(x: float, y: float, z: float) -> Floats:
    """(3,3): rotate about x, then z, then y; radians."""
    about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
    about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
    about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_z @ about_x, dtype=np.float64)


def _limb(
    start: Floats, length: tuple[float, float], spread: float, swing: float, bend: float
) -> tuple[Floats, Floats]:
    """Middle and end joint (3,) m of a limb hanging from ``start``.

    ``spread`` leads sideways (positive: to +x), ``swing`` forward, ``bend`` forward after the
    middle joint; radians.
    """

    def bone(angle: float) -> Floats:
        flat = cos(spread)
        return np.array([sin(spread), flat * cos(angle), -flat * sin(angle)])

    middle = start + length[0] * bone(swing)
    return middle, middle + length[1] * bone(swing + bend)


def _body(rng: np.random.Generator) -> Floats:
    """A standing, walking or arms-out body facing the camera, pelvis at 0: (30,3) m."""
    joints = np.zeros((30, 3))
    lean = _rotation(rng.normal(0.0, 0.07), rng.normal(0.0, 0.1), rng.normal(0.0, 0.06))
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


def _place(body: Floats, camera: _Camera, center: Floats, side: float) -> Floats:
    """``body`` (30,3) m moved to where its box is ``center``, ``side`` px: (30,3) m."""
    extent = float(np.ptp(body[:24, :2], axis=0).max())
    position: Floats = np.array([0.0, 0.0, camera.focal * extent * _BOX_MARGIN / side])
    for _ in range(8):
        now_center, now_side = _box(camera.project(body + position))
        position[2] *= now_side / side
        position[:2] += (center - now_center) * position[2] / camera.focal
    placed: Floats = body + position
    return placed


def _targets(count: int, camera: _Camera, rng: np.random.Generator) -> Floats:
    """Boxes (count,3): middle x, y and side, px. Side by side; some leave the frame a bit."""
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
    """SMPL axis-angles (72,) rad, a body upright in camera axes and turned by ``turn`` rad."""
    root, _ = cv2.Rodrigues(_rotation(0.0, turn, 0.0) @ _rotation(pi, 0.0, 0.0))
    pose: Floats = rng.normal(0.0, 0.15, 72)
    pose[:3] = np.ravel(root)
    return pose


def _people(count: int, camera: _Camera, rng: np.random.Generator) -> list[_Person]:
    """``count`` people before the camera."""
    people = []
    for x, y, wished in _targets(count, camera, rng):
        turn = rng.normal(0.0, 0.6) + (pi if rng.random() < 0.15 else 0.0)
        body = _body(rng) @ _rotation(0.0, turn, 0.0).T
        joints = _place(body, camera, np.array([x, y]), float(wished))
        pixels = camera.project(joints)
        center, side = _box(pixels)
        people.append(_Person(joints, pixels, center, side, _smpl_pose(turn, rng)))
    return people


# --------------------------------------------------------------------------------- painting

# (joints, radii around them in metres, colour): each part is the hull of its joints' circles.
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


def _paint(frame: Image, person: _Person, focal: float, rng: np.random.Generator) -> None:
    """Paint a mannequin onto the frame, its farther parts first."""
    clothes = _clothes(rng)
    depth = person.joints[:, 2]
    for joints, radii, color in sorted(_PARTS, key=lambda part: -depth[list(part[0])].mean()):
        index = list(joints)
        sizes = np.array(radii) * focal / depth[index]
        shades = _SHADES if sizes.max() > 4 else _SHADES[1:2]
        for radius, brightness in shades:
            lit = person.pixels[index] - 0.25 * (1 - radius) * sizes[:, None]
            _fill_hull(frame, lit, sizes * radius, clothes[color] * brightness)


# ----------------------------------------------------------------------------------- labels


def _keypoints(person: _Person, camera: _Camera, zeroed: bool) -> Floats:
    """(30,3): x, y px and confidence, 0 out of the frame, there ``zeroed`` x and y as well."""
    right, bottom = camera.width, camera.height
    x, y = person.pixels.T
    inside = (x >= 0) & (y >= 0) & (x < right) & (y < bottom)
    pixels = person.pixels * inside[:, None] if zeroed else person.pixels
    return np.column_stack([pixels, inside])


def _label(
    person: _Person, dataset: str, scene: int, camera: _Camera, rng: np.random.Generator
) -> Row:
    """Every annotation that some dataset has, but imgname; the layout's keys select."""
    keypoints = _keypoints(person, camera, zeroed=dataset == "agora")
    in_the_wild = dataset in ("coco", "mpii")
    fitted = float(not in_the_wild or rng.random() < 0.75)
    pelvis = person.joints[_PELVIS]
    return {
        "center": person.center,
        "scale": person.side / 200,
        "part": keypoints[:24],
        "openpose": np.zeros((25, 3)) if in_the_wild else keypoints[_OPENPOSE],
        "S": np.column_stack([person.joints[:24] - pelvis, np.ones(24)]),
        "pose": person.pose * fitted,
        "shape": rng.standard_normal(10) * fitted,
        "has_smpl": fitted,
        "gender": "mf"[int(rng.integers(2))],
        "img_focal": camera.focal,
        "img_center": np.array([camera.width / 2, camera.height / 2]),
        "orig_shape": np.array([camera.height, camera.width]),
        "is_kid": False,
        "kid_shape": np.zeros(11),
        "cam_R": _rotation(pi / 2, scene * pi / 2, 0.0),
        "cam_t": np.array([0.0, 900.0, 5000.0 + 100.0 * scene]),
        "trans": pelvis,
    }


# ------------------------------------------------------------------------------------ trees


def _encode(frame: Image, suffix: str) -> bytes:
    """An RGB frame as the bytes of a PNG or JPEG file."""
    if suffix == ".jpg":
        pixels = np.ascontiguousarray(frame)
        data: bytes = simplejpeg.encode_jpeg(pixels, _JPEG_QUALITY, "RGB", "420")
        return data
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr, _PNG_OPTIONS)[1].tobytes()


def _make_frame(dataset: str, root: Path, seed: int, i: int) -> list[tuple[int, int, int, Row]]:
    """Write frame i; return (scene, nth in the scene, person, labels) of its people.

    Its random numbers depend on the dataset, the seed and i alone.
    """
    rng = np.random.default_rng([seed, zlib.crc32(dataset.encode()), i])
    scenes = _LAYOUTS[dataset].scenes
    nth, which = divmod(i, len(scenes))
    scene = scenes[which]
    name = scene.imgname.format(nth=nth, number=1 + 5 * i, seq=nth // 4, shot=nth % 4 * 5)
    width, height = scene.size
    focal = float(rng.uniform(*scene.focal)) if scene.focal else hypot(width, height)
    camera = _Camera(width, height, focal)
    people = _people(int(rng.integers(scene.people[0], scene.people[1] + 1)), camera, rng)
    frame = _backdrop(width, height, rng)
    for person in sorted(people, key=lambda p: -p.joints[_PELVIS, 2]):
        _paint(frame, person, focal, rng)
    frame = _grain(frame, rng)
    if scene.turned:
        frame = _image(cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE))
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(frame, path.suffix))
    labels = (_label(person, dataset, which, camera, rng) for person in people)
    return [(which, nth, p, {"imgname": name, **label}) for p, label in enumerate(labels)]


def make_tree(dataset: str, folder: Path, *, frames: int, seed: int = 0) -> Tree:
    """Write ``frames`` images of a dataset and their npz below ``folder``.

    The same arguments give the same tree, and more frames only add to it.
    """
    layout = _LAYOUTS[dataset]
    root = folder / layout.root
    npz = folder / "dataset_extras" / f"{layout.npz}.npz"
    with ThreadPoolExecutor() as pool:
        made = pool.map(partial(_make_frame, dataset, root, seed), range(frames))
        people = [person for frame in made for person in frame]
    if layout.by_track:
        people.sort(key=lambda person: (person[0], person[2], person[1]))
    else:
        people.sort(key=lambda person: person[:3])
    rows = [row for *_, row in people]
    columns = {key: np.array([row[key] for row in rows]) for key in (*_COMMON_KEYS, *layout.keys)}
    npz.parent.mkdir(parents=True, exist_ok=True)
    _write_npz(npz, len(rows), {key: column.__getitem__ for key, column in columns.items()})
    return Tree(dataset, root, npz, rows=len(rows), frames=frames)


# ----------------------------------------------------------------------------------- config

_ROOT_NAMES = {
    "coco": "COCO_ROOT",
    "mpii": "MPII_ROOT",
    "mpi-inf-3dhp": "MPI_INF_3DHP_ROOT",
    "h36m": "H36M_ROOT",
    "3dpw": "PW3D_ROOT",
    "3dpw_test": "PW3D_ROOT",
    "3dpw_test_sub": "PW3D_ROOT",
    "bedlam": "BEDLAM_ROOT",
    "agora": "AGORA_ROOT",
}


def make_config(folder: Path, trees: Sequence[Tree]) -> Path:
    """Write ``folder/data_config.py``, ReFit's names with these trees' absolute paths."""
    roots = dict.fromkeys(_ROOT_NAMES.values(), "")
    roots.update({_ROOT_NAMES[tree.name]: str(tree.root.resolve()) for tree in trees})
    extras, smpl = folder.resolve() / "dataset_extras", folder.resolve() / "smpl"
    splits: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for name in _ROOT_NAMES:
        stem = _LAYOUTS[name].npz if name in _LAYOUTS else name
        splits[not name.startswith("3dpw_test")][name] = str(extras / f"{stem}.npz")
    values: dict[str, object] = {
        **roots,
        "DATASET_NPZ_PATH": str(extras),
        "DATASET_FILES": list(splits),
        "DATASET_FOLDERS": {name: roots[root] for name, root in _ROOT_NAMES.items()},
        "PASCAL_OCCLUDERS": str(extras / "pascal_occluders.pkl"),
        "JOINT_REGRESSOR_TRAIN_EXTRA": str(smpl / "J_regressor_extra.npy"),
        "JOINT_REGRESSOR_H36M": str(smpl / "J_regressor_h36m.npy"),
        "SMPL_MEAN_PARAMS": str(smpl / "smpl_mean_params.npz"),
        "SMPL_MODEL_DIR": str(smpl),
    }
    lines = ['"""Where the made trees are; the names are ReFit\'s."""', ""]
    lines += [f"{name} = {value!r}" for name, value in values.items()]
    path = folder / "data_config.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------ large tables


def _write_npz(
    path: Path, rows: int, columns: Mapping[str, Callable[[slice], NDArray[Any]]]
) -> None:
    """Write an uncompressed npz; each column is asked for slices of its ``rows`` rows."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for key, column in columns.items():
            kind = column(slice(0, 0))
            header = {
                "descr": np.lib.format.dtype_to_descr(kind.dtype),
                "fortran_order": False,
                "shape": (rows, *kind.shape[1:]),
            }
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for start in range(0, rows, _CHUNK):
                    chunk = np.ascontiguousarray(column(slice(start, min(start + _CHUNK, rows))))
                    member.write(chunk.view(np.uint8).data if chunk.size else b"")


def _big_names(frames: int) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """imgname (frames,) in scenes of 12000 frames, and which are closeups."""
    number = range(frames)
    closeup = np.array([n // 12000 % 4 == 1 for n in number])
    names = [
        f"20221010_3-10_500_batch01hand_{'closeup' if closeup[n] else 'zoom'}_suburb_"
        f"{n // 12000:03d}_6fps/png/seq_{n // 30 % 400:06d}/"
        f"seq_{n // 30 % 400:06d}_{n % 30 * 5:04d}.png"
        for n in number
    ]
    return np.array(names), closeup


def make_big_npz(path: Path, rows: int, *, people_per_frame: float = 2.5, seed: int = 0) -> int:
    """Write a bedlam-like npz of ``rows`` rows without images; return its number of frames.

    The labels are random but plausible in range; memory stays far below the file's size.
    """
    rng = np.random.default_rng(seed)
    counts = 1 + rng.binomial(9, (people_per_frame - 1) / 9, rows)
    frame = np.repeat(np.arange(rows), counts)[:rows] if rows else np.arange(0)
    frames = int(frame[-1]) + 1 if rows else 0
    names, closeup = _big_names(frames)
    size = np.where(closeup[frame, None], (720, 1280), (1280, 720))
    side = rng.uniform(120.0, 700.0, rows)
    center = rng.uniform(0.1, 0.9, (rows, 2)) * size
    focal = rng.uniform(1000.0, 2000.0, frames)

    def draw(shape: tuple[int, ...], spread: float, part: slice) -> Floats:
        return rng.normal(0.0, spread, (part.stop - part.start, *shape))

    def keypoints(joints: int, part: slice) -> Floats:
        points = np.ones((part.stop - part.start, joints, 3))
        offset = rng.uniform(-0.4, 0.4, (len(points), joints, 2)) * side[part, None, None]
        points[..., :2] = center[part, None] + offset
        return points

    def joints(part: slice) -> Floats:
        return np.concatenate([draw((24, 3), 0.3, part), draw((24, 1), 0.0, part) + 1], axis=2)

    columns: dict[str, Callable[[slice], NDArray[Any]]] = {
        "imgname": lambda part: names[frame[part]],
        "center": lambda part: center[part],
        "scale": lambda part: side[part] / 200,
        "part": partial(keypoints, 24),
        "openpose": partial(keypoints, 25),
        "S": joints,
        "pose": partial(draw, (72,), 0.2),
        "shape": partial(draw, (10,), 1.0),
        "img_focal": lambda part: focal[frame[part]],
        "img_center": lambda part: size[part] / 2,
        "orig_shape": lambda part: size[part, ::-1],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_npz(path, rows, columns)
    return frames
