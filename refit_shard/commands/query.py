"""``refit-shard query``: print or count the rows that meet a condition."""

import argparse
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers
from refit_shard.shards_spec.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from refit_shard.row_text import Shapes
    from refit_shard.shards_spec.reader import ShardSet

HELP = """\
Print or count the rows of finished datasets that meet a condition:

  refit-shard query data/shards --where "scale > 0.5 and has_smpl and dataset == 'bedlam'"
  refit-shard query bedlam coco --where "left_heel.conf > 0.5" --count
  refit-shard query coco --columns key,scale,left_heel,pose --format json > coco.jsonl
  refit-shard query bedlam --quarantine --where "reason == 'missing'" --format csv

SET is a dataset's folder or URL, a folder of datasets, or the name of a dataset in data/shards.

The condition is SQL of DuckDB on one row: and, or, not, in (...), between, like '...', is null, and
functions. Write texts in single quotes. Lists are counted from 1: betas[1]. Columns are the 49
joints by name, each with x, y (pixels of the frame) and conf, the fields of the shard format,
labels that you added, dataset and shard; the error for an unknown name lists them all.

If no row meets the condition, the exit code is still 0.
"""

FORMATS = ("table", "csv", "json")
COLUMNS = ("key", "imgname", "scale", "gender", "has_smpl")
TABLE_ROWS = 40


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "query",
        help="print or count rows",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sets", nargs="+", metavar="SET", help="folder, URL or name of a dataset")
    parser.add_argument("--where", metavar="CONDITION", help="which rows (default: all)")
    parser.add_argument(
        "--columns",
        metavar="NAME,…",
        help=f"columns to print, or all for all but joints (default {','.join(COLUMNS)})",
    )
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="print quarantined rows, with the reason, instead of samples",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="output format (default table); json prints one object per line",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"print at most N rows (default: {TABLE_ROWS} in a table, else all)",
    )
    parser.add_argument(
        "--count", action="store_true", help="print the number of rows of each dataset"
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        default="data/shards",
        help="folder of the datasets given by name (default data/shards)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the rows."""
    import sys

    from refit_shard.console import late_meter, print_table
    from refit_shard.rows import counts, find_sets, rows, shapes

    if args.limit is not None and args.limit < 0:
        raise UsageError(f"--limit: must be at least 0, got {args.limit}")
    if args.count and (args.columns or args.limit is not None):
        raise UsageError("--count cannot be combined with --columns or --limit")
    sets = find_sets(args.sets, shards=args.shards)
    has = [_rows_of(one, args.quarantine) for one in sets]
    mixed = args.format != "table" and sys.stdout.isatty()  # a bar would be among the rows
    with late_meter("query", sum(has), quiet=mixed) as on_rows:
        asked = {"quarantine": args.quarantine, "on_rows": on_rows}
        if args.count:
            found = counts(sets, args.where, **asked)
            reader = _counted(sets, found, has)
        else:
            reader = rows(sets, args.where, _columns(args.columns, args.quarantine), **asked)
        if args.format != "table":
            _print_lines(reader, args.format, shapes(sets), args.limit)
            return 0
        most = len(sets) if args.count else TABLE_ROWS if args.limit is None else args.limit
        total, shown = _first(reader, most)
    title = f"{total} rows"
    if args.count:
        title = f"{sum(found)} of {sum(has)} rows"
    elif len(shown) < total:
        title += f"; {len(shown)} are shown, --limit N shows more"
    print_table(title, reader.schema.names, shown)
    return 0


def _rows_of(data_set: "ShardSet", quarantine: bool) -> int:
    manifest = data_set.manifest
    return sum(manifest.quarantined.values()) if quarantine else manifest.rows


def _columns(text: str | None, quarantine: bool) -> list[str] | None:
    """The columns to print; None for all."""
    if text is None:
        return None if quarantine else list(COLUMNS)
    return None if text == "all" else [name.strip() for name in text.split(",")]


def _counted(sets: "list[ShardSet]", found: list[int], has: list[int]) -> "pa.RecordBatchReader":
    """A table of one row per dataset: how many of its rows were found."""
    import pyarrow as pa

    columns = {
        "dataset": [one.manifest.dataset for one in sets],
        "rows": found,
        "of": has,
        "path": [one.folder.url for one in sets],
    }
    return pa.table(columns).to_reader()


def _first(reader: "pa.RecordBatchReader", limit: int) -> tuple[int, list[list[str]]]:
    """The number of rows, and the cells of the first ``limit`` rows."""
    from refit_shard.row_text import cells

    shown: list[list[str]] = []
    total = 0
    for batch in reader:
        total += batch.num_rows
        shown += cells(batch.slice(0, limit - len(shown)))
    return total, shown


def _print_lines(
    reader: "pa.RecordBatchReader", form: str, shapes: "Shapes", limit: int | None
) -> None:
    """Print rows as CSV or JSON as they are found, until the limit or until the pipe is closed."""
    import pyarrow as pa

    from refit_shard.console import write
    from refit_shard.row_text import csv_lines, json_lines

    if form == "csv":
        none = pa.RecordBatch.from_pylist([], schema=reader.schema)
        write(csv_lines(none, shapes, header=True))
    left = limit
    for batch in reader:
        part = batch if left is None else batch.slice(0, left)
        text = csv_lines(part, shapes) if form == "csv" else json_lines(part, shapes)
        left = None if left is None else left - part.num_rows
        if not write(text) or left == 0:
            break
