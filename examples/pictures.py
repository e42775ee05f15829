"""Makes the pictures of the page *Start*: a generated frame, stored crops, and a batch of the
stream.

    python -m examples.pictures            writes docs/pictures/*.jpg

The people are painted mannequins and the backgrounds are free photographs
(``benchmarks/trees.py``), so no picture contains data of a real dataset. The pictures are the same
in every run.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.trees import make_config, make_tree
from examples.demo import FRAMES, REPOSITORY
from refit_shard.cli import main as refit_shard
from refit_shard.sheet import Image

PICTURES = REPOSITORY / "docs/pictures"
FRAME = "train_0/ag_trainset_3dpeople_bfh_archviz_5_10_cam00_00000_1280x720.png"
WIDTH = 960
_QUALITY = 82


def save(image: Image, name: str) -> None:
    """Write a BGR picture as a JPEG, scaled down to at most :data:`WIDTH` pixels."""
    factor = min(1.0, WIDTH / image.shape[1])
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    (PICTURES / name).write_bytes(cv2.imencode(".jpg", small, options)[1].tobytes())
    print(f"{PICTURES / name}: {small.shape[1]}x{small.shape[0]}")


def read(path: Path) -> Image:
    """Read a picture file as BGR."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def main() -> int:
    """Make the three pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = [make_tree(dataset, folder, frames=frames) for dataset, frames in FRAMES.items()]
        places = ["--data-config", str(make_config(folder, trees)), "--out", f"{folder}/shards"]
        chosen = [word for dataset in FRAMES for word in ("--dataset", dataset)]
        refit_shard(["build", *chosen, *places, "--workers", "0"])
        save(read(folder / "agora" / FRAME), "frame.jpg")
        sheet = str(folder / "sheet.png")
        refit_shard(["preview", f"{folder}/shards/agora", "--n", "12", "--out", sheet])
        save(read(Path(sheet)), "crops.jpg")
        config = str(REPOSITORY / "configs/config_bedlam.yaml")
        of_stream = ["--stream", config, "--shards", f"{folder}/shards", "--n", "12"]
        refit_shard(["preview", *of_stream, "--out", sheet])
        save(read(Path(sheet)), "batch.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
