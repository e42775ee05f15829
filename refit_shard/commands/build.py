"""``refit-shard build``: datasets become shards."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import BuildError, RefitShardError, UsageError

if TYPE_CHECKING:
    from refit_shard.build_tables import Built
    from refit_shard.converter.build.driver import Prepared
    from refit_shard.converter.build.request import BuildRequest
    from refit_shard.converter.doctor.findings import Finding

DEFAULT_OUT = "data/shards"

HELP = """\
Turn the images and SPIN annotations of datasets into pre-cropped shards, OUT/NAME/ each.

  refit-shard build --dataset bedlam --dataset agora
  refit-shard build --config configs/config_bedlam.yaml       every dataset of its DATASET.LIST
  refit-shard build --dataset bedlam --keep smplx_pose        with a label of your own
  refit-shard build --npz my.npz --root /data/my --name my    your own SPIN-format dataset
  refit-shard build --dataset bedlam --dry-run                what it would take; writes nothing

Frames are files below ROOT, or members of tars and zips in it as they were downloaded.
Where the data are is read from data_config.py (--data-config, else ./data_config.py); an
environment variable such as BEDLAM_ROOT overrides it. Datasets of your own may be declared there,
in DATASETS, or under datasets: in the YAML, and are then called by their
names (docs/guides/own-data.md).

--keep carries arrays of the npz along, as they are, to the batch: NAME[:MOTION[=TABLE]][:float64].
MOTION says how one moves when its image is turned or mirrored: none, permute, points2d (pixels),
points3d or axis_angle; TABLE what a mirror exchanges: spin, openpose, spin49, coco, smpl, smplh,
smplx, hands, mano, mano_pair, or a JSON file with a permutation. smpl_pose, smplh_pose, smplx_pose
and mano_pose know theirs.

Before it begins, the labels and some frames are looked at; where they cannot be right, it stops and
says what to mend (--skip-checks goes on). A build that was stopped goes on when the same command is
given again: whole shards are kept, a damaged one is built anew, and rows whose frame was missing
are tried again. Rows that cannot be used are listed with their reason in
OUT/NAME/quarantine.feather. Shards of another npz or with other options are refused: --overwrite
builds a new set beside the old one, which goes once the new one is whole.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "build",
        help="images and annotations become shards",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to build")
    what.add_argument("--dataset", action="append", metavar="NAME", help="may be given repeatedly")
    what.add_argument(
        "--config",
        metavar="YAML",
        help="a training config: its DATASET.LIST, or those of --dataset",
    )
    what.add_argument("--npz", metavar="FILE|URL", help="your own annotations, with --root, --name")
    what.add_argument("--root", metavar="DIR|URL", help="the frames of --npz")
    what.add_argument("--name", metavar="NAME", help="the name of --npz")
    what.add_argument("--data-config", metavar="PATH", help="default ./data_config.py")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    what.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="replace a prefix of imgname, or with * for what is kept a prefix and an ending: "
        "'*.png=*.jpg'; may be given repeatedly, the first that fits is used",
    )
    what.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="LABEL,…",
        help="arrays of the npz to carry along; of several datasets those keep it that have it",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--out", default=DEFAULT_OUT, metavar="DIR|URL", help=f"default {DEFAULT_OUT}")
    how.add_argument(
        "--workers", type=int, metavar="N", help="default all cores; 0 = in this process, no Ray"
    )
    how.add_argument("--address", metavar="auto|ray://…", help="a Ray cluster, default a local one")
    how.add_argument(
        "--shard-timeout",
        type=float,
        metavar="SECONDS",
        help="kill a worker that takes longer for a shard, and build it again with another "
        "(default 2 a row, at least 600)",
    )
    how.add_argument("--box-px", type=int, default=256, help="pixels for the box (default 256)")
    how.add_argument(
        "--envelope",
        type=float,
        default=1.25,
        metavar="FACTOR",
        help="the largest factor on a box's side that augmentation is to show, at any rotation "
        "(default 1.25, ReFit's; 1 to 4); the loader refuses a wider policy. Crops grow with its "
        "square where the frame goes on: --dry-run says by how much",
    )
    how.add_argument("--quality", type=int, default=90, help="of the JPEGs (default 90)")
    how.add_argument(
        "--samples-per-shard", type=int, default=2048, metavar="N", help="default 2048"
    )
    how.add_argument("--seed", type=int, default=0, help="of the frames' order (default 0)")
    how.add_argument(
        "--on-error",
        choices=("quarantine", "fail"),
        default="quarantine",
        help="what to do with a row that cannot be used: list it and go on (default), or stop",
    )
    how.add_argument(
        "--max-bad",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="fail at the end if more rows are in quarantine (default 0.05)",
    )
    how.add_argument(
        "--skip-checks",
        action="store_true",
        help="build also where the first look at labels and frames says that they are wrong",
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="build every shard anew, also of the same plan; what stands stays until the new set "
        "is whole, so it takes twice the room; if interrupted, give the same command again",
    )
    how.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _prepare(request: "BuildRequest", *, keep_lists: bool, quiet: bool) -> "Prepared":
    """Read and plan a dataset; a meter shows how far its archives are listed."""
    from refit_shard.console import listing_meter
    from refit_shard.converter.build.driver import prepare

    with listing_meter(request.dataset.name, quiet=quiet) as reached:
        return prepare(request, keep_lists=keep_lists, on_bytes=reached)


