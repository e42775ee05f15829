"""Occluders: RGBA cut-outs in an Arrow file."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.loaders.native import CutOuts
from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.shards_spec.reader import read_index
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.storage.paths import AnyPath, local_path
from refit_shard.shards_spec.writer import arrow_bytes

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
    """The bytes of an Arrow file with the given (H, W, 4) uint8 RGBA cut-outs."""
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([image.shape[0] for image in objects], pa.int32()),
            pa.array([image.shape[1] for image in objects], pa.int32()),
            pa.array([image.tobytes() for image in objects], pa.binary()),
        ],
        schema=SCHEMA,
    )
    return arrow_bytes(batch)


class Occluders:
    """The cut-outs of a file: a sequence of (H, W, 4) uint8 RGBA views into the mapped file.

    Args:
        path: A file written by ``refit-shard import-occluders``.

    Raises:
        UsageError: the file is missing or does not contain cut-outs.
    """

    def __init__(self, path: AnyPath) -> None:
        place = local_path(path, "occluders")
        if not place.is_file():
            raise UsageError(
                f"occluders {place}: no such file; make it with: refit-shard import-occluders"
            )
        try:
            batch = read_index(open_folder(place.parent), place.name, mapped=True)
        except ShardError as error:
            raise UsageError(f"occluders {place}: not an Arrow file ({error})") from error
        if not batch.schema.equals(SCHEMA) or batch.num_rows == 0:
            raise UsageError(
                f"occluders {place}: must hold height, width and rgba of at least one cut-out; "
                "make it with: refit-shard import-occluders"
            )
        heights, widths, pixels = (batch.column(name) for name in SCHEMA.names)
        self._objects = [
            self._view(place, height.as_py(), width.as_py(), data.as_buffer())
            for height, width, data in zip(heights, widths, pixels, strict=True)
        ]
        self.cut_outs = CutOuts(self._objects)

    @staticmethod
    def _view(path: Path, height: int, width: int, data: pa.Buffer) -> Image:
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise UsageError(
                f"occluders {path}: a cut-out of {width}x{height} px; "
                f"each side must be 1 to {MAX_SIDE} px"
            )
        if data.size != height * width * 4:
            raise UsageError(
                f"occluders {path}: {data.size} bytes for a cut-out of {width}x{height} px, "
                f"expected {height * width * 4}"
            )
        image = np.frombuffer(data, np.uint8).reshape(height, width, 4)
        image.flags.writeable = False
        return image

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of the cut-outs and their sizes."""
        digest = hashlib.sha256()
        for image in self._objects:
            digest.update(f"{image.shape}".encode())
            digest.update(image.data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Image:
        return self._objects[index]
