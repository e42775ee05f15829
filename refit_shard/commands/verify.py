"""``refit-shard verify``: read shards again and check everything."""

import argparse

from refit_shard.commands import Subparsers, add_path
from refit_shard.shards_spec.errors import FormatError, ShardError

HELP = """\
Read shards again and check everything: hashes, tar members, checksums, that the labels in each tar
equal those in its index, that every JPEG decodes to its stated size, and that every row of the npz
is in exactly one shard or in the quarantine. The exit code is 1 if anything is wrong.

  refit-shard verify data/shards/bedlam
  refit-shard verify bedlam                 the same
  refit-shard verify data/shards            all datasets in the folder
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="read shards again and check everything",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_path(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check only hashes and that no row of the npz is missing; decode no image",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify each dataset at the path; returns 1 if anything is wrong."""
    from refit_shard.console import Meter, as_json, say
    from refit_shard.rows import set_urls
    from refit_shard.shards_spec.manifest import read_manifest
    from refit_shard.shards_spec.storage.folder import open_folder
    from refit_shard.shards_spec.verify import Verdict, verify

    reports: list[dict[str, object]] = []
    refused: list[FormatError] = []
    for url in set_urls(args.path):
        rows = shards = 0
        try:
            manifest = read_manifest(open_folder(url))
            rows, shards = manifest.rows, len(manifest.shards)
            with Meter(f"verify {url}", rows, quiet=args.json) as meter:

                def on_shard(verdict: Verdict, meter: Meter = meter) -> None:
                    meter.advance(len(verdict.rows))

                problems = verify(url, quick=args.quick, on_shard=on_shard)
        except FormatError as error:  # the other datasets are still checked
            refused.append(error)
            continue
        except ShardError as error:  # not finished, or its manifest is damaged
            problems = [str(error)]
        reports.append(
            {"path": url, "rows": rows, "shards": shards, "ok": not problems, "problems": problems}
        )
        if not args.json:
            size = f"{rows} rows in {shards} shards"
            if problems:
                more = f" (and {len(problems) - 1} more shards)" if len(problems) > 1 else ""
                say(f"{url}: BROKEN: {problems[0]}{more}; build it again to replace what is broken")
            else:
                say(f"{url}: ok, {size}" + (" (images not decoded)" if args.quick else ""))
    if args.json:
        as_json(reports)
    if refused:
        raise refused[0]
    return 0 if all(report["ok"] for report in reports) else 1
