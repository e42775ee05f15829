"""The command line options of all benchmarks: a quick run, the cache, and the file of results."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import CACHE, RESULTS, write_json

Settings = TypeVar("Settings")


def command_line(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.NAME``; the benchmark adds its own options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny: does it run?")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for generated data")
    parser.add_argument(
        "--out", type=Path, help=f"default benchmarks/results/{name}.json; --quick keeps none"
    )
    return parser


def chosen(
    args: argparse.Namespace, quick: Settings, full: Settings, names: Sequence[str]
) -> Settings:
    """The settings of a run: full or quick ones, with those of ``names`` that were given."""
    given: dict[str, Any] = {
        name: value for name in names if (value := getattr(args, name)) is not None
    }
    settings: Any = quick if args.quick else full
    changed: Settings = replace(settings, **given)
    return changed


def keep(args: argparse.Namespace, name: str, results: Mapping[str, Any]) -> None:
    """Write the results to their file and print its path."""
    out = args.out or (None if args.quick else RESULTS / f"{name}.json")
    if out is not None:
        write_json(out, results)
        print(f"\n{out}")
