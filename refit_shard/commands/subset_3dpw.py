"""``refit-shard subset-3dpw``: crop ReFit's validation subset of 3DPW."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import local_path, location

if TYPE_CHECKING:
    from refit_shard.converter.subset.plan import SubsetPlan
    from refit_shard.converter.subset.work import SubsetSummary
    from refit_shard.data_folder import DataConfig

HELP = """\
Draw random rows of 3dpw_test and write their crops and an npz, as ReFit's subsample_3dpw.py does.
SMPL is not needed.

  refit-shard subset-3dpw                  3000 rows, seed 0: the same rows as ReFit's
  refit-shard build --dataset 3dpw_test_sub   shards of them

Crops (256 px, JPEG quality 95) are written to PW3D_ROOT/imageCrops, annotations to the npz that
DATASET_FILES names for 3dpw_test_sub. Complete crops of the same frames and boxes are kept, so an
interrupted command continues when you run it again. If the frame of any row cannot be read, the
rows are listed and no npz is written.
"""
NAME = "3dpw_test_sub"
_LISTED = 20


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "subset-3dpw",
        help="crop ReFit's validation subset of 3DPW",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-config", metavar="PATH", help="data_config.py to read (default ./data_config.py)"
    )
    parser.add_argument(
        "--rows", type=int, default=3000, metavar="N", help="rows to draw (default 3000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the draw (default 0)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def target_of(config: "DataConfig", npz: str) -> Path:
    """The npz to write: that of the data config, else one beside ``npz``, which is 3dpw_test's.

    Raises:
        UsageError: the path is a URL.
    """
    named = _named_target(config) or f"{npz.rpartition('/')[0]}/{NAME}.npz"
    if "://" in named:
        raise UsageError(
            f"{named}: subset-3dpw cannot write its npz to a URL: name a file for {NAME!r} in "
            "DATASET_FILES"
        )
    return config.base / local_path(named, NAME)


def _named_target(config: "DataConfig") -> str | None:
    files = config.names.get("DATASET_FILES")
    for split in files if isinstance(files, (list, tuple)) else []:
        if isinstance(split, dict) and NAME in split:
            return location(split[NAME], NAME)
    return None


def _prepare(args: argparse.Namespace) -> "SubsetPlan":
    from refit_shard.converter.annotations.datasets import DATASETS
    from refit_shard.converter.subset.plan import SubsetRequest, plan_subset
    from refit_shard.data_folder import find_data_config

    config = find_data_config(args.data_config)
    dataset = DATASETS["3dpw_test"]
    npz = config.npz(dataset)
    request = SubsetRequest(
        npz=npz,
        root=config.root(dataset),
        target=target_of(config, npz),
        rows=args.rows,
        seed=args.seed,
        workers=args.workers,
    )
    return plan_subset(request)


def _make(plan: "SubsetPlan", *, quiet: bool) -> "tuple[SubsetSummary, float]":
    from refit_shard.console import Meter
    from refit_shard.converter.subset.work import make_subset

    with Meter(NAME, plan.rows, quiet=quiet) as meter:
        return make_subset(plan, meter.advance), meter.seconds


def _report(summary: "SubsetSummary", seconds: float) -> None:
    from refit_shard.console import human_seconds, say

    say(
        f"{summary.crops}: {summary.rows} of {summary.source_rows} rows in {summary.frames} "
        f"frames, {summary.written} crops written, {summary.kept} kept, {human_seconds(seconds)}"
    )
    if not summary.faults:
        say(f"{summary.npz}: written; next: refit-shard build --dataset {NAME}")
        return
    for fault in summary.faults[:_LISTED]:
        say(f"row {fault.row}: {fault.path}: {fault.reason}: {fault.detail}")
    if len(summary.faults) > _LISTED:
        say(f"and {len(summary.faults) - _LISTED} more; --json lists them all")
    say(
        f"refit-shard: {len(summary.faults)} of {summary.rows} rows have no crop, so "
        f"{summary.npz} was not written; repair their frames and run the same command again",
        error=True,
    )


def run(args: argparse.Namespace) -> int:
    """Write the crops and the npz; returns 1 if a row has no crop."""
    import dataclasses

    from refit_shard.console import as_json, say

    plan = _prepare(args)
    try:
        summary, seconds = _make(plan, quiet=args.json)
    except KeyboardInterrupt:
        line = "stopped; complete crops are kept: run the same command again to continue"
        say(f"refit-shard: {line}", error=True)
        raise
    if args.json:
        as_json({**dataclasses.asdict(summary), "seconds": round(seconds, 3)})
    else:
        _report(summary, seconds)
    return 1 if summary.faults else 0
