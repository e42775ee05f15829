"""Npz files that are written slice by slice, so that they may be larger than memory."""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK = 1 << 16  # rows written at a time


def write_npz(
    path: Path, rows: int, columns: Mapping[str, Callable[[slice], NDArray[Any]]]
) -> None:
    """Write an uncompressed npz; each column is a function that returns slices of ``rows`` rows."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for key, column in columns.items():
            kind = column(slice(0, 0))
            header = {
                "descr": np.lib.format.dtype_to_descr(kind.dtype),
                "fortran_order": False,
                "shape": (rows, *kind.shape[1:]),
            }
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for start in range(0, rows, _CHUNK):
                    chunk = np.ascontiguousarray(column(slice(start, min(start + _CHUNK, rows))))
                    member.write(chunk.view(np.uint8).data if chunk.size else b"")


def _big_names(frames: int) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """imgname (frames,) in scenes of 12000 frames; ``closeup`` says which scenes are closeups."""
    number = range(frames)
    closeup = np.array([n // 12000 % 4 == 1 for n in number])
    names = [
        f"20221010_3-10_500_batch01hand_{'closeup' if closeup[n] else 'zoom'}_suburb_"
        f"{n // 12000:03d}_6fps/png/seq_{n // 30 % 400:06d}/"
        f"seq_{n // 30 % 400:06d}_{n % 30 * 5:04d}.png"
        for n in number
    ]
    return np.array(names), closeup


def make_big_npz(path: Path, rows: int, *, people_per_frame: float = 2.5, seed: int = 0) -> int:
    """Write a bedlam-like npz of ``rows`` rows without images; return its number of frames.

    The labels are random but plausible in range; memory stays far below the file's size.
    """
    rng = np.random.default_rng(seed)
    counts = 1 + rng.binomial(9, (people_per_frame - 1) / 9, rows)
    frame = np.repeat(np.arange(rows), counts)[:rows] if rows else np.arange(0)
    frames = int(frame[-1]) + 1 if rows else 0
    names, closeup = _big_names(frames)
    size = np.where(closeup[frame, None], (720, 1280), (1280, 720))
    side = rng.uniform(120.0, 700.0, rows)
    center = rng.uniform(0.1, 0.9, (rows, 2)) * size
    focal = rng.uniform(1000.0, 2000.0, frames)

    def draw(shape: tuple[int, ...], spread: float, part: slice) -> Floats:
        return rng.normal(0.0, spread, (part.stop - part.start, *shape))

    def keypoints(joints: int, part: slice) -> Floats:
        points = np.ones((part.stop - part.start, joints, 3))
        offset = rng.uniform(-0.4, 0.4, (len(points), joints, 2)) * side[part, None, None]
        points[..., :2] = center[part, None] + offset
        return points

    def joints(part: slice) -> Floats:
        return np.concatenate([draw((24, 3), 0.3, part), draw((24, 1), 0.0, part) + 1], axis=2)

    columns: dict[str, Callable[[slice], NDArray[Any]]] = {
        "imgname": lambda part: names[frame[part]],
        "center": lambda part: center[part],
        "scale": lambda part: side[part] / 200,
        "part": partial(keypoints, 24),
        "openpose": partial(keypoints, 25),
        "S": joints,
        "pose": partial(draw, (72,), 0.2),
        "shape": partial(draw, (10,), 1.0),
        "img_focal": lambda part: focal[frame[part]],
        "img_center": lambda part: size[part] / 2,
        "orig_shape": lambda part: size[part, ::-1],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, rows, columns)
    return frames
