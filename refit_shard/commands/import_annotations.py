"""``refit-shard import-annotations``: convert downloaded annotations to an npz."""

import argparse
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers

if TYPE_CHECKING:
    from refit_shard.converter.importers.run import ImportPlan, ImportRequest, ImportSummary

HELP = """\
Convert the annotations that a dataset's site distributes to the npz that build reads, with the same
arrays as SPIN's and ReFit's scripts make. Only arrays are read from pickles; no code in them is
run.

  refit-shard import-annotations COCO2014-All-ver01.json --out coco_2014_eft.npz  also EFT's MPII
  refit-shard import-annotations all_npz_12_smpl_training.zip --out bedlam_train.npz
  refit-shard import-annotations /data/mpi-inf-3dhp --out mpii3d_train.npz    S1/Seq1/annot.mat …
  refit-shard import-annotations sequenceFiles.zip --dataset 3dpw_test --out 3dpw_test.npz
  refit-shard import-annotations /data/h36m --out h36m_train.npz   S1/MyPoseFeatures/…/*.cdf …

The dataset is recognised from the sources; --dataset is needed if they hold two splits. The output
says how many rows were kept, how many were left out and why, and which labels the npz lacks.
BEDLAM's labels part and S are joints of SMPL's neutral mesh: they need SMPL_NEUTRAL.pkl (or .npz)
and J_regressor_extra.npy in --smpl. The npz is written only when it is complete; the same input
gives the same bytes.
"""
_MB = 1_000_000


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "import-annotations",
        help="convert downloaded annotations to an npz",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="files or folders of one dataset's annotations"
    )
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="the npz to write")
    parser.add_argument(
        "--dataset", metavar="NAME", help="the dataset of the sources (default: recognised)"
    )
    parser.add_argument(
        "--smpl", metavar="DIR", help="folder of body models (default data/smpl, as in ReFit)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.npz if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _request(args: argparse.Namespace) -> "ImportRequest":
    from refit_shard.converter.importers.run import ImportRequest
    from refit_shard.shards_spec.storage.paths import local_path

    return ImportRequest(
        sources=tuple(local_path(source, "SOURCE") for source in args.sources),
        out=local_path(args.out, "--out"),
        dataset=args.dataset,
        smpl=None if args.smpl is None else local_path(args.smpl, "--smpl"),
        workers=args.workers,
        overwrite=args.overwrite,
    )


def _import(plan: "ImportPlan", *, quiet: bool) -> "tuple[ImportSummary, float]":
    from refit_shard.console import Meter
    from refit_shard.converter.importers.run import run_import

    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        meter.advance(done // _MB - before // _MB)

    with Meter("import", plan.size // _MB, quiet=quiet, unit="MB") as meter:
        return run_import(plan, on_bytes), meter.seconds


def _report(summary: "ImportSummary", seconds: float) -> None:
    from refit_shard.console import human_seconds, print_table, say

    left_out = [(reason, str(count)) for reason, count in summary.left_out.items()]
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    title = f"{summary.dataset}: {files}, {human_seconds(seconds)}"
    print_table(title, ("rows", "count"), [("kept", str(summary.rows)), *left_out])
    say(f"labels: {', '.join(summary.keys)}")
    for why in dict.fromkeys(summary.absent.values()):
        keys = [key for key, reason in summary.absent.items() if reason == why]
        say(f"missing: {', '.join(keys)}: {why}")
    for note in summary.notes:
        say(note)
    say(
        f"{summary.npz}: written; next: enter it for {summary.dataset!r} in DATASET_FILES of "
        f"data_config.py, then run refit-shard build --dataset {summary.dataset}"
    )


def run(args: argparse.Namespace) -> int:
    """Read the sources and write the npz."""
    import dataclasses

    from refit_shard.console import as_json
    from refit_shard.converter.importers.run import plan_import

    summary, seconds = _import(plan_import(_request(args)), quiet=args.json)
    if args.json:
        as_json({**dataclasses.asdict(summary), "seconds": round(seconds, 3)})
    else:
        _report(summary, seconds)
    return 0
