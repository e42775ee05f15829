"""``refit-shard build``: data sets become shards."""

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import BuildError, RefitShardError, UsageError

if TYPE_CHECKING:
    from refit_shard.converter.build.driver import Prepared, Summary
    from refit_shard.converter.build.request import BuildRequest
    from refit_shard.converter.doctor.findings import Finding

DEFAULT_OUT = "data/shards"

HELP = """\
Turn the images and SPIN annotations of data sets into pre-cropped shards, OUT/NAME/ each.

  refit-shard build --dataset bedlam --dataset agora
  refit-shard build --config configs/config_bedlam.yaml       every data set of its DATASET.LIST
  refit-shard build --dataset bedlam --keep smplx_pose        with a label of your own
  refit-shard build --npz my.npz --root /data/my --name my    your own SPIN-format data set
  refit-shard build --dataset bedlam --dry-run                what it would take; writes nothing

Frames are files below ROOT, or members of tars and zips in it as they were downloaded.
Where the data are is read from data_config.py (--data-config, else ./data_config.py); an
environment variable such as BEDLAM_ROOT overrides it. Data sets of your own may be declared there,
in DATASETS, or under datasets: in the YAML, and are then called by their
names (docs/guides/data.md).

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
        help="arrays of the npz to carry along; of several data sets those keep it that have it",
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


def requests(args: argparse.Namespace) -> "list[BuildRequest]":
    """The builds that the arguments ask for.

    Raises:
        UsageError: they contradict each other, or a data set's place is not configured.
    """
    from refit_shard.converter.annotations.datasets import DATASETS, Dataset
    from refit_shard.converter.annotations.keep import parse_keeps, those_there
    from refit_shard.converter.annotations.remaps import parse_remaps
    from refit_shard.converter.build.plan import BuildOptions
    from refit_shard.converter.build.request import BuildRequest
    from refit_shard.data_folder import find_data_config, names_of_config
    from refit_shard.shards_spec.names import check_dataset_name
    from refit_shard.shards_spec.storage.files import is_file
    from refit_shard.shards_spec.storage.paths import absolute, location

    out = location(args.out, "--out").rstrip("/")
    if out.endswith(":"):
        raise UsageError(f"--out {args.out!r}: must be a folder, or a URL with a bucket")
    own = [args.npz, args.root, args.name]
    if bool(args.dataset or args.config) == any(own):
        raise UsageError(
            "build: say what to build with --dataset NAME, --config YAML or both, "
            "or with --npz FILE --root DIR --name NAME"
        )
    options = BuildOptions(
        box_px=args.box_px,
        envelope=args.envelope,
        quality=args.quality,
        samples_per_shard=args.samples_per_shard,
        limit=args.limit,
        seed=args.seed,
        remaps=parse_remaps(args.remap),
        keep=parse_keeps(args.keep),
    )
    if any(own):
        if not all(own):
            raise UsageError("build: --npz, --root and --name go together")
        check_dataset_name(args.name)
        if args.name in DATASETS:
            raise UsageError(
                f"--name {args.name}: is a registered data set, which has rules of its own; build "
                f"it with --dataset {args.name} (its npz and root stand in data_config.py), or "
                "give yours another name"
            )
        npz, root = location(args.npz, "--npz"), location(args.root, "--root")
        if not is_file(npz):
            raise UsageError(f"--npz {args.npz}: no such file")
        if "://" not in root and not Path(root).is_dir():
            raise UsageError(f"--root {args.root}: no such folder")
        dataset = Dataset(name=args.name, root_variable="--root")
        places = [(dataset, npz, absolute(root))]
    else:
        names, where = args.dataset, ""
        if args.config:
            listed, where = names_of_config(args.config), f"--config {args.config}: "
            names = args.dataset or listed
        config = find_data_config(args.data_config, args.config)
        found = [config.find(name, where) for name in dict.fromkeys(names)]
        places = [(dataset, config.npz(dataset), config.root(dataset)) for dataset in found]
    kept = those_there(options.keep, [npz for _, npz, _ in places])
    return [
        BuildRequest(
            dataset=dataset,
            npz=npz,
            root=root,
            out=f"{out}/{dataset.name}",
            options=dataclasses.replace(options, keep=keep),
            workers=args.workers,
            address=args.address,
            shard_timeout=args.shard_timeout,
            on_error=args.on_error,
            max_bad=args.max_bad,
            overwrite=args.overwrite,
        )
        for (dataset, npz, root), keep in zip(places, kept, strict=True)
    ]


def _prepare(request: "BuildRequest", *, keep_lists: bool, quiet: bool) -> "Prepared":
    """Read and plan a data set; a meter shows how far its archives are listed."""
    from refit_shard.console import listing_meter
    from refit_shard.converter.build.driver import prepare

    with listing_meter(request.dataset.name, quiet=quiet) as reached:
        return prepare(request, keep_lists=keep_lists, on_bytes=reached)


def _describe(prepared: "Prepared") -> None:
    """Say what the npz holds and what it does not."""
    from refit_shard.console import say
    from refit_shard.converter.doctor.dataset import archives_line
    from refit_shard.converter.doctor.labels import unusable_rows

    source, plan = prepared.source, prepared.plan
    name = prepared.recipe.dataset.name
    lines = [
        f"{name}: {source.rows} rows, {plan.frames} frames, {plan.shards} shards from {source.npz}",
        f"{name}: found {', '.join(source.found)}; not there: {', '.join(source.absent) or 'none'}"
        + (f"; not used: {', '.join(source.unused)}" if source.unused else ""),
    ]
    if source.kept.fields:
        lines.append(f"{name}: kept {', '.join(map(str, source.kept.fields))}")
    if prepared.packed.archives.listed:
        lines.append(f"{name}: {archives_line(prepared)}")
    lines += [f"{name}: {one.rows} rows cannot be used: {one}" for one in unusable_rows(source)]
    for line in lines:
        say(line, error=True)


def _first_look(args: argparse.Namespace, prepared: "Prepared") -> "tuple[Finding, ...]":
    """What the checks before a build find; printed, unless --json is to tell it."""
    from refit_shard.console import say
    from refit_shard.converter.doctor.checks import check_before_build

    if not args.json:
        _describe(prepared)
    findings = () if args.skip_checks else tuple(check_before_build(prepared))
    for one in () if args.json else findings:
        say(one.line, error=True)
    return findings


def _told(prepared: "Prepared", findings: "Sequence[Finding]") -> dict[str, Any]:
    """What --json says of the rows and the checks of a data set."""
    from refit_shard.converter.doctor.labels import unusable_rows

    return {
        "dataset": prepared.recipe.dataset.name,
        "unusable": [dataclasses.asdict(one) for one in unusable_rows(prepared.source)],
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def _dry_run(args: argparse.Namespace, wanted: "list[BuildRequest]") -> int:
    from refit_shard.console import as_json, human_bytes, human_seconds, print_table, say
    from refit_shard.converter.build.estimate import estimate
    from refit_shard.converter.doctor.checks import stopped_by

    prepared = [_prepare(request, keep_lists=False, quiet=args.json) for request in wanted]
    looks = [_first_look(args, one) for one in prepared]
    found = [(one, estimate(one)) for one in prepared]
    code = 1 if any(stopped_by(one) for one in looks) else 0
    if args.json:
        as_json(
            [
                {
                    **_told(one, look),
                    **dataclasses.asdict(plan),
                    "faults": len(one.source.faults),
                }
                for (one, plan), look in zip(found, looks, strict=True)
            ]
        )
        return code
    print_table(
        "plan (nothing was written)",
        ["data set", "rows", "frames", "shards", "size", "time", "missing"],
        [
            [
                one.recipe.dataset.name,
                f"{plan.rows}",
                f"{plan.frames}",
                f"{plan.shards}",
                human_bytes(plan.bytes),
                human_seconds(plan.seconds),
                f"{plan.missing}",
            ]
            for one, plan in found
        ],
    )
    for one, plan in found:
        if plan.missing:
            say(
                f"{one.recipe.dataset.name}: missing below {one.request.root}: "
                f"{', '.join(plan.examples)}, …"
            )
    return code


def _build_one(prepared: "Prepared", *, quiet: bool) -> "tuple[Summary, float]":
    from refit_shard.console import Meter
    from refit_shard.converter.build.driver import build
    from refit_shard.converter.build.work import ShardResult

    name = prepared.recipe.dataset.name
    with Meter(name, len(prepared.plan.order), quiet=quiet) as meter:

        def on_shard(result: ShardResult) -> None:
            bad = len(result.quarantined)
            meter.advance(result.entry.rows + bad, result.entry.tar_bytes, bad)

        summary = build(prepared, on_shard)
        return summary, meter.seconds


def _table(done: "list[tuple[Summary, float]]", told: list[dict[str, Any]]) -> None:
    from refit_shard.console import human_bytes, human_seconds, print_table, say
    from refit_shard.shards_spec.names import OVERWRITE

    columns = ["data set", "rows", "frames", "shards", "kept", "size", "quarantined", "time"]
    rows = []
    for summary, seconds in done:
        counts = ", ".join(f"{count} {reason}" for reason, count in summary.quarantined.items())
        rows.append(
            [
                summary.dataset,
                f"{summary.rows} of {summary.source_rows}",
                f"{summary.frames}",
                f"{summary.shards}",
                f"{summary.kept_shards}",
                human_bytes(summary.bytes),
                counts or "0",
                human_seconds(seconds),
            ]
        )
    print_table("built", columns, rows)
    for summary, _ in done:
        for text, count in summary.warned.items():
            say(f"{summary.dataset}: {count} rows were read with a warning: {text}")
        if summary.left_out:
            say(f"{summary.dataset}: {summary.left_out} rows of the npz were left out (--limit)")
        if summary.overwriting:
            say(
                f"{summary.dataset}: an --overwrite that did not end waits: give it again, or "
                f"drop it by deleting {summary.out}/{OVERWRITE}"
            )
        say(f"{summary.dataset}: {summary.out}")
    built = {summary.dataset for summary, _ in done}
    for look in told:
        for finding in look["findings"] if look["dataset"] in built else []:
            say(f"{look['dataset']}: warning: {finding['detail']}")


def _one_ray_for_all(args: argparse.Namespace, builds: int) -> AbstractContextManager[None]:
    """Ray takes seconds to start: several data sets share one, a single build starts its own.

    A cluster is there already, or the user hears so before anything is built.
    """
    from refit_shard.converter.build.run import ray_session

    if args.workers == 0 or not builds or (builds < 2 and args.address is None):
        return nullcontext()
    return ray_session(workers=args.workers, address=args.address)


def _look_at_all(
    args: argparse.Namespace, wanted: "list[BuildRequest]", errors: list[RefitShardError]
) -> "tuple[list[Prepared], list[dict[str, Any]]]":
    """The data sets that may be built, and what the checks say of all; the others give errors."""
    from refit_shard.console import say
    from refit_shard.converter.doctor.checks import stopped_by

    ready = []
    told = []
    for request in wanted:
        try:
            prepared = _prepare(request, keep_lists=True, quiet=args.json)
            findings = _first_look(args, prepared)
            told.append(_told(prepared, findings))
            if stopped_by(findings):
                raise BuildError(f"{request.dataset.name}: not built: {stopped_by(findings)}")
            ready.append(prepared)
        except UsageError:
            raise
        except RefitShardError as error:
            say(f"refit-shard: {error}", error=True)
            errors.append(error)
    return ready, told


def run(args: argparse.Namespace) -> int:
    """Build each data set; what is finished stays, whatever happens to the next."""
    from refit_shard.console import as_json, say

    wanted = requests(args)
    if args.dry_run:
        return _dry_run(args, wanted)
    done: list[tuple[Summary, float]] = []
    errors: list[RefitShardError] = []
    told: list[dict[str, Any]] = []
    try:
        ready, told = _look_at_all(args, wanted, errors)
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
        if args.json:
            built = [_as_dict(*one) for one in done]
            as_json({"built": built, "errors": [str(e) for e in errors], "checked": told})
        elif done:
            _table(done, told)
    return 1 if errors else 0


def _as_dict(summary: "Summary", seconds: float) -> dict[str, Any]:
    return {**dataclasses.asdict(summary), "seconds": round(seconds, 3)}
