"""``refit-shard export``: write rows of finished datasets for this loader or other readers."""

import argparse
from typing import TYPE_CHECKING, Any

from refit_shard.commands import Subparsers

if TYPE_CHECKING:
    from refit_shard.converter.export.plan import ExportPlan, SetExport
    from refit_shard.converter.export.work import Exported

HELP = """\
Write rows of finished datasets in a format of this loader or of other readers. No image is decoded
or encoded.

  refit-shard export data/shards/bedlam --where "scale > 0.5 and has_smpl" \\
      --format shards --out data/close       a subset, as a dataset of its own
  refit-shard export data/shards --format json --out /data/json    all datasets in data/shards

SET is a dataset's folder or URL, a folder of datasets, or the name of a dataset in data/shards.
--where is a condition on a row as in refit-shard query; without it all rows are written. Each
dataset is written to its own folder or file below OUT.

  shards   OUT/NAME: shards as build makes them, with identical samples; verify and the loader
           read them
  json     OUT/NAME/NAME-000000.tar …: KEY.jpg and KEY.json, for webdataset, Hugging Face datasets
           and Ray Data
  wids     the tars of json, and OUT/NAME/index.json, which wids reads
  energon  the tars of json, and OUT/NAME/.nv-meta: a crude dataset of Megatron-Energon
  parquet  OUT/NAME.parquet: only the labels, and the place of each image, for DuckDB and pandas

OUT must be new or empty. An interrupted export continues when you run the same command again; a
different export into the same OUT is refused. docs/guides/export.md shows the code for each reader.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="write rows of finished datasets for other readers",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sets", nargs="+", metavar="SET", help="folder, URL or name of a dataset")
    parser.add_argument("--where", metavar="CONDITION", help="which rows (default: all)")
    parser.add_argument(
        "--format",
        required=True,
        choices=("shards", "json", "parquet", "wids", "energon"),
        help="format to write",
    )
    parser.add_argument("--out", required=True, metavar="DIR|URL", help="a new or empty folder")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the number of rows and files, write nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the rows."""
    import dataclasses

    from refit_shard.console import Meter, as_json, human_seconds, say
    from refit_shard.converter.export.plan import ExportPlan
    from refit_shard.converter.export.work import export

    plan = ExportPlan(
        form=args.format,
        out=args.out,
        sets=_chosen(args.sets, args.where),
        where=args.where,
        workers=args.workers,
    )
    if args.dry_run:
        _report_plan(plan, as_data=args.json)
        return 0
    try:
        with Meter("export", plan.rows, quiet=args.json) as meter:
            done = export(plan, meter.advance)
    except KeyboardInterrupt:
        line = "stopped; finished files are kept: run the same command again to continue"
        say(f"refit-shard: {line}", error=True)
        raise
    if args.json:
        as_json([dataclasses.asdict(one) for one in done])
        return 0
    for one in done:
        say(f"{_line(one)}, {human_seconds(meter.seconds)}")
    return 0


def _chosen(places: list[str], where: str | None) -> "tuple[SetExport, ...]":
    """The datasets at some places, each with the rows that meet a condition."""
    from refit_shard.converter.export.plan import Part, SetExport
    from refit_shard.rows import find_sets, selected

    sets = find_sets(places)
    parts: dict[str, list[Part]] = {one.folder.url: [] for one in sets}
    for found in selected(sets, where):
        parts[found.data_set.folder.url].append(Part(shard=found.shard, rows=found.rows))
    return tuple(SetExport(data_set=one, parts=tuple(parts[one.folder.url])) for one in sets)


def _line(one: "Exported") -> str:
    from refit_shard.console import human_bytes

    kept = f", {one.kept} kept" if one.kept else ""
    return (
        f"{one.out}: {one.rows} of {one.of_rows} rows in {one.files} files{kept}, "
        f"{human_bytes(one.bytes)}"
    )


def _report_plan(plan: "ExportPlan", *, as_data: bool) -> None:
    """Print what an export would write for each dataset."""
    from refit_shard.console import as_json, human_bytes, say

    found: list[dict[str, Any]] = [
        {
            "dataset": one.dataset,
            "rows": one.rows,
            "of_rows": one.manifest.rows,
            "files": 1 if plan.form == "parquet" else len(one.files),
            "bytes": one.bytes(images=plan.form != "parquet"),
        }
        for one in plan.sets
    ]
    if as_data:
        as_json(found)
        return
    for line in found:
        say(
            "{dataset}: {rows} of {of_rows} rows in {files} files, about ".format(**line)
            + human_bytes(line["bytes"])
        )
