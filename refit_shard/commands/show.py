"""``refit-shard show``: draw the crop of a row and print its labels."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError

if TYPE_CHECKING:
    from refit_shard.shards_spec.reader import Sample, ShardSet

HELP = """\
Draw the stored crop of a row with its skeleton and its box, and print its labels:

  refit-shard show data/shards/coco coco-00000017 --out row.png
  refit-shard show coco train2014/COCO_train2014_000000000110.jpg
  refit-shard show coco COCO_train2014_000000000110.jpg --person 2

A key names one row. A frame's name names all people in it; they are drawn in one picture, in the
order of the npz. Right limbs are orange, left ones blue; large dots are SPIN's joints, small ones
OpenPose's. SET is a dataset's folder or URL, or the name of a dataset in data/shards; refit-shard
query lists keys.
"""

CELL = 512


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "show",
        help="draw a row and print its labels",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", metavar="SET", help="folder, URL or name of a dataset")
    parser.add_argument("name", metavar="KEY|IMGNAME", help="a row's key, or a frame's name")
    parser.add_argument("--out", metavar="FILE.png", help="picture to write (default KEY.png)")
    parser.add_argument(
        "--person", type=int, metavar="N", help="only the N-th person in the frame, from 1"
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        default="data/shards",
        help="folder of the datasets given by name (default data/shards)",
    )
    parser.set_defaults(run=run)


def find(sets: "list[ShardSet]", name: str, person: int | None) -> "list[Sample]":
    """The samples with this key or imgname, in the order of the npz; with ``person`` only that one.

    Raises:
        UsageError: no sample has this key or imgname, or fewer people than ``person``.
    """
    from refit_shard.rows import named

    found = [
        chosen.data_set.shard(chosen.shard).sample(row)
        for chosen in named(sets, name)
        for row in chosen.rows.tolist()
    ]
    found.sort(key=lambda sample: str(sample["key"]))
    if not found:
        raise UsageError(
            f"{name!r:.200}: no row has this key or imgname; list some with: refit-shard query "
            f"{sets[0].folder.url} --columns key,imgname"
        )
    if person is None:
        return found
    if not 1 <= person <= len(found):
        raise UsageError(f"--person: must be 1 to {len(found)}, got {person}")
    return [found[person - 1]]


def describe(sample: "Sample") -> list[str]:
    """The labels of a sample, one line each."""
    import numpy as np

    from refit_shard.row_text import cell
    from refit_shard.shards_spec.joints import JOINTS

    lines = []
    for name, value in sample.labels.items():
        values = np.asarray(value)
        lines.append((name, cell(values.ravel().tolist() if values.ndim else values.item())))
    known = [JOINTS[one] for one in np.flatnonzero(sample["keypoints"][:, 2] > 0)]
    lines.append(("joints", f"{len(known)} of {len(JOINTS)} known: {', '.join(known)}"))
    return [f"{name:14}  {text}" for name, text in lines]


def run(args: argparse.Namespace) -> int:
    """Write the picture and print the labels."""
    from refit_shard.console import say
    from refit_shard.rows import find_sets
    from refit_shard.shards_spec.storage.files import write_file
    from refit_shard.sheet import compose, draw_sample, picture_path, png

    sets = find_sets([args.set], shards=args.shards)
    found = find(sets, args.name, args.person)
    own_name = f"{Path(found[0]['key']).name}.png"  # a key is data: it must not choose the folder
    out = picture_path(args.out or own_name)
    picture = compose([draw_sample(sample, CELL) for sample in found])
    for sample in found:
        for line in describe(sample):
            say(line)
        say("")
    write_file(out, png(picture), "--out")
    say(f"{out}: {len(found)} rows")
    return 0
