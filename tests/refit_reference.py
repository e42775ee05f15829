"""A slow, independent reference of ReFit's training item, for tests only.

Written from the description in `datasets.md` ("ReFit's training item, in order"), with
scikit-image and scipy, and sharing no code with the project's own implementation.

Conventions
-----------
- Frames are RGB uint8 (H, W, 3); points are (x, y) pixels, x right, y down.
- `rot` is in degrees; rot > 0 turns the picture counter-clockwise as seen on screen.
- `scale` is the SPIN scale: the square box has a side of 200 * scale pixels, before `sc`.
- The frame must be upright: the caller applies the BEDLAM orientation fix.
- The order is always: rotate, then flip (except in `reference_center`, as in ReFit).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from skimage.transform import resize, rotate

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

# scikit-image's functions carry no types.
_rotate: Any = rotate
_resize: Any = resize

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def _table(text: str) -> NDArray[np.intp]:
    return np.array([int(word) for word in text.split()], dtype=np.intp)


J24_FLIP: Final = _table("5 4 3 2 1 0 11 10 9 8 7 6 12 13 14 15 16 17 18 19 21 20 23 22")
OPENPOSE_FLIP: Final = _table("0 1 5 6 7 2 3 4 8 12 13 14 9 10 11 16 15 18 17 22 23 24 19 20 21")
J49_FLIP: Final = np.concatenate([OPENPOSE_FLIP, 25 + J24_FLIP])
SMPL_FLIP: Final = _table("0 2 1 3 5 4 6 8 7 9 11 10 12 14 13 15 17 16 19 18 21 20 23 22")


@dataclass(frozen=True)
class ReferenceParams:
    """An augmentation: flip, rot (degrees), sc (factor on the box), pn (factor per RGB channel)."""

    flip: bool = False
    rot: float = 0.0
    sc: float = 1.0
    pn: tuple[float, float, float] = (1.0, 1.0, 1.0)


def rotation_2d(degrees: float) -> F64:
    """[[cos, -sin], [sin, cos]] of an angle in degrees, float64 (2, 2)."""
    a = math.radians(degrees)
    return np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=np.float64)


def _window(frame: U8, x0: int, y0: int, x1: int, y1: int) -> F64:
    """Pixels x0 <= x < x1, y0 <= y < y1 as float64 0..255; zeros outside the frame."""
    height, width = frame.shape[:2]
    window = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.float64)
    left, right = max(x0, 0), min(x1, width)
    top, bottom = max(y0, 0), min(y1, height)
    if left < right and top < bottom:
        window[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right]
    return window


def reference_patch(
    frame: U8, center: ArrayLike, scale: float, params: ReferenceParams, res: int = 256
) -> F64:
    """The crop after rotation, resize and flip, before occluders and colour.

    frame uint8 (H, W, 3), center (2,) px -> float64 (res, res, 3) in 0..255.
    """
    middle = np.asarray(center, dtype=np.float64)
    side = 200.0 * params.sc * float(scale)
    ul = np.trunc(middle - side / 2).astype(int)
    br = np.trunc(middle + side / 2).astype(int)
    if (br <= ul).any():
        raise ValueError(f"the box is empty: ul {ul.tolist()}, br {br.tolist()}")

    pad = 0
    if params.rot != 0:
        # Half the diagonal less half the side, so that rotation keeps every corner of the box in
        # view.
        pad = int(np.linalg.norm(br - ul) / 2 - (br[1] - ul[1]) / 2)
    patch = _window(frame, int(ul[0]) - pad, int(ul[1]) - pad, int(br[0]) + pad, int(br[1]) + pad)
    if params.rot != 0:
        patch = np.asarray(_rotate(patch, params.rot), dtype=np.float64)
        rows, cols = patch.shape[:2]
        patch = patch[pad : rows - pad, pad : cols - pad]

    patch = np.asarray(_resize(patch, (res, res)), dtype=np.float64)
    return patch[:, ::-1].copy() if params.flip else patch


def reference_colour(patch: ArrayLike, pn: tuple[float, float, float]) -> U8:
    """Channel factors, clip to 0..255, truncation: (h, w, 3) in 0..255 -> uint8 (h, w, 3)."""
    scaled = np.asarray(patch, dtype=np.float64) * np.array(pn, dtype=np.float64)
    return np.clip(scaled, 0.0, 255.0).astype(np.uint8)


def reference_crop(
    frame: U8, center: ArrayLike, scale: float, params: ReferenceParams, res: int = 256
) -> U8:
    """The whole crop without occluders: uint8 (H, W, 3), center (2,) px -> uint8 (res, res, 3).

    The last step truncates, so a rounding error of 1e-13 may cost one grey level.
    """
    return reference_colour(reference_patch(frame, center, scale, params, res), params.pn)


def reference_keypoints(
    keypoints: ArrayLike,
    center: ArrayLike,
    scale: float,
    params: ReferenceParams,
    res: int = 256,
    whole_pixels: bool = True,
) -> F32:
    """49 points (x px, y px, confidence) of the frame -> float32 (49, 3), x and y in -1..1.

    whole_pixels: True for ReFit's trunc(T(p)) + 1, False for T(p) without rounding.
    Confidence is kept; points of confidence 0 are mapped like any other.
    """
    points = np.array(keypoints, dtype=np.float64)
    if points.shape != (49, 3):
        raise ValueError(f"49 keypoints of 3 numbers, not {points.shape}")
    middle = np.asarray(center, dtype=np.float64)
    side = 200.0 * params.sc * float(scale)

    offsets = (points[:, :2] - middle) * (res / side)
    if params.rot != 0:
        offsets = offsets @ rotation_2d(-params.rot).T
    pixels = offsets + res / 2
    if whole_pixels:
        pixels = np.trunc(pixels) + 1
    points[:, :2] = 2 * pixels / res - 1

    if params.flip:
        points = points[J49_FLIP]
        points[:, 0] = -points[:, 0]
    return points.astype(np.float32)


def reference_pose(pose: ArrayLike, params: ReferenceParams) -> F32:
    """SMPL axis-angle (72,) in rad -> float32 (72,): root rotated by R_z(-rot), then flip.

    The returned root has an angle of at most pi, also if the given one is larger.
    """
    joints = np.array(pose, dtype=np.float64).reshape(24, 3)
    turn = Rotation.from_euler("z", -params.rot, degrees=True)
    joints[0] = (turn * Rotation.from_rotvec(joints[0])).as_rotvec()
    if params.flip:
        joints = joints[SMPL_FLIP] * np.array([1.0, -1.0, -1.0])
    return joints.reshape(72).astype(np.float32)


def reference_pose_3d(joints: ArrayLike, params: ReferenceParams) -> F32:
    """Joints (24, 4), metres and confidence -> float32 (24, 4): R_z(-rot) xyz, then flip."""
    out = np.array(joints, dtype=np.float64).reshape(24, 4)
    out[:, :2] = out[:, :2] @ rotation_2d(-params.rot).T
    if params.flip:
        out = out[J24_FLIP]
        out[:, 0] = -out[:, 0]
    return out.astype(np.float32)


def reference_center(center: ArrayLike, hw: tuple[int, int], params: ReferenceParams) -> F32:
    """The box's centre (2,) px in the flipped and rotated full frame of hw -> float32 (2,)."""
    height, width = hw
    point = np.array(center, dtype=np.float64)
    rot = params.rot
    if params.flip:
        point[0] = width - point[0]
        rot = -rot
    half = np.array([width / 2, height / 2])
    return np.asarray(rotation_2d(-rot) @ (point - half) + half, dtype=np.float32)