def _first_look(args: argparse.Namespace, prepared: "Prepared") -> "tuple[Finding, ...]":
    """What the checks before a build find; printed, unless --json is to tell it."""
    from refit_shard.build_tables import print_annotations
    from refit_shard.console import say
    from refit_shard.converter.doctor.checks import check_before_build

    if not args.json:
        print_annotations(prepared)
    findings = () if args.skip_checks else tuple(check_before_build(prepared))
    for one in () if args.json else findings:
        say(one.line, error=True)
    return findings


def _dry_run(args: argparse.Namespace, wanted: "list[BuildRequest]") -> int:
    """Print what the builds would take; 1 if a check would stop one."""
    from refit_shard.build_tables import planned_json, print_planned
    from refit_shard.console import as_json
    from refit_shard.converter.build.estimate import estimate
    from refit_shard.converter.doctor.checks import stopped_by

    prepared = [_prepare(request, keep_lists=False, quiet=args.json) for request in wanted]
    looks = [_first_look(args, one) for one in prepared]
    plans = [estimate(one) for one in prepared]
    if args.json:
        as_json([planned_json(*one) for one in zip(prepared, looks, plans, strict=True)])
    else:
        print_planned(list(zip(prepared, plans, strict=True)))
    return 1 if any(stopped_by(one) for one in looks) else 0


def _build_one(prepared: "Prepared", *, quiet: bool) -> "Built":
    from refit_shard.console import Meter
    from refit_shard.converter.build.driver import build
    from refit_shard.converter.build.task import ShardResult

    name = prepared.recipe.dataset.name
    with Meter(name, len(prepared.plan.order), quiet=quiet) as meter:

        def on_shard(result: ShardResult) -> None:
            bad = len(result.quarantined)
            meter.advance(result.entry.rows + bad, result.entry.tar_bytes, bad)

        summary = build(prepared, on_shard)
        return summary, meter.seconds


def _one_ray_for_all(args: argparse.Namespace, builds: int) -> AbstractContextManager[None]:
    """Ray takes seconds to start: several datasets share one, a single build starts its own.

    A cluster is there already, or the user hears so before anything is built.
    """
    from refit_shard.converter.build.run import ray_session

    if args.workers == 0 or not builds or (builds < 2 and args.address is None):
        return nullcontext()
    return ray_session(workers=args.workers, address=args.address)


def _look_at_all(
    args: argparse.Namespace, wanted: "list[BuildRequest]", errors: list[RefitShardError]
) -> "tuple[list[Prepared], list[dict[str, Any]]]":
    """The datasets that may be built, and what the checks say of all; the others give errors."""
    from refit_shard.build_tables import checked_json
    from refit_shard.console import say
    from refit_shard.converter.doctor.checks import stopped_by

    ready = []
    checked = []
    for request in wanted:
        try:
            prepared = _prepare(request, keep_lists=True, quiet=args.json)
            findings = _first_look(args, prepared)
            checked.append(checked_json(prepared, findings))
            if stopped_by(findings):
                raise BuildError(f"{request.dataset.name}: not built: {stopped_by(findings)}")
            ready.append(prepared)
        except UsageError:
            raise
        except RefitShardError as error:
            say(f"refit-shard: {error}", error=True)
            errors.append(error)
    return ready, checked


def _tell(
    args: argparse.Namespace,
    done: "list[Built]",
    errors: list[RefitShardError],
    checked: list[dict[str, Any]],
) -> None:
    """Print what was built, as a table or as JSON."""
    from refit_shard.build_tables import built_json, print_built
    from refit_shard.console import as_json

    if args.json:
        built = [built_json(*one) for one in done]
        as_json({"built": built, "errors": [str(e) for e in errors], "checked": checked})
    elif done:
        print_built(done, checked)


def run(args: argparse.Namespace) -> int:
    """Build each dataset; what is finished stays, whatever happens to the next."""
    from refit_shard.build_requests import build_requests
    from refit_shard.console import say

    wanted = build_requests(args)
    if args.dry_run:
        return _dry_run(args, wanted)
    done: list[Built] = []
    errors: list[RefitShardError] = []
    checked: list[dict[str, Any]] = []
    try:
        ready, checked = _look_at_all(args, wanted, errors)
        with _one_ray_for_all(args, len(ready)):
            while ready:
                try:
                    done.append(_build_one(ready.pop(0), quiet=args.json))
                except UsageError:
                    raise
                except RefitShardError as error:
                    say(f"refit-shard: {error}", error=True)
                    errors.append(error)
    except KeyboardInterrupt:
        line = "stopped; finished shards are kept: give the same command again to go on"
        say(f"refit-shard: {line}", error=True)
        raise
    finally:
        _tell(args, done, errors, checked)
    return 1 if errors else 0
