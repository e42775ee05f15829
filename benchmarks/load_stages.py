"""Time of a sample on one core, by stage.

A worker's own function makes batches of consecutive positions, so rows come in the stream's order.
The functions that it calls are timed, each without the time of other timed functions in it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.crops import Crops
from benchmarks.load_cases import options, pin, stored_jpegs
from benchmarks.peers.transform import Kind
from refit_shard.loaders.measure.decoding import decode_for
from refit_shard.loaders.native import Drawer, ImageKind, Reader
from refit_shard.loaders.stream import batches
from refit_shard.loaders.stream.batches import BatchMaker

# Functions by stage, in the order in which a sample passes them; read() and make() get the
# remaining time.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "draws and order": [(BatchMaker, "_draws"), (BatchMaker, "_rows")],
    "places in the tars": [(BatchMaker, "_places")],
    "read, checksums": [(Reader, "read")],
    "decode, warp, occlude, write": [(Drawer, "draw")],
    "maps, occluders' table": [(batches, "make_images")],
    "labels": [(BatchMaker, "_labels")],
    "the rest": [(BatchMaker, "read"), (BatchMaker, "make")],
}


class StageClock:
    """Seconds by stage. Time counts for the stage that was entered last."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function wrapped so that its time counts for the stage."""

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
        """Time every stage within this context."""
        with ExitStack() as stack:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    timed = self.timed(stage, getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, timed))
            yield


@dataclass
class Positions:
    """Makes consecutive batches of the stream."""

    maker: BatchMaker
    batch: int
    next_one: int = 0

    def make(self, count: int) -> None:
        """Make ``count`` batches."""
        shape, dtype = self.maker.image
        images = torch.empty((self.batch, *shape), dtype=dtype)
        for _ in range(count):
            end = self.next_one + self.batch
            self.maker.make(self.maker.read(self.next_one, end), images)
            self.next_one = end


class DecodeAlone:
    """Draws 2x2 pixels with the same corners: decodes the same MCUs, but warps almost nothing.

    This measures the decoding that every loader of these shards needs.
    """

    def __init__(self, batch: int) -> None:
        self.seconds = 0.0
        self._drawer = Drawer(2, ImageKind.UINT8)
        self._outs = np.empty((batch, 2, 2, 3), np.uint8)
        self._draw = Drawer.draw

    def draw(self, drawer: Drawer, jpegs: Any, sides: Any, maps: Any, *rest: Any, **_: Any) -> Any:
        """Replacement of :meth:`Drawer.draw`."""
        corners = maps.copy()
        corners[:, :, :2] *= drawer.res - 1
        factors, places = rest[0], np.arange(len(maps))
        begin = time.perf_counter()
        found = self._draw(self._drawer, jpegs, sides, corners, factors, self._outs, places)
        self.seconds += time.perf_counter() - begin
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Draw this way within this context."""

        def draw(drawer: Drawer, *given: Any, **named: Any) -> Any:
            return self.draw(drawer, *given, **named)

        with patch.object(Drawer, "draw", draw):
            yield


def measure_stages(
    image: Kind, crops: Crops, *, batch: int, batches_a_round: int, rounds: int
) -> dict[str, Any]:
    """Microseconds per sample of bare decoding, of a whole sample, of each stage, and of decoding
    only the shown part.

    ``whole`` is measured without the clocks of the stages, which cost some microseconds. All are
    measured in turns, after one unmeasured round.
    """
    pin(1)
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
        alone = DecodeAlone(batch)
        with alone.running():
            stream.make(batches_a_round)
        took = {
            "bare": (marks[1] - marks[0]) / decoded,
            "whole": (marks[2] - marks[1]) / samples,
            "shown": alone.seconds / samples,
        }
        measured.append(took | {name: one / samples for name, one in clock.seconds.items()})
    return {
        "image": image,
        "samples_a_round": samples,
        "microseconds": {
            name: 1e6 * median(one[name] for one in measured[1:]) for name in measured[0]
        },
    }
