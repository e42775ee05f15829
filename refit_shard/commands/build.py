"""``refit-shard build``: build shards from images and annotations."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from refit_shard.commands import Subparsers, add_cluster
from refit_shard.shards_spec.errors import BuildError, RefitShardError, UsageError

if TYPE_CHECKING:
    from refit_shard.build_tables import Built
    from refit_shard.converter.build.driver import Prepared
    from refit_shard.converter.build.request import BuildRequest
    from refit_shard.converter.doctor.findings import Finding

DEFAULT_OUT = "data/shards"

HELP = """\
Build pre-cropped shards from the images and SPIN-format annotations of datasets. The shards of each
dataset are written to OUT/NAME/.

  refit-shard build --dataset bedlam --dataset agora
  refit-shard build --config configs/config_bedlam.yaml       all datasets in its DATASET.LIST
  refit-shard build --dataset bedlam --keep smplx_pose        with another array of the npz
  refit-shard build --npz my.npz --root /data/my --name my    your own SPIN-format dataset
  refit-shard build --dataset bedlam --dry-run                estimate size and time, write nothing

Frames are files below a dataset's ROOT, or members of the tars and zips there as downloaded.
data_config.py (--data-config, else ./data_config.py) states each dataset's ROOT and npz; an
environment variable such as BEDLAM_ROOT overrides it. You can declare your own datasets in DATASETS
of data_config.py or under datasets: in the YAML, and then build them by name
(docs/guides/own-data.md).

--keep stores more arrays of the npz in the shards, as labels that come with every batch:
NAME[:MOTION[=TABLE]][:float64]. MOTION is how the array changes when its image is rotated or
mirrored: none, permute, points2d (pixels), points3d or axis_angle. TABLE is the permutation that a
mirror applies: spin, openpose, spin49, coco, smpl, smplh, smplx, hands, mano, mano_pair, or a JSON
file with a permutation. For smpl_pose, smplh_pose, smplx_pose and mano_pose both are known.

The build first checks all labels and some frames. If they cannot be right, it stops and says what
to repair (--skip-checks builds anyway). An interrupted build continues when you run the same
command again: complete shards are kept, damaged ones are built again, and rows whose frame was
missing are tried again. Rows that cannot be used are listed with the reason in
OUT/NAME/quarantine.feather. If OUT/NAME holds shards of another npz or of other options, the build
is refused; --overwrite builds new shards beside the old ones, which are deleted once the new ones
are complete.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "build",
        help="build shards from images and annotations",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to build")
    what.add_argument(
        "--dataset", action="append", metavar="NAME", help="a dataset to build; may be repeated"
    )
    what.add_argument(
        "--config",
        metavar="YAML",
        help="a training config; builds its DATASET.LIST unless --dataset is given",
    )
    what.add_argument(
        "--npz", metavar="FILE|URL", help="your own annotations; needs --root and --name"
    )
    what.add_argument("--root", metavar="DIR|URL", help="folder of the frames of --npz")
    what.add_argument("--name", metavar="NAME", help="name of the dataset of --npz")
    what.add_argument(
        "--data-config", metavar="PATH", help="data_config.py to read (default ./data_config.py)"
    )
    what.add_argument("--limit", type=int, metavar="N", help="use only the first N rows")
    what.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="replace a prefix of imgname; with *, replace what is before and after the text that "
        "* matches: '*.png=*.jpg'; may be repeated, the first that matches is used",
    )
    what.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="LABEL,…",
        help="arrays of the npz to keep as labels; datasets that lack one are built without it",
    )
    how = parser.add_argument_group("how to build")
    how.add_argument(
        "--out",
        default=DEFAULT_OUT,
        metavar="DIR|URL",
        help=f"where shards are written (default {DEFAULT_OUT})",
    )
    add_cluster(how, "build")
    how.add_argument(
        "--shard-timeout",
        type=float,
        metavar="SECONDS",
        help="kill a worker that takes longer for one shard, and build the shard again in another "
        "worker (default 2 s for each row, at least 600 s)",
    )
    how.add_argument(
        "--box-px",
        type=int,
        default=256,
        metavar="N",
        help="crops whose box is larger than N px are stored scaled down to N px (default 256)",
    )
    how.add_argument(
        "--envelope",
        type=float,
        default=1.25,
        metavar="FACTOR",
        help="store enough around each box for augmentation that enlarges it by up to FACTOR, at "
        "any rotation (1 to 4, default 1.25 as in ReFit); the loader refuses a wider augmentation "
        "policy. Crops grow with the square of FACTOR, up to the frame's edge: --dry-run estimates "
        "the size",
    )
    how.add_argument(
        "--quality", type=int, default=90, metavar="N", help="JPEG quality (default 90)"
    )
    how.add_argument(
        "--samples-per-shard",
        type=int,
        default=2048,
        metavar="N",
        help="samples in a shard (default 2048)",
    )
    how.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the order in which frames are spread over shards (default 0)",
    )
    how.add_argument(
        "--on-error",
        choices=("quarantine", "fail"),
        default="quarantine",
        help="if a row cannot be used: list it in the quarantine (default), or stop the build",
    )
    how.add_argument(
        "--max-bad",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="fail at the end if a larger fraction of the rows is quarantined (default 0.05)",
    )
    how.add_argument(
        "--skip-checks",
        action="store_true",
        help="build even if the checks of labels and frames fail",
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="build all shards again, even if nothing changed; the old shards are kept until the "
        "new ones are complete, so this takes twice the disk space; if interrupted, run the same "
        "command again",
    )
    how.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _prepare(request: "BuildRequest", *, keep_lists: bool, quiet: bool) -> "Prepared":
    """Read a dataset's annotations and plan its shards; shows progress of listing its archives."""
    from refit_shard.console import listing_meter
    from refit_shard.converter.build.driver import prepare

    with listing_meter(request.dataset.name, quiet=quiet) as reached:
        return prepare(request, keep_lists=keep_lists, on_bytes=reached)


def _first_look(args: argparse.Namespace, prepared: "Prepared") -> "tuple[Finding, ...]":
    """The findings of the checks before a build, which are printed unless --json is given."""
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
    """Print the plans and their estimates; returns 1 if a check would stop a build."""
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
    """A Ray session that all builds share; does nothing for a single local build, which starts its
    own.

    Starting Ray takes seconds. With ``--address``, a cluster that does not answer is an error
    before anything is built.
    """
    from refit_shard.converter.build.run import ray_session

    if args.workers == 0 or not builds or (builds < 2 and args.address is None):
        return nullcontext()
    return ray_session(workers=args.workers, address=args.address)


def _look_at_all(
    args: argparse.Namespace, wanted: "list[BuildRequest]", errors: list[RefitShardError]
) -> "tuple[list[Prepared], list[dict[str, Any]]]":
    """The datasets that pass the checks, and the results of the checks of all; failures go to
    ``errors``.
    """
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
    """Print the built datasets as a table or as JSON."""
    from refit_shard.build_tables import built_json, print_built
    from refit_shard.console import as_json

    if args.json:
        built = [built_json(*one) for one in done]
        as_json({"built": built, "errors": [str(e) for e in errors], "checked": checked})
    elif done:
        print_built(done, checked)


def run(args: argparse.Namespace) -> int:
    """Build each dataset; finished ones are kept if a later one fails."""
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
        line = "stopped; finished shards are kept: run the same command again to continue"
        say(f"refit-shard: {line}", error=True)
        raise
    finally:
        _tell(args, done, errors, checked)
    return 1 if errors else 0
