"""Measures the time and memory of a report on large datasets.

    python -m benchmarks.bench_report

The datasets are those of :mod:`benchmarks.many_shards`: true indexes, but tars that are links to a
few, so the page shows no crops (their records belong to other rows). ``refit-shard report`` runs in
a fresh process for each, in turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`).
Its peak memory includes mapped pages of indexes, which the system can reclaim.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import CropSizes, cached_crops
from benchmarks.harness import REPOSITORY, machine, markdown_table
from benchmarks.many_shards import cached_sets
from refit_shard.loaders.measure.repeats import Spread, interleaved, spread

PACKAGES = ("numpy", "pyarrow", "vl-convert-python")
# Prints seconds and peak bytes of the command, imports included.
_CHILD = """
import json, sys, time
began = time.perf_counter()
from benchmarks.harness import peak_memory
from refit_shard.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, time.perf_counter() - began, peak_memory()]))
"""


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the datasets, and number of repeats."""

    frames: int = 24
    passes: int = 4
    occluders: int = 1
    rows_a_shard: int = 2048
    shards: tuple[int, ...] = (49, 489)  # 100,352 and 1,001,472 rows
    tars: int = 2
    rounds: int = 3


QUICK = Settings(frames=4, passes=1, rows_a_shard=20, shards=(2, 6), rounds=1)


def report(folder: Path, out: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a report of one dataset."""
    command = [sys.executable, "-c", _CHILD, "report", str(folder), "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    code, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise RuntimeError(done.stderr)
    return seconds, peak


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Measure every size."""
    sets = cached_sets(
        cached_crops(cache, settings),
        shards=settings.shards,
        rows_a_shard=settings.rows_a_shard,
        tars=settings.tars,
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "page.html"
        cases = {str(count): partial(report, one, out) for count, one in sets.items()}
        measured = interleaved(cases, settings.rounds)
    return {
        "benchmark": "bench_report",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "sets": [
            {
                "rows": int(count) * settings.rows_a_shard,
                "seconds": asdict(spread([seconds for seconds, _ in found])),
                "peak_bytes": asdict(spread([float(peak) for _, peak in found])),
            }
            for count, found in measured.items()
        ],
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for one in results["sets"]:
        peak = Spread(**{name: value / 1e6 for name, value in one["peak_bytes"].items()})
        rows.append([f"{one['rows']}", str(Spread(**one["seconds"])), str(peak)])
    return markdown_table(["rows", "s", "peak MB"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_report", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every report (default 3)")
    args = parser.parse_args(argv)
    results = run(chosen(args, QUICK, Settings(), ("rounds",)), args.cache)
    print(table(results))
    keep(args, "bench_report", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
