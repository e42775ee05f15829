"""Measures exports of one dataset in each format: rows and megabytes per second, and peak memory
for few and for several times as many shards.

    python -m benchmarks.bench_export            about two minutes
    python -m benchmarks.bench_export --quick    only check that it runs
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import CropSizes, cached_crops
from benchmarks.harness import machine, markdown_table
from refit_shard import ShardSet
from refit_shard.converter.export.plan import FORMATS, ExportPlan, Part, SetExport
from refit_shard.converter.export.work import export
from refit_shard.loaders.measure.repeats import Spread, interleaved, spread
from refit_shard.rows import selected

PACKAGES = ("numpy", "pyarrow", "crc32c")
# The code of one process: exports all shards of a dataset, or the first ones.
_MEMORY = """
import json, sys
from pathlib import Path
from benchmarks.bench_export import planned
from benchmarks.harness import peak_memory
from refit_shard.converter.export.work import export
before = peak_memory()
export(planned(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])), lambda _: None)
print(json.dumps(peak_memory() - before))
"""


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``rounds``: repeats of each format; ``fewer``: shards of a small export."""

    rounds: int = 5
    fewer: int = 2


QUICK = Settings(frames=4, passes=1, samples_per_shard=3, occluders=1, rounds=1, fewer=1)


def planned(shards: Path, form: str, out: Path, first: int | None = None) -> ExportPlan:
    """The plan of an export of a dataset, or of its first shards."""
    data_set = ShardSet.open(shards)
    parts = [Part(shard=one.shard, rows=one.rows) for one in selected([data_set])][:first]
    return ExportPlan(
        form=form, out=str(out), sets=(SetExport(data_set=data_set, parts=tuple(parts)),)
    )


def seconds(shards: Path, form: str, folder: Path) -> float:
    """Seconds that an export takes; deletes its output."""
    out = folder / form
    began = time.perf_counter()
    export(planned(shards, form, out), lambda _: None)
    took = time.perf_counter() - began
    shutil.rmtree(out)
    return took


def memory_of(shards: Path, form: str, folder: Path, first: int) -> int:
    """Peak memory of a process that exports, beyond its memory after the imports, bytes."""
    args = (shards, form, folder / form, first)
    command = [sys.executable, "-c", _MEMORY, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(folder / form)
    return int(json.loads(done.stdout))


def run(settings: Settings, cache: Path, folder: Path) -> dict[str, Any]:
    """Measure every format."""
    crops = cached_crops(cache, settings)
    manifest = ShardSet.open(crops.shards).manifest
    cases: dict[str, Callable[[], float]] = {
        form: partial(seconds, crops.shards, form, folder) for form in FORMATS
    }
    took = interleaved(cases, settings.rounds)
    megabytes = sum(entry.tar_bytes for entry in manifest.shards) / 1e6
    shards = {"few": settings.fewer, "all": len(manifest.shards)}
    return {
        "benchmark": "bench_export",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "rows": manifest.rows,
        "megabytes": megabytes,
        "shards": shards,
        "rows_per_second": {
            form: asdict(spread([manifest.rows / one for one in times]))
            for form, times in took.items()
        },
        "megabytes_per_second": {
            form: asdict(spread([megabytes / one for one in times])) for form, times in took.items()
        },
        "memory_bytes": {
            form: {
                which: memory_of(crops.shards, form, folder, count)
                for which, count in shards.items()
            }
            for form in FORMATS
        },
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for form in FORMATS:
        rates = [results[name][form] for name in ("rows_per_second", "megabytes_per_second")]
        memory = results["memory_bytes"][form]
        rows.append(
            [form, *(str(Spread(**one)) for one in rates)]
            + [f"{memory[which] / 1e6:.0f}" for which in ("few", "all")]
        )
    shards = results["shards"]
    columns = ["format", "rows/s", "MB/s of tars"]
    columns += [f"MB of memory, {shards[which]} shards" for which in ("few", "all")]
    return markdown_table(columns, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_export", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every format (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    args.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.cache) as folder:
        results = run(settings, args.cache, Path(folder))
    print(report(results))
    keep(args, "bench_export", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
