"""An own dataset of real photographs, with boxes in every place that a box can have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from refit_shard import Sample, ShardSet
from refit_shard.cli import main

U8 = NDArray[np.uint8]
Row = dict[str, Any]


@dataclass(frozen=True)
class OwnSet:
    """Shards of an npz, and what they were made of: a frame and labels for each source row."""

    shards: Path
    frames: list[U8]
    rows: list[Row]
    samples: list[Sample]


def build_own(folder: Path, frames: list[U8], rows: list[Row], *options: object) -> OwnSet:
    """Build rows, each in the frame ``row["frame"]``, in this process; frames are stored as PNG."""
    root = folder / "frames"
    root.mkdir(parents=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(root / f"{index:03d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    columns: dict[str, Any] = {
        key: np.array([row[key] for row in rows]) for key in rows[0] if key != "frame"
    }
    columns["imgname"] = np.array([f"{row['frame']:03d}.png" for row in rows])
    np.savez(folder / "own.npz", **columns)
    what = ["--npz", folder / "own.npz", "--root", root, "--name", "own", "--workers", 0]
    out = folder / "shards"
    assert main(["build", *map(str, [*what, "--out", out, *options])]) == 0
    data_set = ShardSet.open(str(out / "own"))
    samples = sorted((data_set[i] for i in range(len(data_set))), key=lambda s: s["source_row"])
    assert [int(sample["source_row"]) for sample in samples] == list(range(len(rows)))
    return OwnSet(out / "own", [frames[row["frame"]] for row in rows], rows, samples)


def labels(rng: np.random.Generator, center: Any, side: float) -> Row:
    """Labels of a box: joints in and around it, representable in float32 as shards hold them."""
    low, high = np.array(center) - 0.7 * side, np.array(center) + 0.7 * side
    points = rng.uniform(low, high, (49, 2)).astype(np.float32)
    points = np.column_stack([points, rng.integers(0, 2, 49)])
    return {
        "center": np.array(center, np.float64),
        "scale": side / 200,
        "openpose": points[:25],
        "part": points[25:],
        "pose": rng.normal(0, 0.7, 72),
        "shape": rng.normal(0, 1, 10),
        "S": np.column_stack([rng.normal(0, 0.5, (24, 3)), rng.integers(0, 2, 24)]),
        "has_smpl": float(rng.random() < 0.8),
        "gender": str(rng.choice(["m", "f"])),
    }


def boxes(frame: U8, rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """(centre, side) of six boxes of 0.3 to 0.9 of the short side: three inside, one across an
    edge, one centred on an edge, one over a corner.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    sides = short * np.array([0.3, 0.6, 0.9, 0.5, 0.7, 0.8]) + rng.uniform(0, 3, 6)
    x = [rng.uniform(side / 2, width - side / 2) for side in sides]
    y = [rng.uniform(side / 2, height - side / 2) for side in sides]
    x[3] = width - 0.3 * sides[3]
    y[4] = rng.uniform(0.0, 1.0)
    x[5], y[5] = 0.35 * sides[5], height - 0.3 * sides[5]
    return [((float(a), float(b)), float(s)) for a, b, s in zip(x, y, sides, strict=True)]


def photographs() -> dict[str, list[U8]]:
    """Photographs as they are (300 to 512 px high), and as large as the datasets' frames."""
    plain = [getattr(skimage.data, n)() for n in ("astronaut", "coffee", "chelsea", "rocket")]
    large = []
    for photo in plain[:3]:
        factor = 720 / min(photo.shape[:2])
        large.append(cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    left, right = plain[3][:400, :600], plain[1][:400, :600]
    large.append(np.vstack([np.hstack([left, right]), np.hstack([right[::-1], left[:, ::-1]])]))
    return {"plain": [np.asarray(p, np.uint8) for p in plain], "large": large}
