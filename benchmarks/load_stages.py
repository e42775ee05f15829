"""Where a sample's time goes, and how much of a stored crop is decoded, on one core.

A worker's own function makes batches of consecutive positions, so of rows in the stream's order,
while the functions that it calls are timed: each without those of the others that it calls.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from benchmarks.crops import Crops
from benchmarks.load_cases import decode_for, options, pin, stored_jpegs
from benchmarks.peers.transform import Kind
from refit_shard.loaders.items import making, mcu, pixels
from refit_shard.loaders.stream import batches
from refit_shard.loaders.stream.batches import BatchMaker
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.process import settle_process
from refit_shard.shards_spec.records import RecordReader

# Functions by stage, in the order of a sample's way; make() itself is what is left.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "draws and order": [(BatchMaker, "_draws"), (BatchMaker, "_rows")],
    "read": [(RecordReader, "read")],
    "crc": [(making, "check_crc")],
    "which MCUs": [(making, "footprints")],
    "find and cut MCUs": [(mcu, "find_header"), (mcu, "cut")],
    "decode": [(jpeg, "decode")],
    "warp": [(cv2, "warpAffine")],
    "occlude": [(making, "paste_all")],
    "normalise": [(making, "normalize")],
    "labels": [(BatchMaker, "_scatter"), (batches, "make_labels")],
    "the rest": [(BatchMaker, "make")],
}


class StageClock:
    """Seconds by stage. One stage is open at a time: the one that was entered last."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counting its time to the stage."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._count()
            self._open.append(stage)
            try:
                return work(*arguments, **named)
            finally:
                self._count()
                self._open.pop()

        return wrapped

    def _count(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every stage while this is open."""
        with ExitStack() as stack:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    timed = self.timed(stage, getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, timed))
            yield


@dataclass
class Positions:
    """Makes one batch of the stream after the other."""

    maker: BatchMaker
    batch: int
    next_one: int = 0

    def make(self, count: int) -> None:
        """Make ``count`` batches."""
        shape, dtype = self.maker.image
        images = np.empty((self.batch, *shape), dtype)
        for _ in range(count):
            end = self.next_one + self.batch
            self.maker.make(self.next_one, end, images)
            self.next_one = end


def measure_stages(
    image: Kind, crops: Crops, *, batch: int, batches_a_round: int, rounds: int
) -> dict[str, Any]:
    """Microseconds a sample: of bare decode, of a whole sample, and of each of its stages.

    ``whole`` is measured without the clocks of the stages, which cost some microseconds.
    In turns, after one unmeasured round.
    """
    pin(1)
    settle_process()
    jpegs = stored_jpegs(crops)
    shards = {"bedlam": (str(crops.shards), 1.0)}
    stream = Positions(BatchMaker(shards, options(image, crops, batch, 0)), batch)
    samples = batches_a_round * batch
    measured: list[dict[str, float]] = []
    for _ in range(1 + rounds):
        marks = [time.perf_counter()]
        decoded = decode_for(0.0, jpegs)
        marks.append(time.perf_counter())
        stream.make(batches_a_round)
        marks.append(time.perf_counter())
        clock = StageClock()
        with clock.running():
            stream.make(batches_a_round)
        took = {"bare": (marks[1] - marks[0]) / decoded, "whole": (marks[2] - marks[1]) / samples}
        measured.append(took | {name: one / samples for name, one in clock.seconds.items()})
    return {
        "image": image,
        "samples_a_round": samples,
        "microseconds": {
            name: 1e6 * median(one[name] for one in measured[1:]) for name in measured[0]
        },
    }


def measure_shares(crops: Crops, *, batch: int, count: int) -> dict[str, float]:
    """Shares of the stored crops that are decoded: of their bytes, pixels and MCUs.

    Bytes are those of the JPEG that is cut out, with its header and blank MCUs; pixels those of its
    rectangle; MCUs those in it that an output shows.
    """
    seen: Counter[str] = Counter()

    def on_sample(
        data: bytes, size: tuple[int, int], region: mcu.Region | None, *rest: Any
    ) -> None:
        rows, columns = (-(-side // mcu.MCU) for side in size)
        seen["bytes"] += len(data)
        seen["pixels"] += size[0] * size[1]
        seen["mcus"] += rows * columns
        if region is not None:
            shown = zip(region.first, region.last, strict=True)
            seen["shown mcus"] += sum(last + 1 - first for first, last in shown)
        decode_and_warp(data, size, region, *rest)

    def on_decode(data: bytes, out: Any) -> Any:
        seen["decoded bytes"] += len(data)
        seen["decoded pixels"] += out.shape[0] * out.shape[1]
        return decode(data, out)

    decode_and_warp, decode = pixels.decode_and_warp, jpeg.decode
    shards = {"bedlam": (str(crops.shards), 1.0)}
    stream = Positions(BatchMaker(shards, options("uint8", crops, batch, 0)), batch)
    with (
        patch.object(making, "decode_and_warp", on_sample),
        patch.object(jpeg, "decode", on_decode),
    ):
        stream.make(count)
    return {
        "bytes": seen["decoded bytes"] / seen["bytes"],
        "pixels": seen["decoded pixels"] / seen["pixels"],
        "mcus": seen["shown mcus"] / seen["mcus"],
        "stored_bytes_a_sample": seen["bytes"] / (count * batch),
    }
