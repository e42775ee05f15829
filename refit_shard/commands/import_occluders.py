"""``refit-shard import-occluders``: cut-outs become a plain Arrow file."""

import argparse

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import SourceError, UsageError

HELP = """\
Write the cut-outs that the loader pastes onto people, as a plain Arrow file.

  refit-shard import-occluders data/dataset_extras/pascal_occluders.pkl
  refit-shard import-occluders --voc VOCdevkit/VOC2012

The first converts ReFit's pickled list, with an unpickler that makes only arrays. The second cuts
the objects out of Pascal VOC 2012, from which ReFit's list was made.
"""
DEFAULT_OUT = "data/dataset_extras/occluders.arrow"


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "import-occluders",
        help="make the file of cut-outs for synthetic occlusion",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pickle", nargs="?", metavar="FILE.pkl", help="ReFit's list")
    parser.add_argument("--voc", metavar="DIR", help="a Pascal VOC 2012 folder instead")
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="FILE", help=f"default {DEFAULT_OUT}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, convert, write."""
    from refit_shard.console import say
    from refit_shard.loaders.items.occluder_import import read_pickle, read_voc
    from refit_shard.loaders.items.occluders import occluder_bytes
    from refit_shard.shards_spec.storage.files import write_file
    from refit_shard.shards_spec.storage.paths import local_path

    if (args.pickle is None) == (args.voc is None):
        raise UsageError("import-occluders: give FILE.pkl or --voc DIR")
    out = local_path(args.out, "--out")
    if args.pickle is not None:
        found = read_pickle(local_path(args.pickle, "FILE.pkl"))
    else:
        found = list(read_voc(local_path(args.voc, "--voc")))
    if not found:
        raise SourceError(f"{args.voc}: no object there can serve as an occluder")
    write_file(out, occluder_bytes(found), "--out")
    say(f"{out}: {len(found)} occluders")
    return 0
