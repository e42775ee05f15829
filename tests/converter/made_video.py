"""Videos whose every frame shows its own number, readable after coding; made by PyAV alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

WIDTH, HEIGHT = 192, 128
_BLOCK, _BITS = 32, 8
_KEY = 0xB7  # the lower blocks show the number turned by it, so that a torn picture is seen


def draw(number: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: twice eight blocks, light for a set bit of the number, from 0 to 255."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for half, value in enumerate((number, number ^ _KEY)):
        for bit in range(_BITS):
            x, y = bit % 4 * _BLOCK, (half * 2 + bit // 4) * _BLOCK
            image[y : y + _BLOCK, x : x + _BLOCK] = 225 if value >> bit & 1 else 25
    image[:, 4 * _BLOCK :, 0] = number  # so that neighbours differ everywhere a little
    return image


def read(image: NDArray[Any]) -> int | None:
    """The number that a picture shows, or None where its two halves differ or are not clear."""
    values = []
    for half in range(2):
        value = 0
        for bit in range(_BITS):
            x, y = bit % 4 * _BLOCK, (half * 2 + bit // 4) * _BLOCK
            mean = float(image[y + 8 : y + _BLOCK - 8, x + 8 : x + _BLOCK - 8].mean())
            if 85 < mean < 165:
                return None
            value |= int(mean > 125) << bit
        values.append(value)
    return values[0] if values[0] ^ _KEY == values[1] else None


def read_file(path: Path) -> int | None:
    """The number that a written frame shows."""
    image = cv2.imread(str(path))
    assert image is not None, path
    assert image.shape == (HEIGHT, WIDTH, 3)
    return read(image)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to make a video. ``times``: of each frame, in frames; None for one after the other."""

    codec: str
    ending: str
    b_frames: int = 2
    key_every: int = 12
    rate: int = 25
    start: int = 0
    times: Sequence[int] | None = field(default=None, repr=False)
    pixels: str = "yuv420p"
    movflags: str = ""


KINDS = {
    "mpeg4, B-frames, avi": Kind(codec="mpeg4", ending=".avi"),
    "h264, B-frames, mp4": Kind(codec="libx264", ending=".mp4"),
    "h264, B-frames, avi": Kind(codec="libx264", ending=".avi"),
    "mjpeg, avi": Kind(codec="mjpeg", ending=".avi", b_frames=0, pixels="yuvj420p"),
    "h264, uneven times, mp4": Kind(
        codec="libx264", ending=".mp4", times=[i * i // 7 + i for i in range(256)]
    ),
    "h264, late start, mp4": Kind(codec="libx264", ending=".mp4", start=1000),
    "h264, index first, mp4": Kind(codec="libx264", ending=".mp4", movflags="faststart"),
}


def make(path: Path, kind: Kind, frames: int = 40) -> Path:
    """Write a video whose n-th frame, from 0, shows n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": kind.movflags} if kind.movflags else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(kind.codec, rate=kind.rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, kind.pixels
        stream.codec_context.gop_size = kind.key_every
        stream.codec_context.max_b_frames = kind.b_frames
        stream.codec_context.thread_count = 1
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            frame.pts = kind.start + (number if kind.times is None else kind.times[number])
            frame.time_base = Fraction(1, kind.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """Where each packet of a video lies in its file, and its size."""
    with av.open(str(path)) as container:
        found = container.demux(container.streams.video[0])
        return [(int(one.pos or 0), one.size) for one in found if one.size]
