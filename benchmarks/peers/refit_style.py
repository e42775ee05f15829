"""Items as ReFit makes them: the whole frame is read for every person and cropped with
scikit-image.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize, rotate
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.crops import Crops
from benchmarks.peers.records import LoaderOptions, Record, records
from benchmarks.peers.transform import (
    MEAN,
    RES,
    STD,
    Item,
    Pixels,
    draw,
    labels,
    output_to_source,
    read_cut_outs,
)
from refit_shard import Augmentation, Occlusion

Floats = NDArray[np.float64]

# scikit-image's functions carry no types.
_rotate: Any = rotate
_resize: Any = resize


def read_frame(root: Path, record: Record) -> Pixels:
    """The frame (H, W, 3) RGB; BEDLAM's closeups, which are stored rotated, are turned upright."""
    bgr = cv2.imread(str(root / record["imgname"]))
    if bgr is None:
        raise FileNotFoundError(root / record["imgname"])
    frame = np.asarray(bgr, np.uint8)[:, :, ::-1]
    if frame.shape[0] != int(record["orig_shape"][0]):
        frame = np.rot90(frame, -1)
    return frame


def crop(frame: Pixels, record: Record, drawn: Augmentation) -> Floats:
    """The crop of the box, rotated, resized, then mirrored: (res, res, 3) in 0 … 255."""
    half = 100.0 * drawn.sc * record["scale"]
    upper_left = np.trunc(record["center"] - half).astype(int)
    lower_right = np.trunc(record["center"] + half).astype(int)
    pad = 0
    if drawn.rot:
        size = lower_right - upper_left
        pad = int(np.linalg.norm(size) / 2 - size[1] / 2)
    (x0, y0), (x1, y1) = upper_left - pad, lower_right + pad
    window = np.zeros((y1 - y0, x1 - x0, 3))
    height, width = frame.shape[:2]
    left, right, top, bottom = max(0, x0), min(width, x1), max(0, y0), min(height, y1)
    window[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right]
    if drawn.rot:
        window = _rotate(window, drawn.rot)
        window = window[pad : window.shape[0] - pad, pad : window.shape[1] - pad]
    patch: Floats = _resize(window, (RES, RES))
    return patch[:, ::-1] if drawn.flip else patch


def paste(patch: Floats, cut_out: Pixels, one: Occlusion) -> None:
    """Blend a resized cut-out (H, W, 4) into ``patch``, as floats."""
    height, width = cut_out.shape[:2]
    w, h = max(1, round(width * one.size)), max(1, round(height * one.size))
    left, top = round(one.x - w / 2), round(one.y - h / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(RES, left + w), min(RES, top + h)
    if x0 >= x1 or y0 >= y1:
        return
    small = np.asarray(cv2.resize(cut_out, (w, h), interpolation=cv2.INTER_AREA), np.float32)
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[:, :, 3:] / 255
    patch[y0:y1, x0:x1] = alpha * part[:, :, :3] + (1 - alpha) * patch[y0:y1, x0:x1]


def item(root: Path, record: Record, drawn: Augmentation, cut_outs: list[Pixels]) -> Item:
    """ReFit's training item of one person with these parameters."""
    patch = np.ascontiguousarray(crop(read_frame(root, record), record, drawn))
    for one in drawn.occluders:
        paste(patch, cut_outs[one.index], one)
    whole = np.clip(patch * np.array(drawn.pn), 0.0, 255.0).astype(np.uint8)
    image = ((whole / 255.0 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)
    made = labels(record, drawn, output_to_source(record, drawn))
    return {"img": np.ascontiguousarray(image), **made}


class Frames(Dataset[Item]):
    """A dataset of ``count`` items, one per person.

    Each worker reads labels and occluders itself, because pyarrow must not have started threads
    when workers are forked.
    """

    def __init__(self, shards: str, root: Path, occluders: Path, count: int) -> None:
        self.shards = shards
        self.root = root
        self.occluders = occluders
        self.count = count

    @cached_property
    def rows(self) -> list[Record]:
        """The labels."""
        return [{**record, "jpeg": b""} for record in records(self.shards)]

    @cached_property
    def cut_outs(self) -> list[Pixels]:
        """The occluders."""
        return read_cut_outs(self.occluders)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> Item:
        return item(self.root, self.rows[at], draw(len(self.cut_outs)), self.cut_outs)


def load(crops: Crops, options: LoaderOptions) -> Iterable[Any]:
    """Batches of one long epoch in which people repeat."""
    dataset = Frames(str(crops.shards), crops.frames, crops.occluders, crops.rows)
    sampler = RandomSampler(dataset, replacement=True, num_samples=options.samples)
    return DataLoader(dataset, batch_size=options.batch, sampler=sampler, **options.torch)
