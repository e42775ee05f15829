"""``refit-shard import-occluders``: write cut-outs for synthetic occlusion to an Arrow file."""

import argparse

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import SourceError, UsageError

HELP = """\
Write the cut-outs that the loader pastes onto people (synthetic occlusion) to an Arrow file.

  refit-shard import-occluders data/dataset_extras/pascal_occluders.pkl
  refit-shard import-occluders --voc VOCdevkit/VOC2012

The first command converts ReFit's list, a pickle; only arrays are read from it, no code in it is
run. The second cuts the objects out of Pascal VOC 2012, from which ReFit's list was made.
"""
DEFAULT_OUT = "data/dataset_extras/occluders.arrow"


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "import-occluders",
        help="write cut-outs for synthetic occlusion to an Arrow file",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pickle", nargs="?", metavar="FILE.pkl", help="ReFit's list")
    parser.add_argument(
        "--voc", metavar="DIR", help="folder of Pascal VOC 2012, instead of FILE.pkl"
    )
    parser.add_argument(
        "--out", default=DEFAULT_OUT, metavar="FILE", help=f"file to write (default {DEFAULT_OUT})"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the cut-outs and write the Arrow file."""
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
        raise SourceError(f"{args.voc}: holds no object that can be used as an occluder")
    write_file(out, occluder_bytes(found), "--out")
    say(f"{out}: {len(found)} occluders")
    return 0
