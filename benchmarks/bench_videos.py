"""Measures the speed of ``refit-shard extract-frames`` on one core against an upper bound.

    python -m benchmarks.bench_videos

Videos are made once in ``data/benchmarks`` from moving photographs, like those of MPI-INF-3DHP
(2048x2048, MPEG-4 in AVI, the npz names one frame in ten), Human3.6M (1000x1000, H.264 with
B-frames in MP4, one in five) and BEDLAM (1280x720, the same codec, in a tar as downloaded).
Measured in decoded frames per second, in turns, in one process pinned to one core:

- *bound*: PyAV decodes every frame of the video and converts the named ones to BGR arrays, which
  OpenCV encodes with the command's options; nothing is checked, counted or written.
- *extract*: all work of the command on the same videos, ``--workers 0``, into a new folder.
"""

import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from benchmarks.big_npz import write_npz
from benchmarks.command import chosen, command_line, keep
from benchmarks.harness import cores, machine, markdown_table
from benchmarks.photographs import photo_frame
from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.frames.encode import encoder_options
from refit_shard.converter.videos.driver import extract
from refit_shard.converter.videos.plan import VideoRequest, plan_videos
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread

PACKAGES = ("av", "numpy", "opencv-python-headless")
QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Case:
    """Videos like those of a dataset.

    ``size``: width and height, px. ``step``: the npz names one in this many frames. ``packed``:
    True if the videos are in a tar.
    """

    codec: str
    ending: str
    size: tuple[int, int]
    step: int
    b_frames: int
    bit_rate: int
    packed: bool = False


_H264 = Case(
    codec="libx264", ending=".mp4", size=(1000, 1000), step=5, b_frames=2, bit_rate=4_000_000
)
CASES = {
    "mpi-inf-3dhp": Case(
        codec="mpeg4", ending=".avi", size=(2048, 2048), step=10, b_frames=0, bit_rate=20_000_000
    ),
    "h36m": _H264,
    "bedlam": replace(_H264, size=(1280, 720), packed=True),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run. ``scale``: factor on the sides of the pictures."""

    frames: int = 300
    rounds: int = 5
    scale: float = 1.0


QUICK = Settings(frames=12, rounds=1, scale=0.125)


def make_video(path: Path, case: Case, settings: Settings) -> None:
    """Write a video of a photograph that moves a little with each frame."""
    width, height = (int(side * settings.scale) // 2 * 2 for side in case.size)
    picture = photo_frame(width + 64, height + 64, np.random.default_rng(3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(case.codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt, stream.bit_rate = "yuv420p", case.bit_rate
        stream.codec_context.max_b_frames = case.b_frames
        for number in range(settings.frames):
            x, y = number * 3 % 64, number * 2 % 64
            pixels = np.ascontiguousarray(picture[y : y + height, x : x + width])
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def bound(video: Path, step: int) -> None:
    """Decode every frame, and encode the named ones."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number % step == 0:
                pixels = frame.to_ndarray(format="bgr24", threads=1)
                cv2.imencode(".jpg", pixels, encoder_options(QUALITY, 0))


def measure(name: str, case: Case, cache: Path, settings: Settings) -> dict[str, Any]:
    """Measure one kind of videos."""
    folder = cache / f"videos-{name}-{settings.frames}-{settings.scale:g}"
    video = folder / f"clip{case.ending}"
    root = folder / "packed" if case.packed else folder
    if not video.exists():
        root.mkdir(parents=True, exist_ok=True)
        partial = folder / f"partial{case.ending}"
        make_video(partial, case, settings)
        if case.packed:
            with tarfile.open(root / "clips.tar", "w") as tar:
                tar.add(partial, video.name)
        partial.rename(video)
    numbers = range(1, settings.frames + 1, case.step)
    names = np.array([f"clip/{number:06d}.jpg" for number in numbers])
    npz = folder / "names.npz"
    write_npz(npz, len(names), {"imgname": names.__getitem__})
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        request = VideoRequest(
            dataset=Dataset(name="clips", root_variable="--root"),
            npz=str(npz),
            root=str(root),
            out=scratch,
            quality=QUALITY,
            workers=0,
        )
        spare = iter(range(1_000_000))

        def on_bound() -> float:
            began = time.perf_counter()
            bound(video, case.step)
            return settings.frames / (time.perf_counter() - began)

        def on_extract() -> float:
            began = time.perf_counter()
            into = replace(request, out=f"{scratch}/{next(spare)}")
            summary = extract(plan_videos(into), lambda _: None)
            seconds = time.perf_counter() - began
            if summary.written != len(names):
                raise AssertionError(f"{summary.written} of {len(names)} frames were written")
            return summary.decoded / seconds

        measured = interleaved({"bound": on_bound, "extract": on_extract}, settings.rounds)
    return {
        "case": asdict(case),
        "named": len(names),
        "frames_per_second": {kind: asdict(spread(rates)) for kind, rates in measured.items()},
        "ratio": asdict(ratios(measured["extract"], measured["bound"])),
    }


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements on the last of the cores that this process may use."""
    cache.mkdir(parents=True, exist_ok=True)
    allowed = cores()
    os.sched_setaffinity(0, {allowed[-1]})
    cv2.setNumThreads(1)
    try:
        cases = {name: measure(name, case, cache, settings) for name, case in CASES.items()}
    finally:
        os.sched_setaffinity(0, allowed)
    return {
        "benchmark": "bench_videos",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "cases": cases,
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows, sizes = [], results["settings"]
    for name, found in results["cases"].items():
        case, rates = found["case"], found["frames_per_second"]
        rows.append(
            [
                f"{name}: {case['size'][0]}x{case['size'][1]} px, {case['codec']}, one in "
                f"{case['step']}{', in a tar' * case['packed']}",
                *(str(Spread(**rates[kind])) for kind in ("bound", "extract")),
                str(Spread(**found["ratio"])),
            ]
        )
    title = ["", "bare decode and encode, frames/s", "extract-frames, frames/s", "of the bound"]
    lines = [
        f"{sizes['frames']} frames, one core, {sizes['rounds']} rounds; median (least to most). "
        f"{results['machine']['cpu']}.",
        "",
        markdown_table(title, rows),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_videos", __doc__)
    parser.add_argument("--frames", type=int, help="frames of each video (default 300)")
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    args = parser.parse_args(argv)
    results = run(chosen(args, QUICK, Settings(), ("frames", "rounds")), args.cache)
    print(report(results))
    keep(args, "bench_videos", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
