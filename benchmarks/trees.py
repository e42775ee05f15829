"""Small generated datasets in the layouts of the real ones, for demo, tests and benchmarks.

The pictures are photographs (:mod:`benchmarks.photographs`) with mannequins painted into them
(:mod:`benchmarks.mannequins`, which defines the axes and the order of joints). The labels are the
mannequins' joints, so a wrong or rotated crop is seen at once.
"""

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import hypot, pi
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from benchmarks.big_npz import make_big_npz, write_npz
from benchmarks.layouts import COMMON_KEYS, LAYOUTS
from benchmarks.mannequins import (
    OPENPOSE,
    PELVIS,
    Camera,
    Floats,
    Person,
    make_people,
    paint,
    rotation,
)
from benchmarks.photographs import Image, as_image, backdrop, grain, photo_frame

__all__ = ["Tree", "make_big_npz", "make_config", "make_tree", "photo_frame"]

Row = dict[str, Any]

_JPEG_QUALITY = 92
_PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    4,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_FILTERED,
)


@dataclass(frozen=True)
class Tree:
    """A dataset on disk: images under ``root``, annotations in ``npz``."""

    name: str
    root: Path
    npz: Path
    rows: int
    frames: int


# ----------------------------------------------------------------------------------- labels


def _keypoints(person: Person, camera: Camera, zeroed: bool) -> Floats:
    """Keypoints (30,3): x, y px and confidence, which is 0 outside the frame; with ``zeroed`` x and
    y are 0 there too.
    """
    right, bottom = camera.width, camera.height
    x, y = person.pixels.T
    inside = (x >= 0) & (y >= 0) & (x < right) & (y < bottom)
    pixels = person.pixels * inside[:, None] if zeroed else person.pixels
    return np.column_stack([pixels, inside])


def _label(
    person: Person, dataset: str, scene: int, camera: Camera, rng: np.random.Generator
) -> Row:
    """All annotations that any dataset has, except imgname; a layout's keys select some of them."""
    keypoints = _keypoints(person, camera, zeroed=dataset == "agora")
    in_the_wild = dataset in ("coco", "mpii")
    fitted = float(not in_the_wild or rng.random() < 0.75)
    pelvis = person.joints[PELVIS]
    return {
        "center": person.center,
        "scale": person.side / 200,
        "part": keypoints[:24],
        "openpose": np.zeros((25, 3)) if in_the_wild else keypoints[OPENPOSE],
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
        "cam_R": rotation(pi / 2, scene * pi / 2, 0.0),
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

    Its random numbers depend only on the dataset, the seed and i.
    """
    rng = np.random.default_rng([seed, zlib.crc32(dataset.encode()), i])
    scenes = LAYOUTS[dataset].scenes
    nth, which = divmod(i, len(scenes))
    scene = scenes[which]
    name = scene.imgname.format(nth=nth, number=1 + 5 * i, seq=nth // 4, shot=nth % 4 * 5)
    width, height = scene.size
    focal = float(rng.uniform(*scene.focal)) if scene.focal else hypot(width, height)
    camera = Camera(width, height, focal)
    people = make_people(int(rng.integers(scene.people[0], scene.people[1] + 1)), camera, rng)
    frame = backdrop(width, height, rng)
    for person in sorted(people, key=lambda p: -p.joints[PELVIS, 2]):
        paint(frame, person, focal, rng)
    frame = grain(frame, rng)
    if scene.turned:
        frame = as_image(cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE))
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(frame, path.suffix))
    labels = (_label(person, dataset, which, camera, rng) for person in people)
    return [(which, nth, p, {"imgname": name, **label}) for p, label in enumerate(labels)]


def make_tree(dataset: str, folder: Path, *, frames: int, seed: int = 0) -> Tree:
    """Write ``frames`` images of a dataset and their npz below ``folder``.

    The same arguments give the same tree; a larger ``frames`` only adds to it.
    """
    layout = LAYOUTS[dataset]
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
    columns = {key: np.array([row[key] for row in rows]) for key in (*COMMON_KEYS, *layout.keys)}
    npz.parent.mkdir(parents=True, exist_ok=True)
    write_npz(npz, len(rows), {key: column.__getitem__ for key, column in columns.items()})
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
        stem = LAYOUTS[name].npz if name in LAYOUTS else name
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
