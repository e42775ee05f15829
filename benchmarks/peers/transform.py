"""ReFit's augmentation as a skilled user of another loader would write it: per sample, with OpenCV.

It shares no code with our loader, whose functions are made for whole batches and would be several
times slower for a single sample. Tests check that both produce the same items.
"""

import math
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from benchmarks.peers.records import Record
from refit_shard import Augmentation, AugmentationPolicy, Occlusion
from refit_shard.converter.frames.shrink import shrink
from refit_shard.loaders.items.labels import J24_FLIP, J49_FLIP, SMPL_FLIP

Pixels = NDArray[np.uint8]
Item = dict[str, Any]
Kind = Literal["uint8", "normalized"]

RES = 256
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
_POLICY = AugmentationPolicy()
_MAX_OCCLUDERS = 7
_LEVELS = np.arange(256.0)
_MIRRORED = np.array([1.0, -1.0, -1.0], np.float32)


# ------------------------------------------------------------------------------------- drawing


def _clipped_normal(middle: float, sigma: float, reach: float) -> float:
    return min(max(random.gauss(middle, sigma), middle - reach), middle + reach)


def draw(objects: int) -> Augmentation:
    """ReFit's random parameters, with up to seven of ``objects`` occluders.

    They are drawn from the module ``random``, which DataLoader seeds in each worker.
    """
    occluders: tuple[Occlusion, ...] = ()
    if random.random() < _POLICY.occlude:
        occluders = tuple(
            Occlusion(
                index=random.randrange(objects),
                x=random.random() * RES,
                y=random.random() * RES,
                size=random.uniform(*_POLICY.occluder_size),
            )
            for _ in range(random.randint(1, _MAX_OCCLUDERS))
        )
    low, high = 1.0 - _POLICY.colour, 1.0 + _POLICY.colour
    return Augmentation(
        flip=random.random() < _POLICY.flip,
        rot=_clipped_normal(0.0, _POLICY.rot_sigma, _POLICY.rot_clip),
        sc=_clipped_normal(1.0, _POLICY.scale_sigma, _POLICY.scale_clip),
        pn=(random.uniform(low, high), random.uniform(low, high), random.uniform(low, high)),
        occluders=occluders,
    )


# -------------------------------------------------------------------------------------- pixels


def output_to_source(record: Record, drawn: Augmentation) -> NDArray[np.float64]:
    """The map (2, 3) from output pixels (before the flip) to source pixels.

    The box is rounded to whole pixels and rotated about its middle.
    """
    cx, cy = record["center"].tolist()
    half = 100.0 * drawn.sc * record["scale"]
    x0, x1 = math.trunc(cx - half), math.trunc(cx + half)
    y0, y1 = math.trunc(cy - half), math.trunc(cy + half)
    dx, dy = (x1 - x0) / RES, (y1 - y0) / RES
    mx, my = (x0 + x1) / 2.0 - 0.5, (y0 + y1) / 2.0 - 0.5
    cos, sin = math.cos(math.radians(drawn.rot)), math.sin(math.radians(drawn.rot))
    u = (RES - 1) / 2.0  # the output's middle
    a, b, c, d = cos * dx, -sin * dy, sin * dx, cos * dy
    return np.array([[a, b, mx - (a + b) * u], [c, d, my - (c + d) * u]])


