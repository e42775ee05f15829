"""``refit-shard add-labels``: labels of one's own for shards that stand."""

import argparse

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError

HELP = """\
Add arrays of an npz to a finished set of shards, without its frames and without decoding an image:

  refit-shard add-labels data/shards/bedlam contact.npz --keep contact:permute=flip.json

SET is a data set's folder or URL, or its name in data/shards. FILE.npz has the same rows as the npz
that the set was built from, in the same order; if it holds imgname, the frames' names are compared.
Or it holds an array source_row with the number of each of its rows in that npz; then it needs only
rows that are in the set. --keep is explained by refit-shard build --help.

The new set is written beside the old one, read again, and replaces it in one rename; until then
both take disk space. If the command was stopped, the same command goes on.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "add-labels",
        help="add labels of your own to finished shards",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", metavar="SET", help="folder, URL or name of a finished set")
    parser.add_argument("npz", metavar="FILE.npz", help="the labels, a file or URL")
    parser.add_argument(
        "--keep", action="append", required=True, metavar="LABEL,…", help="which ones to add"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads, default all cores")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the set anew with the labels."""
    import dataclasses

    from refit_shard.console import Meter, as_json, human_bytes, human_seconds, say
    from refit_shard.converter.annotations.keep import parse_keeps
    from refit_shard.converter.build.task import ShardResult
    from refit_shard.converter.labels.plan import LabelsRequest, plan_labels
    from refit_shard.converter.labels.work import add_labels
    from refit_shard.rows import set_urls

    keep = parse_keeps(args.keep)
    url, *more = set_urls(args.set)
    if more:
        raise UsageError(f"{args.set}: holds {1 + len(more)} data sets; give one of them")
    plan = plan_labels(LabelsRequest(shards=url, npz=args.npz, keep=keep, workers=args.workers))
    title = f"add-labels {plan.standing.dataset}"
    try:
        with Meter(title, plan.standing.rows, quiet=args.json) as meter:

            def on_shard(result: ShardResult) -> None:
                meter.advance(result.entry.rows, result.entry.tar_bytes)

            summary = add_labels(plan, on_shard)
    except KeyboardInterrupt:
        line = "stopped; the set is as it was: give the same command again to go on"
        say(f"refit-shard: {line}", error=True)
        raise
    if args.json:
        as_json({**dataclasses.asdict(summary), "seconds": round(meter.seconds, 3)})
        return 0
    if plan.done:
        say(f"{summary.out}: has {', '.join(summary.labels)} already; nothing to do")
        return 0
    say(
        f"{summary.out}: {', '.join(summary.labels)} added to {summary.rows} rows in "
        f"{summary.shards} shards ({summary.kept_shards} kept), {human_bytes(summary.bytes)}, "
        f"joined by {summary.joined_by}, {human_seconds(meter.seconds)}"
    )
    return 0
