"""Makes one row's sample: the person's crop from the frame, and the record of labels."""

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.build.task import Recipe, ShardTask
from refit_shard.converter.frames.imread import Frame
from refit_shard.converter.frames.shrink import shrink
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.geometry import (
    StoredCrop,
    box_meets_image,
    box_side,
    plan_crop,
    plan_cropped,
)


class Views:
    """A decoded frame as it is stored and, on demand, turned 90 degrees clockwise."""

    def __init__(self, stored: Frame) -> None:
        self.stored = stored

    @cached_property
    def turned(self) -> Frame:
        """The frame turned clockwise."""
        return np.asarray(cv2.rotate(self.stored, cv2.ROTATE_90_CLOCKWISE), np.uint8)


def oriented(recipe: Recipe, views: Views, task: ShardTask, row: int) -> Frame:
    """The frame in the orientation of the row's labels.

    Raises:
        FrameError: the frame's size differs from ``orig_shape`` of the labels.
    """
    principal = task.labels["img_center"][row] if "img_center" in task.labels else None
    on_its_side = recipe.dataset.on_its_side(views.stored.shape[1], task.imgnames[row], principal)
    frame = views.turned if on_its_side else views.stored
    stated = task.labels.get("orig_shape")
    if stated is not None and not recipe.dataset.cropped:
        height, width = frame.shape[:2]
        if (height, width) != tuple(stated[row]):
            turned = " (turned by 90 degrees?)" if (width, height) == tuple(stated[row]) else ""
            raise FrameError(
                "size_mismatch",
                f"the frame is {width}x{height}, orig_shape says "
                f"{stated[row][1]:.0f}x{stated[row][0]:.0f}{turned}",
            )
    return frame


def plan_row(recipe: Recipe, frame: Frame, task: ShardTask, row: int) -> StoredCrop:
    """The window of the frame that is stored for one person.

    Raises:
        FrameError: the box is outside the frame.
    """
    cx, cy = task.labels["center"][row].tolist()
    side = box_side(float(task.labels["scale"][row]))
    height, width = frame.shape[:2]
    if recipe.dataset.cropped:
        return plan_cropped(cx, cy, side, height, width)
    if not box_meets_image(cx, cy, side, height, width):
        raise FrameError(
            "box_outside_image",
            f"box of {side:.0f} px at ({cx:.0f}, {cy:.0f}) in a frame of {width}x{height}",
        )
    return plan_crop(cx, cy, side, height, width, recipe.envelope, recipe.box_px)


def crop_pixels(frame: Frame, crop: StoredCrop) -> Frame:
    """The stored pixels: the window of the frame, shrunk to the stored size."""
    x0, y0, x1, y1 = crop.window
    window = frame[y0:y1, x0:x1]
    if (crop.width, crop.height) == (x1 - x0, y1 - y0):
        return window
    return shrink(window, crop.width, crop.height)


def make_record(
    task: ShardTask,
    row: int,
    key: str,
    crop: StoredCrop,
    frame: Frame,
    dtype: np.dtype[np.void],
) -> NDArray[np.void]:
    """The row's labels and geometry as one structured scalar; the JPEG's CRC is not set yet."""
    record = np.zeros((), dtype)
    record["orig_shape"] = frame.shape[:2]
    for name, values in task.labels.items():
        record[name] = values[row]
    record["key"] = key.encode()
    record["imgname"] = task.imgnames[row].encode()
    record["source_row"] = task.source_rows[row]
    record["width"], record["height"] = crop.width, crop.height
    record["window"] = crop.window
    record["k"] = crop.kx, crop.ky
    if not record["has_camcalib"]:
        # The size of the original frame, also for datasets whose images are crops.
        height, width = record["orig_shape"]
        record["img_focal"] = np.hypot(height, width)
        record["img_center"] = width / 2, height / 2
    return record
