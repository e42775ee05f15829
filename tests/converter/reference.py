"""The stored crop's geometry and labels once more, from ``format.md``'s formulas alone."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """Whole source pixels, ends exclusive, and the size that is wanted before rounding."""

    box: tuple[int, int, int, int]
    width: float
    height: float


def window_of(
    center: tuple[float, float], scale: float, size: tuple[int, int], box_px: int
) -> Window:
    """``size`` is (width, height) of the frame."""
    side = 200.0 * scale
    half = 1.25 * math.sqrt(2.0) * side / 2.0 + 2.0
    low = [max(0, math.floor(c - half)) for c in center]
    high = [min(limit, math.ceil(c + half)) for c, limit in zip(center, size, strict=True)]
    k = min(1.0, box_px / side)
    return Window((*low, *high), (high[0] - low[0]) * k, (high[1] - low[1]) * k)  # type: ignore[arg-type]


def check_geometry(row: dict[str, Any], box_px: int) -> None:
    """An index row states the window, size and factors that the formulas give."""
    height, width = row["orig_shape"]
    wanted = window_of(tuple(row["center"]), row["scale"], (width, height), box_px)
    x0, y0, x1, y1 = row["window"]
    assert (x0, y0, x1, y1) == wanted.box
    assert abs(row["width"] - wanted.width) <= 0.5
    assert abs(row["height"] - wanted.height) <= 0.5
    assert row["width"] <= x1 - x0
    assert row["height"] <= y1 - y0
    assert row["k"] == [row["width"] / (x1 - x0), row["height"] / (y1 - y0)]


def crop_of(frame: Image, row: dict[str, Any]) -> Image:
    """The window cut from an upright frame and shrunk by averaging areas."""
    x0, y0, x1, y1 = row["window"]
    size = (row["width"], row["height"])
    return np.asarray(cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA), np.uint8)


def psnr(one: Image, other: Image) -> float:
    """Peak signal to noise, dB."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10.0 * math.log10(255.0**2 / max(error, 1e-9))


def joints(data: Any) -> NDArray[np.float32]:
    """OpenPose's 25 then SPIN's 24 joints of every row of an npz."""
    return np.concatenate([data["openpose"], data["part"]], axis=1).astype(np.float32)


def labels_of(data: Any, dataset: str) -> dict[str, NDArray[Any]]:
    """What the shards must state of every row of a tree's npz."""
    keys = set(data.files)
    rows = len(data["imgname"])
    has_smpl = data["has_smpl"] != 0 if "has_smpl" in keys else np.full(rows, "pose" in keys)
    has_3d = "S" in keys and "coco" not in dataset and "mpii" not in dataset
    genders = data["gender"] if "gender" in keys else np.full(rows, "?")
    wanted = {
        "imgname": data["imgname"],
        "center": data["center"],
        "scale": data["scale"],
        "keypoints": joints(data),
        "has_smpl": has_smpl,
        "has_pose_3d": np.full(rows, has_3d),
        "gender": np.array([{"m": 0, "f": 1}.get(str(g), -1) for g in genders]),
        "has_camcalib": np.full(rows, "img_focal" in keys),
    }
    if "pose" in keys:
        wanted["pose"] = np.where(has_smpl[:, None], data["pose"], 0).astype(np.float32)
        wanted["betas"] = np.where(has_smpl[:, None], data["shape"], 0).astype(np.float32)
    if has_3d:
        wanted["pose_3d"] = data["S"].astype(np.float32)
    for key in ("img_focal", "img_center", "cam_R", "cam_t", "trans"):
        if key in keys:
            wanted[key] = data[key].astype(np.float32)
    if "orig_shape" in keys:
        wanted["orig_shape"] = data["orig_shape"]
    return wanted
