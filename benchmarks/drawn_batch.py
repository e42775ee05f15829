"""The arguments with which the loader draws a batch, saved to a file, to draw the batch again
alone.

    python -m benchmarks.drawn_batch BATCH.npz LIBRARY.so

draws the saved batch with that library; :mod:`benchmarks.instructions` counts its instructions.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.native import CutOuts, Drawer, ImageKind, Jpegs, interface

_ARRAYS = ("sides", "maps", "factors", "places", "pastes", "spans", "memory", "begins", "lengths")


def save(path: Path, drawer: Drawer, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Save the arguments of :meth:`Drawer.draw` and the drawer's own settings."""
    names = ("jpegs", "sides", "maps", "factors", "outs", "places")
    call = {**dict(zip(names, given, strict=False)), **named}
    jpegs, cut_outs = call["jpegs"], call["cut_outs"]
    call |= {name: getattr(jpegs, name) for name in ("memory", "begins", "lengths")}
    objects: dict[str, Any] = {
        f"cut_out_{number}": np.frombuffer(
            ctypes.string_at(int(row["level"][0]), 4 * row["height"] * row["width"]), np.uint8
        ).reshape(row["height"], row["width"], 4)
        for number, row in enumerate(cut_outs.table)
    }
    call["spans"] = call["paste_spans"]
    kept: dict[str, Any] = {name: call[name] for name in _ARRAYS}
    np.savez(path, res=drawer.res, image=int(drawer.image), **kept, **objects)


def draw(path: Path, library: Path) -> int:
    """Draw a saved batch with the given library; returns the number of undamaged images."""
    with np.load(path) as file:
        call = {name: file[name] for name in _ARRAYS}
        count = sum(name.startswith("cut_out_") for name in file.files)
        cut_outs = CutOuts([file[f"cut_out_{number}"] for number in range(count)])
        res, image = int(file["res"]), ImageKind(int(file["image"]))
    jpegs = Jpegs(call["memory"], call["begins"], call["lengths"])
    outs = np.zeros((len(jpegs.lengths), *image.shape(res)), image.dtype)
    with patch.object(interface, "NAME", str(library.absolute())):
        drawer = Drawer(res, image, mean=MEAN, deviation=STD)
    codes, _ = drawer.draw(
        *(jpegs, call["sides"], call["maps"], call["factors"], outs, call["places"]),
        **{"cut_outs": cut_outs, "pastes": call["pastes"], "paste_spans": call["spans"]},
    )
    return int((codes == 0).sum())


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]), Path(sys.argv[2])))
