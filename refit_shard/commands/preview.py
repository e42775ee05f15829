"""``refit-shard preview``: look at what was built."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from shards_spec.errors import UsageError

if TYPE_CHECKING:
    from refit_shard.sheet import Image, Points
    from shards_spec import Sample

HELP = """\
Write a contact sheet of stored crops, each with its 2D skeleton, its box and its key: the picture
in which a wrong crop or a turned frame is seen at a glance. Right limbs are orange, left ones blue.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser("preview", help="draw a contact sheet", description=HELP)
    parser.add_argument("path", metavar="PATH", help="a data set's folder or URL")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="picture to write")
    parser.add_argument("--n", type=int, default=24, help="number of samples (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default 0)")
    parser.set_defaults(run=run)


def draw_sample(sample: "Sample") -> "Image":
    """One cell of the sheet."""
    import numpy as np

    from refit_shard.sheet import draw_box, draw_skeleton, fit, label
    from shards_spec import jpeg
    from shards_spec.geometry import box_side

    cell, factor = fit(jpeg.decode(sample.jpeg))
    x0, y0 = sample["window"][:2]
    scale = np.asarray(sample["k"]) * factor

    def to_cell(points: "Points") -> "Points":
        mapped: Points = (points + 0.5 - np.array([x0, y0])) * scale - 0.5
        return mapped

    half = box_side(float(sample["scale"])) / 2
    corners = np.array([sample["center"] - half, sample["center"] + half])
    draw_box(cell, to_cell(corners).ravel())
    keypoints = np.array(sample["keypoints"])
    keypoints[:, :2] = to_cell(keypoints[:, :2])
    draw_skeleton(cell, keypoints)
    return label(cell, sample["key"])


def run(args: argparse.Namespace) -> int:
    """Write the sheet."""
    import numpy as np

    from refit_shard.sheet import compose, png
    from shards_spec import ShardSet
    from shards_spec.storage import open_folder

    if args.n < 1:
        raise UsageError(f"--n: must be at least 1, got {args.n}")
    data_set = ShardSet.open(args.path)
    count = min(args.n, len(data_set))
    chosen = np.random.default_rng(args.seed).permutation(len(data_set))[:count]
    cells = [draw_sample(data_set[int(index)]) for index in np.sort(chosen)]
    out = Path(args.out)
    folder = open_folder(str(out.parent))
    folder.create()
    folder.write(out.name, png(compose(cells)))
    print(f"{out}: {count} samples of {args.path}")
    return 0