def reference_normalise(image: U8) -> F32:
    """uint8 RGB (h, w, 3) -> float32 (3, h, w), ImageNet mean and std."""
    unit = image.astype(np.float64) / 255.0
    normal = (unit - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)


def _gender(value: Any) -> np.int32:
    item = np.asarray(value).item()
    text = item.decode() if isinstance(item, bytes) else str(item)
    return np.int32({"m": 0, "f": 1}.get(text, -1))


def reference_item(
    frame: U8,
    labels: Mapping[str, NDArray[Any]],
    params: ReferenceParams,
    *,
    whole_pixels: bool = True,
    dataset_name: str = "",
    sample_index: int = 0,
) -> dict[str, Any]:
    """Every numeric key of one training item, without occluders (occ = 0).

    frame uint8 (H, W, 3), upright; labels: one row of the npz by array name, of which only center
    and scale are required. Without SMPL parameters the pose is zero, and its root is still rotated.
    """
    height, width = frame.shape[:2]
    center = np.asarray(labels["center"], dtype=np.float64)
    scale = float(labels["scale"])

    openpose = labels.get("openpose", np.zeros((25, 3)))
    part = labels.get("part", np.zeros((24, 3)))
    keypoints = np.concatenate([openpose, part]).astype(np.float64)

    has_smpl = "pose" in labels and "shape" in labels
    if has_smpl and "has_smpl" in labels:
        has_smpl = bool(int(labels["has_smpl"]))
    pose = labels["pose"] if has_smpl else np.zeros(72)
    betas = labels["shape"] if has_smpl else np.zeros(10)

    has_pose_3d = "S" in labels and "coco" not in dataset_name and "mpii" not in dataset_name
    pose_3d = labels["S"] if has_pose_3d else np.zeros((24, 4))

    item: dict[str, Any] = {
        "img": reference_normalise(reference_crop(frame, center, scale, params)),
        "keypoints": reference_keypoints(
            keypoints, center, scale, params, whole_pixels=whole_pixels
        ),
        "pose": reference_pose(pose, params),
        "betas": np.asarray(betas, dtype=np.float32),
        "pose_3d": reference_pose_3d(pose_3d, params),
        "scale": np.float32(params.sc * scale),
        "center": reference_center(center, (height, width), params),
        "orig_shape": np.array([height, width], dtype=np.float32),
        "img_focal": np.float32(labels.get("img_focal", math.hypot(height, width))),
        "img_center": np.array(labels.get("img_center", (width / 2, height / 2)), dtype=np.float32),
        "flip": int(params.flip),
        "is_flipped": int(params.flip),
        "occ": 0,
        "rot": float(params.rot),
        "rot_angle": float(params.rot),
        "sc": float(params.sc),
        "sample_index": sample_index,
        "gender": _gender(labels["gender"]) if "gender" in labels else np.int32(-1),
        "has_smpl": float(has_smpl),
        "has_pose_3d": int(has_pose_3d),
    }
    cameras = ("cam_R", "cam_t", "trans")
    if all(key in labels for key in cameras):
        item.update({key: np.asarray(labels[key], dtype=np.float32) for key in cameras})
    return item


