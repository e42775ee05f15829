"""The record that other loaders' formats store for a crop, and shared settings of their loaders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2

from refit_shard import Sample, ShardSet

Record = dict[str, Any]

ARRAYS = {
    "window": ("int32", (4,)),
    "k": ("float64", (2,)),
    "orig_shape": ("int32", (2,)),
    "center": ("float64", (2,)),
    "img_center": ("float32", (2,)),
    "keypoints": ("float32", (49, 3)),
    "pose": ("float32", (72,)),
    "betas": ("float32", (10,)),
    "pose_3d": ("float32", (24, 4)),
}
INTS = ("source_row", "gender", "has_smpl", "has_pose_3d")
FLOATS = ("scale", "img_focal")


def record_of(sample: Sample) -> Record:
    """One stored crop: JPEG bytes, the arrays of :data:`ARRAYS`, plain numbers and its name."""
    return {
        "jpeg": bytes(sample.jpeg),
        "imgname": sample["imgname"],
        **{name: sample[name].copy() for name in ARRAYS},
        **{name: int(sample[name]) for name in INTS},
        **{name: float(sample[name]) for name in FLOATS},
    }


def records(shards: str) -> Iterator[Record]:
    """Every crop of a dataset."""
    data_set = ShardSet.open(shards)
    for index in range(len(data_set)):
        yield record_of(data_set[index])


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """Settings of every peer: batches of ``batch`` samples from ``workers`` processes.

    ``samples``: samples of an epoch, so many that no epoch ends during a measurement.
    """

    batch: int
    workers: int
    samples: int

    @property
    def torch(self) -> dict[str, Any]:
        """Arguments of torch's DataLoader and its subclasses, without the batch size."""
        return {
            "num_workers": self.workers,
            "prefetch_factor": 4,
            "persistent_workers": True,
            "worker_init_fn": one_thread,
        }


def one_thread(_worker: int) -> None:
    """Switch off OpenCV's threads in a worker; torch limits its own."""
    cv2.setNumThreads(0)
