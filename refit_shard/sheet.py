"""Contact sheets: crops with their skeleton, box and name, so that a wrong crop is seen at once."""

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.console import plain

Image = NDArray[np.uint8]
Points = NDArray[np.floating]

OPENPOSE_JOINTS = 25
CELL = 256
COLUMNS = 6

RIGHT, LEFT, MIDDLE = (255, 96, 64), (64, 208, 255), (255, 224, 64)
_MOST_TEXT = 64
# OpenCV draws ASCII alone.
_ASCII = str.maketrans({"°": " deg", "×": "x"})

WHITE, BOX = (255, 255, 255), (96, 255, 96)

# SPIN's 24 joints; a bone is drawn where both its ends are known.
BONES = (
    (0, 1, RIGHT),
    (1, 2, RIGHT),
    (5, 4, LEFT),
    (4, 3, LEFT),
    (2, 3, MIDDLE),
    (2, 8, RIGHT),
    (3, 9, LEFT),
    (8, 9, MIDDLE),
    (6, 7, RIGHT),
    (7, 8, RIGHT),
    (11, 10, LEFT),
    (10, 9, LEFT),
    (12, 13, MIDDLE),
    (19, 20, LEFT),
    (19, 21, RIGHT),
    (20, 22, LEFT),
    (21, 23, RIGHT),
)


def _pixel(point: Points) -> tuple[int, int]:
    x, y = np.clip(np.nan_to_num(point[:2]).round(), -10_000, 10_000).astype(int).tolist()
    return x, y


def draw_skeleton(image: Image, keypoints: Points) -> None:
    """Draw 49 keypoints (x, y in the image's pixels, confidence) onto the image."""
    part = keypoints[OPENPOSE_JOINTS:]
    for first, second, colour in BONES:
        if part[first, 2] > 0 and part[second, 2] > 0:
            ends = _pixel(part[first]), _pixel(part[second])
            cv2.line(image, *ends, colour, 2, cv2.LINE_AA)
    for joint in part[part[:, 2] > 0]:
        cv2.circle(image, _pixel(joint), 2, WHITE, -1, cv2.LINE_AA)
    for joint in keypoints[:OPENPOSE_JOINTS][keypoints[:OPENPOSE_JOINTS, 2] > 0]:
        cv2.circle(image, _pixel(joint), 1, MIDDLE, -1, cv2.LINE_AA)


def draw_box(image: Image, corners: Points) -> None:
    """Draw the box: x0, y0, x1, y1 in the image's pixels."""
    cv2.rectangle(image, _pixel(corners[:2]), _pixel(corners[2:]), BOX, 1, cv2.LINE_AA)


def label(image: Image, text: str) -> Image:
    """The image with a line of text below it."""
    strip = np.zeros((18, image.shape[1], 3), np.uint8)
    text = plain(text[:_MOST_TEXT].translate(_ASCII))
    cv2.putText(strip, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, WHITE, 1, cv2.LINE_AA)
    return np.vstack([image, strip])


def fit(image: Image) -> tuple[Image, float]:
    """The image in a square cell, top left, and the factor it was scaled by."""
    height, width = image.shape[:2]
    factor = CELL / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    cell = np.zeros((CELL, CELL, 3), np.uint8)
    cell[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cell, factor


def compose(cells: list[Image]) -> Image:
    """Equal cells in rows of six."""
    columns = min(COLUMNS, len(cells))
    blank = np.zeros_like(cells[0])
    padded = cells + [blank] * (-len(cells) % columns)
    rows = [np.hstack(padded[begin : begin + columns]) for begin in range(0, len(cells), columns)]
    return np.vstack(rows)


def png(image: Image) -> bytes:
    """Encode (H, W, 3) RGB as PNG."""
    _, data = cv2.imencode(".png", image[:, :, ::-1])
    return data.tobytes()