def blend_occluder_reference(
    img: ArrayLike, object_rgba: U8, center_xy: ArrayLike, factor: float
) -> F64:
    """Paste one cut-out: img (h, w, 3) 0..255, object_rgba uint8 (oh, ow, 4), straight alpha.

    The cut-out is resized by `factor` to round(factor * size), 1 px at least; its top left
    corner is at round(center_xy - size / 2). Halves round to even. Returns float64 (h, w, 3)
    in 0..255, neither rounded nor truncated: `reference_colour` comes next.
    """
    out = np.array(img, dtype=np.float64)
    ow = max(1, round(object_rgba.shape[1] * factor))
    oh = max(1, round(object_rgba.shape[0] * factor))
    small = cv2.resize(object_rgba, (ow, oh), interpolation=cv2.INTER_AREA).astype(np.float64)
    x, y = np.asarray(center_xy, dtype=np.float64).tolist()
    left, top = round(x - ow / 2), round(y - oh / 2)

    # Pixel by pixel, because slices would be easy to get wrong.
    for j in range(oh):
        for i in range(ow):
            if 0 <= top + j < out.shape[0] and 0 <= left + i < out.shape[1]:
                alpha = small[j, i, 3] / 255.0
                out[top + j, left + i] = (
                    alpha * small[j, i, :3] + (1 - alpha) * out[top + j, left + i]
                )
    return out


def psnr(a: U8, b: U8) -> float:
    """Peak signal-to-noise ratio of two uint8 images of the same shape, in dB; inf if equal."""
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape}, {b.shape}")
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if mse == 0 else 10 * math.log10(255.0**2 / mse)
