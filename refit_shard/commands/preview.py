"""``refit-shard preview``: draw a contact sheet of crops."""

import argparse
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers, add_drawing
from refit_shard.shards_spec.errors import UsageError

if TYPE_CHECKING:
    from refit_shard.loaders.stream.options import StreamOptions
    from refit_shard.shards_spec.reader import Sample
    from refit_shard.sheet import Image

REFIT = "refit"
HELP = """\
Write a contact sheet of stored crops, each with its 2D skeleton, box and key. It shows wrong crops
and rotated frames at a glance. Right limbs are orange, left ones blue.

  refit-shard preview data/shards/bedlam --out sheet.png
  refit-shard preview bedlam agora --where "scale > 0.5" --out large.png
  refit-shard preview coco --policy configs/config_bedlam.yaml --out augmented.png
  refit-shard preview --stream configs/config_bedlam.yaml --out batch.png

SET is a dataset's folder or URL, a folder of datasets, or the name of a dataset in data/shards;
each dataset gets the same number of crops. --policy adds augmented versions beside each crop, as
training sees it. --stream draws one batch of a training config's stream, after augmentation.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "preview",
        help="draw a contact sheet of stored crops",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("places", nargs="*", metavar="SET", help="folder, URL or name of a dataset")
    parser.add_argument(
        "--stream", metavar="YAML", help="draw a batch of this training config, instead of SET"
    )
    parser.add_argument(
        "--shards",
        default="data/shards",
        metavar="DIR",
        help="with --stream: folder of the datasets (default data/shards)",
    )
    parser.add_argument("--where", metavar="TEXT", help='rows to draw, such as "scale > 0.5"')
    parser.add_argument(
        "--policy",
        metavar="YAML",
        help="add augmented crops by this training config's policy; 'refit' for ReFit's",
    )
    parser.add_argument("--out", required=True, metavar="FILE.png", help="picture to write")
    add_drawing(parser, 24)
    parser.set_defaults(run=run)


def _samples(args: argparse.Namespace) -> "list[Sample]":
    """The samples to draw, chosen at random by the seed."""
    from refit_shard.picks import choose, pick, share_out
    from refit_shard.rows import find_sets

    sets = find_sets(args.places)
    chosen = list(choose(sets, args.where))
    of_set = [[one for one in chosen if one.data_set is data_set] for data_set in sets]
    counts = [sum(len(one.rows) for one in rows) for rows in of_set]
    return [
        sample
        for rows, few in zip(of_set, share_out(counts, args.n), strict=True)
        for sample in pick(rows, few, args.seed)
    ]


def _options(args: argparse.Namespace) -> "StreamOptions":
    """The stream options that augment the crops."""
    from refit_shard.loaders.stream.config import read_config
    from refit_shard.loaders.stream.options import StreamOptions

    stated = {} if args.policy == REFIT else read_config(args.policy).stated
    return StreamOptions(**stated, occluders=args.occluders)


def stored_cells(args: argparse.Namespace) -> "list[Image]":
    """Cells of stored crops.

    With a policy each sample fills a row of the sheet: its stored crop, then augmented versions.
    """
    from refit_shard.crops import augmentations, augmented_crop, in_words
    from refit_shard.loaders.stream.batches import open_occluders
    from refit_shard.sheet import COLUMNS, draw_sample, label

    options = None if args.policy is None else _options(args)
    occluders = None if options is None else open_occluders(options)
    cells = []
    for number, sample in enumerate(_samples(args)):
        cells.append(draw_sample(sample))
        if options is None:
            continue
        first, count = number * (COLUMNS - 1), COLUMNS - 1
        for one in augmentations(options.policy, args.seed, first, count, occluders, options.res):
            seen = augmented_crop(sample, one, options.res, occluders)
            cells.append(label(seen, in_words(one)))
    return cells


def stream_cells(args: argparse.Namespace) -> "list[Image]":
    """Cells of the first batch of a stream, drawn from its tensors."""
    from refit_shard.crops import item_crop
    from refit_shard.loaders.stream.loader import StreamingLoader
    from refit_shard.sheet import label

    loader = StreamingLoader.from_config(
        args.stream,
        shards=args.shards,
        seed=args.seed,
        batch_size=args.n,
        epoch_samples=args.n,
        num_workers=0,
        rank=0,
        world_size=1,
        occluders=args.occluders,
    )
    batch = next(iter(loader))
    cells = []
    for index, name in enumerate(batch["dataset_name"]):
        cell = item_crop(batch["img"][index].numpy(), batch["keypoints"][index].numpy())
        flip = " flip" if int(batch["flip"][index]) else ""
        text = f"{name} {int(batch['sample_index'][index])} {batch['rot'][index]:+.0f}deg{flip}"
        cells.append(label(cell, text))
    return cells


def run(args: argparse.Namespace) -> int:
    """Write the contact sheet."""
    from refit_shard.console import say
    from refit_shard.shards_spec.storage.files import write_file
    from refit_shard.sheet import COLUMNS, compose, picture_path, png

    if args.n < 1:
        raise UsageError(f"--n: must be at least 1, got {args.n}")
    if args.seed < 0:
        raise UsageError(f"--seed: must be at least 0, got {args.seed}")
    if bool(args.places) == bool(args.stream):
        raise UsageError("preview: give either datasets or --stream YAML")
    if args.stream and (args.where or args.policy):
        raise UsageError("preview: --where and --policy go with datasets, not with --stream")
    out = picture_path(args.out)
    cells = stream_cells(args) if args.stream else stored_cells(args)
    what = args.stream or ", ".join(args.places)
    if not cells:
        raise UsageError(f"{what}: holds no samples" + (" that meet --where" * bool(args.where)))
    write_file(out, png(compose(cells)), "--out")
    of_each = COLUMNS if args.policy else 1
    say(f"{out}: {len(cells) // of_each} samples of {what}")
    return 0
