"""Contact sheets: crops with their skeleton, box and key, so that a wrong crop is seen at once."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.console import plain
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import box_side
from refit_shard.shards_spec.joints import OPENPOSE, PLACE
from refit_shard.shards_spec.reader import Sample
from refit_shard.shards_spec.storage.paths import AnyPath, local_path
from refit_shard.shards_spec.verify import checked_image

Image = NDArray[np.uint8]
Points = NDArray[np.floating]

CELL = 256
COLUMNS = 6

RIGHT, LEFT, MIDDLE = (255, 96, 64), (64, 208, 255), (255, 224, 64)
_MOST_TEXT = 64
# OpenCV draws only ASCII.
_ASCII = str.maketrans({"°": " deg", "×": "x"})

WHITE, BOX = (255, 255, 255), (96, 255, 96)

# A bone is drawn where both its ends are known.
_BONES = (
    ("right_ankle", "right_knee", RIGHT),
    ("right_knee", "right_hip", RIGHT),
    ("left_ankle", "left_knee", LEFT),
    ("left_knee", "left_hip", LEFT),
    ("right_hip", "left_hip", MIDDLE),
    ("right_hip", "right_shoulder", RIGHT),
    ("left_hip", "left_shoulder", LEFT),
    ("right_shoulder", "left_shoulder", MIDDLE),
    ("right_wrist", "right_elbow", RIGHT),
    ("right_elbow", "right_shoulder", RIGHT),
    ("left_wrist", "left_elbow", LEFT),
    ("left_elbow", "left_shoulder", LEFT),
    ("neck", "top_of_head", MIDDLE),
    ("nose", "left_eye", LEFT),
    ("nose", "right_eye", RIGHT),
    ("left_eye", "left_ear", LEFT),
    ("right_eye", "right_ear", RIGHT),
)
BONES = tuple((PLACE[first], PLACE[second], colour) for first, second, colour in _BONES)


def _pixel(point: Points) -> tuple[int, int]:
    x, y = np.clip(np.nan_to_num(point[:2]).round(), -10_000, 10_000).astype(int).tolist()
    return x, y


def draw_skeleton(image: Image, keypoints: Points) -> None:
    """Draw keypoints (49, 3), x and y in the image's pixels and confidence, onto the image."""
    openpose, spin = np.split(keypoints, [len(OPENPOSE)])
    for first, second, colour in BONES:
        if keypoints[first, 2] > 0 and keypoints[second, 2] > 0:
            ends = _pixel(keypoints[first]), _pixel(keypoints[second])
            cv2.line(image, *ends, colour, 2, cv2.LINE_AA)
    for joint in spin[spin[:, 2] > 0]:
        cv2.circle(image, _pixel(joint), 2, WHITE, -1, cv2.LINE_AA)
    for joint in openpose[openpose[:, 2] > 0]:
        cv2.circle(image, _pixel(joint), 1, MIDDLE, -1, cv2.LINE_AA)


def draw_box(image: Image, corners: Points) -> None:
    """Draw a box onto the image; ``corners`` (4,): x0, y0, x1, y1 in the image's pixels."""
    cv2.rectangle(image, _pixel(corners[:2]), _pixel(corners[2:]), BOX, 1, cv2.LINE_AA)


def label(image: Image, text: str) -> Image:
    """The image with a line of text below it."""
    strip = np.zeros((18, image.shape[1], 3), np.uint8)
    text = plain(text[:_MOST_TEXT].translate(_ASCII))
    cv2.putText(strip, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, WHITE, 1, cv2.LINE_AA)
    return np.vstack([image, strip])


def fit(image: Image, side: int = CELL) -> tuple[Image, float]:
    """The image resized into the top left of a square cell, and the scale factor."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    cell = np.zeros((side, side, 3), np.uint8)
    smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    cell[: size[1], : size[0]] = cv2.resize(image, size, interpolation=smooth)
    return cell, factor


def draw_sample(sample: Sample, side: int = CELL) -> Image:
    """A stored crop with its box, skeleton and key, ``side`` pixels wide.

    Raises:
        ShardError: the labels or the image are damaged.
    """
    return label(draw_crop(sample, side), sample["key"])


def draw_crop(sample: Sample, side: int = CELL) -> Image:
    """A stored crop with its box and skeleton, ``side`` pixels wide and high.

    Raises:
        ShardError: the labels or the image are damaged.
    """
    sample.check()
    image = checked_image(sample, f"{sample.shard_name}: {sample['key']}")
    cell, factor = fit(image, side)
    x0, y0 = sample["window"][:2]
    scale = np.asarray(sample["k"]) * factor

    def to_cell(points: Points) -> Points:
        mapped: Points = (points + 0.5 - np.array([x0, y0])) * scale - 0.5
        return mapped

    with np.errstate(over="ignore", invalid="ignore"):  # labels may be huge or not finite
        half = box_side(float(sample["scale"])) / 2
        corners = np.array([sample["center"] - half, sample["center"] + half])
        draw_box(cell, to_cell(corners).ravel())
        keypoints = np.array(sample["keypoints"])
        keypoints[:, :2] = to_cell(keypoints[:, :2])
        draw_skeleton(cell, keypoints)
    return cell


def compose(cells: list[Image]) -> Image:
    """One image of cells of equal size, six to a row."""
    columns = min(COLUMNS, len(cells))
    blank = np.zeros_like(cells[0])
    padded = cells + [blank] * (-len(cells) % columns)
    rows = [np.hstack(padded[begin : begin + columns]) for begin in range(0, len(cells), columns)]
    return np.vstack(rows)


def picture_path(given: AnyPath) -> Path:
    """Where a picture is written, which is a PNG.

    Raises:
        UsageError: the name ends like another kind of picture.
    """
    path = local_path(given, "--out")
    if path.suffix.lower() not in ("", ".png"):
        raise UsageError(f"--out {path}: must end with .png, as the picture is a PNG")
    return path


def png(image: Image) -> bytes:
    """An (H, W, 3) RGB image as PNG bytes."""
    _, data = cv2.imencode(".png", image[:, :, ::-1])
    return data.tobytes()
