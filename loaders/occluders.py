"""Occluders: RGBA cut-outs in a plain Arrow file, and pasting them onto a crop."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loaders.policy import Occlusion
from shards_spec.errors import UsageError
from shards_spec.storage import open_folder

Image = NDArray[np.uint8]

SCHEMA = pa.schema(
    [
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("rgba", pa.binary(), nullable=False),
    ]
)
MAX_SIDE = 4096


def occluder_bytes(objects: Sequence[Image]) -> bytes:
    """An Arrow file of (H, W, 4) uint8 RGBA cut-outs."""
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([image.shape[0] for image in objects], pa.int32()),
            pa.array([image.shape[1] for image in objects], pa.int32()),
            pa.array([image.tobytes() for image in objects], pa.binary()),
        ],
        schema=SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


class Occluders:
    """The cut-outs of a file, mapped: a sequence of (H, W, 4) uint8 RGBA views.

    Raises:
        UsageError: the file is missing or is not one of cut-outs.
    """

    def __init__(self, path: str) -> None:
        place = Path(path)
        if not place.is_file():
            raise UsageError(
                f"occluders {path}: no such file; make it with: refit-shard import-occluders"
            )
        try:
            with open_folder(str(place.parent)).open(place.name) as file:
                batch = pa.ipc.open_file(file.read_buffer()).read_all().combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"occluders {path}: not an Arrow file ({error})") from error
        if not batch.schema.equals(SCHEMA) or batch.num_rows == 0:
            raise UsageError(
                f"occluders {path}: must hold height, width and rgba of at least one object; "
                "make it with: refit-shard import-occluders"
            )
        self._objects = [
            self._view(path, *row)
            for row in zip(
                batch["height"].to_pylist(),
                batch["width"].to_pylist(),
                (value.as_buffer() for value in batch["rgba"]),
                strict=True,
            )
        ]

    @staticmethod
    def _view(path: str, height: int, width: int, data: pa.Buffer) -> Image:
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise UsageError(f"occluders {path}: an object of {width}x{height} px")
        if data.size != height * width * 4:
            raise UsageError(f"occluders {path}: {data.size} bytes for {width}x{height} RGBA")
        return np.frombuffer(data, np.uint8).reshape(height, width, 4)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Image:
        return self._objects[index]


def paste(image: Image, occluder: Image, x: float, y: float, size: float) -> None:
    """Blend a cut-out into ``image`` (H, W, 3), centred at (x, y) px, enlarged ``size`` times.

    Area interpolation as in ReFit; rounding to whole levels at once.
    """
    height, width = occluder.shape[:2]
    w, h = max(1, round(width * size)), max(1, round(height * size))
    left, top = round(x - w / 2), round(y - h / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(image.shape[1], left + w), min(image.shape[0], top + h)
    if x0 >= x1 or y0 >= y1:
        return
    scaled = cv2.resize(occluder, (w, h), interpolation=cv2.INTER_AREA)
    part = scaled[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
    alpha = part[:, :, 3:]
    under = image[y0:y1, x0:x1]
    total = part[:, :, :3] * alpha + under * (255 - alpha) + np.uint16(128)
    # Division by 255, rounded, without leaving 16 bits.
    under[:] = (total + (total >> 8)) >> 8


def paste_all(image: Image, occluders: Occluders, occlusions: Sequence[Occlusion]) -> None:
    """Paste the occluders in their order."""
    for one in occlusions:
        paste(image, occluders[one.index], one.x, one.y, one.size)
