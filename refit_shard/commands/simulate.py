"""``refit-shard simulate``: compute what a training run would download."""

import argparse
from typing import Any

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError

HELP = """\
Compute what one node of a training run would download with a cache of a given size: bytes in the
first and the second epoch, how often each row repeats in an epoch, bytes needed before the first
batch, and the smallest possible cache. Only manifests are read. If the cache is too small, for
which the loader would refuse it, the needed size is printed and the exit code is 1.

  refit-shard simulate configs/config_bedlam.yaml --shards s3://bucket/shards --world-size 64 \\
      --cache 200GB
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "simulate",
        help="compute what a training run would download",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="a training YAML such as ReFit's")
    parser.add_argument(
        "--shards",
        default="data/shards",
        metavar="URL",
        help="folder or URL of the datasets (default data/shards)",
    )
    parser.add_argument(
        "--world-size", type=int, default=1, metavar="N", help="ranks of the run (default 1)"
    )
    parser.add_argument(
        "--node-ranks",
        type=int,
        metavar="N",
        help="ranks of one node (default 8, or fewer if the run has fewer)",
    )
    parser.add_argument(
        "--cache", required=True, metavar="BYTES", help="size of a node's cache, such as 200GB"
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="shards of a dataset that are shuffled together (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _show(found: dict[str, Any]) -> None:
    from refit_shard.console import human_bytes, print_table, say

    columns = ["dataset", "ratio", "rows", "shards", "size", "window", "repeats of a row"]
    rows = [
        [
            one["name"],
            f"{one['ratio']:g}",
            f"{one['rows']}",
            f"{one['shards']}",
            human_bytes(one["bytes"]),
            f"{one['window'] or 'all'}",
            f"{one['repeats']:.2f}",
        ]
        for one in found["sources"]
    ]
    print_table(f"an epoch of {found['samples_per_epoch']} samples", columns, rows)
    needed, limit = human_bytes(found["needed_bytes"]), human_bytes(found["cache_bytes"])
    if not found["fits"]:
        say(
            f"in use at a time: {needed}, more than the cache of {limit}: the loader would refuse "
            f"it; give at least --cache {found['needed_bytes']}, or a smaller --window"
        )
        return
    for name, epoch in zip(("first", "second"), found["epochs"], strict=True):
        say(
            f"{name} epoch: {human_bytes(epoch['bytes'])} per node; "
            f"{epoch['hit_rate']:.2%} of the reads find their shard in the cache"
        )
    say(f"before the first batch: {human_bytes(found['first_batch_bytes'])}")
    say(f"in use at a time: {needed} of a cache of {limit}")


def run(args: argparse.Namespace) -> int:
    """Simulate two epochs; returns 1 if the cache is too small."""
    from refit_shard.console import as_json
    from refit_shard.loaders.stream.config import read_config
    from refit_shard.loaders.stream.options import StreamOptions, parse_bytes
    from refit_shard.loaders.stream.simulate import simulate

    if args.world_size < 1:
        raise UsageError(f"--world-size: must be at least 1, got {args.world_size}")
    node_ranks = min(8, args.world_size) if args.node_ranks is None else args.node_ranks
    if not 1 <= node_ranks <= args.world_size:
        raise UsageError(
            f"--node-ranks: must be 1 to --world-size {args.world_size}, got {node_ranks}"
        )
    config = read_config(args.config)
    found = simulate(
        config.places(args.shards),
        StreamOptions(**config.stated, window=args.window, augment=False),
        world_size=args.world_size,
        node_ranks=node_ranks,
        limit=parse_bytes("--cache", args.cache),
    )
    if args.json:
        as_json(found)
    else:
        _show(found)
    return 0 if found["fits"] else 1
