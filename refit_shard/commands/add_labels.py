"""``refit-shard add-labels``: add a user's labels to finished shards."""

import argparse

from refit_shard.commands import Subparsers

HELP = """\
Add arrays of an npz as labels to the finished shards of a dataset. The frames are not needed, and
no image is decoded.

  refit-shard add-labels data/shards/bedlam contact.npz --keep contact:permute=flip.json

SET is a dataset's folder or URL, or its name in data/shards. FILE.npz must have the same rows in
the same order as the npz that SET was built from; if it has an array imgname, the frames' names are
compared. Or it has an array source_row with the number of each row in that npz; then rows that are
not in SET may be missing. refit-shard build --help explains --keep.

The new shards are written beside the old ones, read again, and replace them with one rename; until
then both take disk space. An interrupted command continues when you run it again.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "add-labels",
        help="add labels of your own to finished shards",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", metavar="SET", help="folder, URL or name of a finished dataset")
    parser.add_argument("npz", metavar="FILE.npz", help="file or URL of the labels")
    parser.add_argument(
        "--keep", action="append", required=True, metavar="LABEL,…", help="arrays to add"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the dataset's shards again with the labels."""
    import dataclasses

    from refit_shard.console import Meter, as_json, human_bytes, human_seconds, say
    from refit_shard.converter.annotations.keep import parse_keeps
    from refit_shard.converter.build.task import ShardResult
    from refit_shard.converter.labels.plan import LabelsRequest, plan_labels
    from refit_shard.converter.labels.work import add_labels
    from refit_shard.rows import one_set_url

    keep = parse_keeps(args.keep)
    shards = one_set_url(args.set)
    plan = plan_labels(LabelsRequest(shards=shards, npz=args.npz, keep=keep, workers=args.workers))
    title = f"add-labels {plan.existing.dataset}"
    try:
        with Meter(title, plan.existing.rows, quiet=args.json) as meter:

            def on_shard(result: ShardResult) -> None:
                meter.advance(result.entry.rows, result.entry.tar_bytes)

            summary = add_labels(plan, on_shard)
    except KeyboardInterrupt:
        line = "stopped; the shards are unchanged: run the same command again to continue"
        say(f"refit-shard: {line}", error=True)
        raise
    if args.json:
        as_json({**dataclasses.asdict(summary), "seconds": round(meter.seconds, 3)})
        return 0
    if plan.done:
        say(f"{summary.out}: already has {', '.join(summary.labels)}; nothing to do")
        return 0
    say(
        f"{summary.out}: {', '.join(summary.labels)} added to {summary.rows} rows in "
        f"{summary.shards} shards ({summary.kept_shards} kept), {human_bytes(summary.bytes)}, "
        f"rows matched by {summary.joined_by}, {human_seconds(meter.seconds)}"
    )
    return 0
