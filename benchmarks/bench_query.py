"""Measures the time and memory of ``refit-shard query`` on a million rows.

    python -m benchmarks.bench_query

The datasets are those of :mod:`benchmarks.bench_startup`: a million rows in 500 shards, and 10,000
in 5. Each query is timed as a whole process, with its output discarded and the files in the page
cache. *Memory* is the process's peak, including mapped pages of the indexes, which the system can
reclaim.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_startup import QUICK, Settings
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import cached_crops
from benchmarks.harness import REPOSITORY, machine, markdown_table
from benchmarks.many_shards import cached_sets
from refit_shard.loaders.measure.repeats import Spread, interleaved, spread

PACKAGES = ("duckdb", "numpy", "pyarrow")
QUESTIONS: dict[str, tuple[str, ...]] = {
    "all rows": ("--count",),
    "two columns": ("--count", "--where", "scale > 0.5 and has_smpl"),
    "a text": ("--count", "--where", "imgname like '%7.png'"),
    "a joint": ("--count", "--where", "left_ankle.conf > 0.5"),
    "four joints": (
        "--count",
        "--where",
        "left_ankle.conf + right_ankle.conf + left_wrist.conf + right_wrist.conf > 3",
    ),
    "CSV of a tenth": ("--format", "csv", "--where", "hash(key) % 10 = 0"),
}
# Runs the command and prints its peak memory.
_ASKING = """
import sys
from benchmarks.harness import peak_memory
from refit_shard.cli import main
code = main(sys.argv[1:])
print(peak_memory(), file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Answer:
    """Seconds and peak bytes of one query."""

    seconds: float
    peak_bytes: int


def ask(folder: Path, question: Sequence[str]) -> Answer:
    """Run one query in a fresh process."""
    command = [sys.executable, "-c", _ASKING, "query", str(folder), *question]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return Answer(seconds, int(done.stderr.split()[-1]))


def run(settings: Settings, cache: Path, questions: Sequence[str]) -> dict[str, Any]:
    """Measure some of the queries on both datasets, in turns."""
    counts = {"many": settings.many_shards, "few": settings.few_shards}
    made = cached_sets(
        cached_crops(cache, settings),
        shards=tuple(counts.values()),
        rows_a_shard=settings.rows_a_shard,
        tars=settings.tars,
    )
    cases: dict[str, Callable[[], Answer]] = {
        f"{question}, {name} rows": partial(ask, made[shards], QUESTIONS[question])
        for question in questions
        for name, shards in counts.items()
    }
    measured = interleaved(cases, settings.rounds)
    return {
        "benchmark": "bench_query",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "rows": {name: shards * settings.rows_a_shard for name, shards in counts.items()},
        "seconds": {
            name: asdict(spread([one.seconds for one in answers]))
            for name, answers in measured.items()
        },
        "peak_bytes": {
            name: max(one.peak_bytes for one in answers) for name, answers in measured.items()
        },
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [name, str(Spread(**one)), f"{results['peak_bytes'][name] / 1e6:.0f}"]
        for name, one in results["seconds"].items()
    ]
    counts = results["rows"]
    return "\n".join(
        [
            f"Many rows: {counts['many']}; few: {counts['few']}. {results['machine']['cpu']}.",
            "",
            markdown_table(["question", "s", "MB at most"], rows),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_query", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every query (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    results = run(settings, args.cache, ("a joint",) if args.quick else tuple(QUESTIONS))
    print(report(results))
    keep(args, "bench_query", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
