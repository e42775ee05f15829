"""``refit-shard doctor``: check a data folder before a build."""

import argparse
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from refit_shard.commands.build import DEFAULT_OUT
from refit_shard.shards_spec.errors import RefitShardError, StorageError, UsageError

if TYPE_CHECKING:
    from refit_shard.converter.annotations.datasets import Dataset
    from refit_shard.converter.doctor.dataset import DatasetPaths, Report
    from refit_shard.converter.doctor.findings import Finding
    from refit_shard.data_folder import DataConfig

HELP = """\
Check a data folder before a build: each dataset's ROOT, npz and labels, that every frame exists,
and a sample of frames against the labels; then disk space, body models, regressors, occluders and
backbones. Nothing is written. Each failure is printed with its fix; if frames are in another
layout, this is the --remap with which build finds them.

  refit-shard doctor --config configs/config_bedlam.yaml    what this training needs
  refit-shard doctor                                        all datasets whose ROOT is set
  refit-shard doctor --all                                  decode every frame

All datasets of the config must exist. Without --config, an npz may be missing if another npz of the
same ROOT exists. The exit code is 1 if something needed is missing or broken.
"""
_OCCLUDERS = "data/dataset_extras/occluders.arrow"


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="check a data folder before a build",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="YAML",
        help="a training config; checks the datasets of its DATASET.LIST",
    )
    parser.add_argument(
        "--data-config", metavar="PATH", help="data_config.py to read (default ./data_config.py)"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--sample",
        type=int,
        default=200,
        metavar="N",
        help="frames to decode of each dataset (default 200)",
    )
    group.add_argument("--all", action="store_true", help="decode every frame")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def _has_npz(config: "DataConfig", dataset: "Dataset") -> bool:
    try:
        config.npz(dataset)
    except (UsageError, StorageError):
        return False
    return True


def _split(error: RefitShardError) -> tuple[str, str]:
    """An error message split into what is wrong and what to do, which a colon separates."""
    detail, _, fix = str(error).partition(": set it to ")
    if fix:
        return detail, f"set it to {fix}"
    detail, _, fix = str(error).rpartition(": ")
    return detail, fix


def _import_command(config: "DataConfig", dataset: "Dataset", root: str | None) -> str | None:
    """The command that makes a missing npz from annotations as downloaded.

    They are looked for in the root and in the folder of the npz; None if there are none.
    """
    from refit_shard.converter.importers.sources import find_downloaded

    npz = None
    with suppress(UsageError):  # the entry is not a path, which another finding reports
        npz = config.listed_npz(dataset)
    if npz is None or "://" in npz:
        return None
    folders = [Path(npz).parent, *([Path(root)] if root and "://" not in root else [])]
    source = find_downloaded(dataset.name, folders)
    if source is None:
        return None
    command = f"refit-shard import-annotations {source} --dataset {dataset.name}"
    return f"{command} --out {shlex.quote(npz)}"


def find_place(
    config: "DataConfig", dataset: "Dataset", build: str, *, needed: bool
) -> "tuple[DatasetPaths | None, list[Finding]]":
    """The paths of a dataset, None if one is missing, and the findings on them.

    Args:
        config: the data config.
        dataset: the dataset.
        build: the command of a build, to which the dataset is added.
        needed: True if a missing npz is a failure, not a warning.
    """
    from refit_shard.converter.doctor.dataset import DatasetPaths
    from refit_shard.converter.doctor.findings import Finding

    name = dataset.name
    findings = []
    root = npz = None
    try:
        root = config.root(dataset)
        findings.append(Finding(name, "root", "ok", f"{dataset.root_variable} is {root}"))
    except UsageError as error:
        findings.append(Finding(name, "root", "fail", *_split(error)))
    try:
        npz = config.npz(dataset)
    except (UsageError, StorageError) as error:
        detail, fix = _split(error)
        made_by = dataset.made_by or _import_command(config, dataset, root)
        fix = f"make it: {made_by}" if made_by else fix
        findings.append(Finding(name, "npz", "fail" if needed else "warn", detail, fix))
    if root is None or npz is None:
        return None, findings
    out = f"{DEFAULT_OUT}/{name}"
    command = f"{build} --dataset {name}"
    return DatasetPaths(dataset=dataset, npz=npz, root=root, out=out, command=command), findings


