"""Index tables of made-up rows, by the field table alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from refit_shard.shards_spec.fields import FIELDS, STRING, arrow_column

COLUMNS = [field for field in FIELDS if not field.extrinsic]


def made(count: int, seed: int) -> dict[str, Any]:
    """Columns of people in frames of 640x480, two a frame."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 1, (count, 24, 3)) * rng.uniform(0, 3, (count, 24, 1))
    return {
        "imgname": [f"a/{seed}-{row // 2}.jpg" for row in range(count)],
        "jpg_length": rng.integers(1000, 60_000, count),
        "jpg_crc32c": rng.integers(0, 2**32, count),
        "orig_shape": np.tile([480, 640], (count, 1)),
        "scale": np.exp(rng.normal(0.2, 0.8, count)),
        "img_focal": rng.uniform(200, 3000, count),
        "has_camcalib": rng.random(count) < 0.4,
        "keypoints": np.concatenate(
            [rng.uniform(-100, 700, (count, 49, 2)), rng.choice([0, 0.5, 1], (count, 49, 1))], 2
        ),
        "pose": pose.reshape(count, 72),
        "betas": rng.normal(0, 2, (count, 10)),
        "has_smpl": rng.random(count) < 0.7,
        "has_pose_3d": rng.random(count) < 0.2,
        "gender": rng.choice([-1, 0, 1], count),
    }


def table(columns: Mapping[str, Any]) -> pa.RecordBatch:
    """An index table of these columns; all others are zeros."""
    count = len(columns["imgname"])
    arrays = []
    for field in COLUMNS:
        blank: Any = [""] * count if field.dtype == STRING else np.zeros((count, *field.shape))
        arrays.append(arrow_column(field, columns.get(field.name, blank)))
    return pa.RecordBatch.from_arrays(arrays, [field.name for field in COLUMNS])
