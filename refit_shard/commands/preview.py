"""``refit-shard preview``: look at what was built."""

import argparse
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError

if TYPE_CHECKING:
    from refit_shard.sheet import Image

HELP = """\
Write a contact sheet of stored crops, each with its 2D skeleton, its box and its key: the picture
in which a wrong crop or a turned frame is seen at a glance. Right limbs are orange, left ones blue.

  refit-shard preview data/shards/bedlam --out sheet.png
  refit-shard preview --stream configs/config_bedlam.yaml --out batch.png

The second draws one batch of the stream from its tensors, after augmentation.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "preview",
        help="draw a contact sheet",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="?", metavar="PATH", help="a data set's folder or URL")
    parser.add_argument("--stream", metavar="YAML", help="draw a batch of this config instead")
    parser.add_argument(
        "--shards", default="data/shards", metavar="DIR", help="with --stream; default data/shards"
    )
    parser.add_argument("--out", required=True, metavar="FILE.png", help="picture to write")
    parser.add_argument("--n", type=int, default=24, help="number of samples (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default 0)")
    parser.set_defaults(run=run)


def stored_cells(args: argparse.Namespace) -> "list[Image]":
    """Cells of stored crops, chosen by the seed."""
    import numpy as np

    from refit_shard.shards_spec.reader import ShardSet
    from refit_shard.sheet import draw_sample

    data_set = ShardSet.open(args.path)
    count = min(args.n, len(data_set))
    chosen = np.random.default_rng(args.seed).choice(len(data_set), count, replace=False)
    return [draw_sample(data_set[int(index)]) for index in np.sort(chosen)]


def stream_cells(args: argparse.Namespace) -> "list[Image]":
    """Cells of the first batch of a stream, drawn from its tensors."""
    import numpy as np

    from refit_shard.loaders.items.pixels import MEAN, STD
    from refit_shard.loaders.stream.loader import StreamingLoader
    from refit_shard.sheet import draw_skeleton, fit, label

    loader = StreamingLoader.from_config(
        args.stream,
        shards=args.shards,
        seed=args.seed,
        batch_size=args.n,
        epoch_samples=args.n,
        num_workers=0,
        rank=0,
        world_size=1,
    )
    batch = next(iter(loader))
    cells = []
    for index, name in enumerate(batch["dataset_name"]):
        pixels = batch["img"][index].permute(1, 2, 0).numpy() * STD + MEAN
        cell, factor = fit(np.round(pixels * 255).astype(np.uint8))
        keypoints = batch["keypoints"][index].numpy().copy()
        keypoints[:, :2] = (keypoints[:, :2] + 1) / 2 * pixels.shape[0] * factor - 0.5
        draw_skeleton(cell, keypoints)
        flip = " flip" if int(batch["flip"][index]) else ""
        text = f"{name} {int(batch['sample_index'][index])} {batch['rot'][index]:+.0f}deg{flip}"
        cells.append(label(cell, text))
    return cells


def run(args: argparse.Namespace) -> int:
    """Write the sheet."""
    from refit_shard.console import say
    from refit_shard.shards_spec.storage.files import write_file
    from refit_shard.shards_spec.storage.paths import local_path
    from refit_shard.sheet import compose, png

    if args.n < 1:
        raise UsageError(f"--n: must be at least 1, got {args.n}")
    if args.seed < 0:
        raise UsageError(f"--seed: must be at least 0, got {args.seed}")
    if (args.path is None) == (args.stream is None):
        raise UsageError("preview: give PATH or --stream YAML")
    out = local_path(args.out, "--out")
    cells = stream_cells(args) if args.stream else stored_cells(args)
    if not cells:
        raise UsageError(f"{args.path}: holds no samples")
    write_file(out, png(compose(cells)), "--out")
    say(f"{out}: {len(cells)} samples of {args.stream or args.path}")
    return 0