def wanted(config: "DataConfig", yaml: str | None) -> "list[tuple[Dataset, bool]]":
    """The datasets to check, each with True if its npz is needed.

    Without a training config these are the datasets whose ROOT is set; of datasets that share a
    ROOT one npz is enough.

    Raises:
        UsageError: there is no data_config.py, and no dataset is declared elsewhere.
    """
    from refit_shard.data_folder import names_of_config

    if config.missing and not config.own:
        raise UsageError(config.missing)
    if yaml is not None:
        names = names_of_config(yaml)
        return [(config.find(name, f"--config {yaml}: "), True) for name in names]
    chosen = [dataset for dataset in config.datasets.values() if config.is_set(dataset)]
    served = {one.root_variable for one in chosen if _has_npz(config, one)}
    return [(dataset, dataset.root_variable not in served) for dataset in chosen]


def _check_one(place: "DatasetPaths", sample: int | None, *, quiet: bool) -> "Report":
    from refit_shard.console import Meter, listing_meter
    from refit_shard.converter.doctor.dataset import check_dataset

    meter: list[Meter] = []

    def on_plan(frames: int) -> None:
        meter.append(Meter(f"doctor {place.dataset.name}", frames, quiet=quiet))
        meter[0].__enter__()

    def on_frame() -> None:
        meter[0].advance(1)

    try:
        with listing_meter(place.dataset.name, quiet=quiet) as reached:
            return check_dataset(place, sample, on_plan, on_frame, reached)
    finally:
        if meter:
            meter[0].__exit__(None, None, None)


def _extras(config: "DataConfig", *, evaluates: bool) -> "list[Finding]":
    from refit_shard.converter.doctor.extras import check_extra, extras_of

    def path(name: str, default: str) -> Path:
        value = config.names.get(name)
        return config.base / Path(value if isinstance(value, str) else default).expanduser()

    extras = extras_of(
        smpl=path("SMPL_MODEL_DIR", "data/smpl"),
        regressor_h36m=path("JOINT_REGRESSOR_H36M", "data/smpl/J_regressor_h36m.npy"),
        regressor_extra=path("JOINT_REGRESSOR_TRAIN_EXTRA", "data/smpl/J_regressor_extra.npy"),
        occluders=Path(_OCCLUDERS),
        occluder_pickle=path("PASCAL_OCCLUDERS", "data/dataset_extras/pascal_occluders.pkl"),
        pretrain=config.base / "data/pretrain",
        evaluates=evaluates,
    )
    return [check_extra(extra) for extra in extras]


def examine(args: argparse.Namespace) -> "list[Finding]":
    """All findings: on each dataset, then on the disk and the other files."""
    from refit_shard.converter.doctor.dataset import check_disk
    from refit_shard.converter.doctor.findings import Finding
    from refit_shard.data_folder import find_data_config

    config = find_data_config(args.data_config, args.config)
    build = "refit-shard build"
    if args.data_config:
        build += f" --data-config {shlex.quote(args.data_config)}"
    if args.config and config.own:  # the YAML may declare them
        build += f" --config {shlex.quote(args.config)}"
    chosen = wanted(config, args.config)
    findings: list[Finding] = []
    if not chosen:
        fix = "set the ROOT of each dataset that you downloaded"
        findings.append(
            Finding("datasets", "root", "fail", f"no ROOT is set in {config.path}", fix)
        )
    size = 0
    for dataset, needed in chosen:
        place, found = find_place(config, dataset, build, needed=needed)
        findings += found
        if place is not None:
            report = _check_one(place, None if args.all else args.sample, quiet=args.json)
            findings += report.findings
            size += report.bytes
    if chosen:
        findings.append(check_disk(size, DEFAULT_OUT))
    tests = {"3dpw_test", "3dpw_test_sub"}
    evaluates = args.config is not None and any(one.name in tests for one, _ in chosen)
    return findings + _extras(config, evaluates=evaluates)


def _print(findings: "list[Finding]") -> None:
    """Print each finding as one line that ends with its fix; on a terminal the fix is on a line
    below.
    """
    from refit_shard.console import print_finding

    for one in findings:
        what = f"{one.subject}, {one.check}: {one.detail}"
        print_finding(one.status, one.mark, what, one.fix, one.line)


def run(args: argparse.Namespace) -> int:
    """Print the findings; returns 1 if something needed is missing or broken."""
    import dataclasses
    from collections import Counter

    from refit_shard.console import as_json, say

    if args.sample < 1:
        raise UsageError(f"--sample: must be at least 1, got {args.sample}")
    findings = examine(args)
    counts = Counter(one.status for one in findings)
    ready = not counts["fail"]
    if args.json:
        as_json({"ready": ready, "findings": [dataclasses.asdict(one) for one in findings]})
    else:
        _print(findings)
        verdict = "ready" if ready else "not ready"
        say(f"{verdict}: {counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    return 0 if ready else 1