def output_to_stored(
    record: Record, drawn: Augmentation, to_source: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The map (2, 3) from output pixels (after the flip) to pixels of the stored crop."""
    affine = to_source.copy()
    if drawn.flip:
        affine[:, 2] += affine[:, 0] * (RES - 1)
        affine[:, 0] *= -1.0
    k = record["k"]
    affine[:, 2] += 0.5 - record["window"][:2]
    affine *= k[:, None]
    affine[:, 2] -= 0.5
    return affine


def paste(image: Pixels, cut_out: Pixels, one: Occlusion) -> None:
    """Blend a resized cut-out (H, W, 4) into ``image`` (H, W, 3).

    (OpenCV's area interpolation, the obvious choice, would take twice the time.)
    """
    height, width = cut_out.shape[:2]
    w, h = max(1, round(width * one.size)), max(1, round(height * one.size))
    left, top = round(one.x - w / 2), round(one.y - h / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(image.shape[1], left + w), min(image.shape[0], top + h)
    if x0 >= x1 or y0 >= y1:
        return
    part = shrink(cut_out, w, h)[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = cv2.cvtColor(cv2.extractChannel(part, 3), cv2.COLOR_GRAY2RGB)
    over = cv2.multiply(cv2.cvtColor(part, cv2.COLOR_RGBA2RGB), alpha, scale=1 / 255)
    under = image[y0:y1, x0:x1]
    cv2.add(cv2.multiply(under, cv2.bitwise_not(alpha), scale=1 / 255), over, dst=under)


def normalized(image: Pixels, pn: tuple[float, float, float]) -> NDArray[np.float32]:
    """The image (3, res, res) with channel factors, truncated and normalised, by a table per
    channel.
    """
    out = np.empty((3, *image.shape[:2]), np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        levels = np.floor(np.minimum(_LEVELS * pn[channel], 255.0))
        table = ((levels / 255.0 - MEAN[channel]) / STD[channel]).astype(np.float32)
        cv2.LUT(plane, table, dst=out[channel])
    return out


# -------------------------------------------------------------------------------------- labels


def _mirrored(joints: NDArray[np.float32], order: NDArray[np.int64]) -> NDArray[np.float32]:
    joints = joints[order]
    joints[:, 0] *= -1.0
    return joints


def _turned(root: NDArray[np.float32], cos: float, sin: float) -> NDArray[np.float64]:
    """The axis-angle (3,) rotated in the image plane."""
    matrix = cv2.Rodrigues(root.astype(np.float64))[0]
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(cv2.Rodrigues(turn @ matrix)[0], np.float64)[:, 0]


def _center(record: Record, drawn: Augmentation, cos: float, sin: float) -> NDArray[np.float32]:
    """The box's centre, mirrored and rotated about the frame's middle."""
    height, width = record["orig_shape"].tolist()
    cx, cy = record["center"].tolist()
    x, y = cx - width / 2.0, cy - height / 2.0
    if drawn.flip:
        x, sin = -x, -sin
    return np.array([cos * x - sin * y + width / 2, sin * x + cos * y + height / 2], np.float32)


def labels(record: Record, drawn: Augmentation, to_source: NDArray[np.float64]) -> Item:
    """ReFit's labels; plain numbers become float64 and int64 when a batch is collated."""
    cos, sin = math.cos(math.radians(-drawn.rot)), math.sin(math.radians(-drawn.rot))
    keypoints = record["keypoints"].copy()
    inverse = np.linalg.inv(to_source[:, :2])
    points = (keypoints[:, :2] - to_source[:, 2]) @ inverse.T
    keypoints[:, :2] = (points + 0.5) * (2.0 / RES) - 1.0
    pose_3d = record["pose_3d"].copy()
    pose_3d[:, :2] = pose_3d[:, :2] @ np.array([[cos, sin], [-sin, cos]], np.float32)
    pose = record["pose"].copy()
    pose[:3] = _turned(pose[:3], cos, sin)
    if drawn.flip:
        keypoints = _mirrored(keypoints, J49_FLIP)
        pose_3d = _mirrored(pose_3d, J24_FLIP)
        pose = (pose.reshape(24, 3)[SMPL_FLIP] * _MIRRORED).reshape(72)
    return {
        "keypoints": keypoints,
        "pose": pose,
        "betas": record["betas"].copy(),
        "pose_3d": pose_3d,
        "scale": drawn.sc * record["scale"],
        "center": _center(record, drawn, cos, sin),
        "orig_shape": record["orig_shape"].astype(np.float32),
        "img_focal": record["img_focal"],
        "img_center": record["img_center"].copy(),
        "flip": int(drawn.flip),
        "occ": int(bool(drawn.occluders)),
        "is_flipped": int(drawn.flip),
        "rot": drawn.rot,
        "sc": drawn.sc,
        "rot_angle": drawn.rot,
        "sample_index": record["source_row"],
        "gender": record["gender"],
        "has_smpl": float(record["has_smpl"]),
        "has_pose_3d": record["has_pose_3d"],
        "imgname": record["imgname"],
        "dataset_name": "bedlam",
    }


# --------------------------------------------------------------------------------------- items


def read_cut_outs(path: Path) -> list[Pixels]:
    """The cut-outs (H, W, 4) of an occluder file."""
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
    return [
        np.frombuffer(row["rgba"], np.uint8).reshape(row["height"], row["width"], 4) for row in rows
    ]


@dataclass(frozen=True)
class Transform:
    """Turns a stored record into ReFit's item, with random parameters."""

    occluders: Path
    image: Kind

    @cached_property
    def cut_outs(self) -> list[Pixels]:
        """The occluders, read once by each worker."""
        return read_cut_outs(self.occluders)

    def __call__(self, record: Record) -> Item:
        return self.item(record, draw(len(self.cut_outs)))

    def item(self, record: Record, drawn: Augmentation) -> Item:
        """The item with these parameters."""
        to_source = output_to_source(record, drawn)
        image: Pixels = cv2.warpAffine(  # type: ignore[assignment]
            simplejpeg.decode_jpeg(record["jpeg"], "RGB"),
            output_to_stored(record, drawn, to_source),
            (RES, RES),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        for one in drawn.occluders:
            paste(image, self.cut_outs[one.index], one)
        made = labels(record, drawn, to_source)
        if self.image == "uint8":
            return {"img": image, **made, "pn": np.array(drawn.pn, np.float32)}
        return {"img": normalized(image, drawn.pn), **made}
