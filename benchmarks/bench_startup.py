"""Measures the time to a loader's first batch, and its memory, with a million rows.

    python -m benchmarks.bench_startup

The two datasets have a million rows in 500 shards, and 10,000 rows in 5
(:mod:`benchmarks.many_shards` explains what the shards share). Each start is a fresh process with 2
workers, batches of 64, ReFit's augmentation and occluders; the starts take turns (see
:func:`refit_shard.loaders.measure.repeats.interleaved`):

- *first batch*: seconds from before ``import refit_shard``, and from after it, because most of a
  start is the import of torch. *Cold*: all files of the dataset were dropped from the page cache
  before (``posix_fadvise``), but not Python's files and libraries;
- *resumed*: seconds from after the imports to the first batch of a new loader that loads the state
  of step 200,000;
- *memory*: that of all processes of the loader together, the largest of some readings over many
  batches, minus that of an idle interpreter that imported torch. Shared pages are counted once
  (PSS), the page cache is not counted. Libraries that other programs have loaded too count in part.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import REPOSITORY, machine, markdown_table
from benchmarks.many_shards import cached_sets
from benchmarks.peers.transform import Kind
from refit_shard.loaders.measure.page_cache import drop_from_cache
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread

PACKAGES = ("numpy", "opencv-python-headless", "simplejpeg", "pyarrow", "torch")
FIRST_BATCH_SECONDS = 3.0
OVER_FEW_ROWS = 1.5
RESUMED_SECONDS = 1.0
BEYOND_IMPORTS_SECONDS = 0.4
MEMORY_BYTES = {"uint8": 150e6, "normalized": 350e6}


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``memory_batches``: batches over which a loader's memory is measured."""

    rows_a_shard: int = 2000
    many_shards: int = 500
    few_shards: int = 5
    tars: int = 8
    batch: int = 64
    workers: int = 2
    images: tuple[Kind, ...] = ("uint8", "normalized")
    caches: tuple[str, ...] = ("warm", "cold")
    resume_step: int = 200_000
    memory_batches: int = 3000
    rounds: int = 5


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    rows_a_shard=40,
    many_shards=10,
    few_shards=2,
    tars=2,
    batch=4,
    images=("uint8",),
    caches=("cold",),
    memory_batches=10,
    rounds=1,
)


@dataclass(frozen=True)
class Sets:
    """The two datasets and the occluders."""

    many: Path
    few: Path
    crops: Crops


def fresh(arguments: Sequence[object]) -> dict[str, Any]:
    """The output of :mod:`benchmarks.first_batch` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.first_batch", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def start(
    folder: Path, image: Kind, sets: Sets, settings: Settings, *more: object
) -> dict[str, Any]:
    """One start of a loader."""
    return fresh(
        [
            *("--shards", folder, "--occluders", sets.crops.occluders, "--image", image),
            *("--batch", settings.batch, "--workers", settings.workers, *more),
        ]
    )


def seconds(made: dict[str, Any]) -> dict[str, float]:
    """Seconds of one start: in all, and from after the imports."""
    return {"all": made["seconds"], "beyond_imports": made["seconds"] - made["import_seconds"]}


def start_cases(sets: Sets, settings: Settings) -> dict[str, Callable[[], dict[str, float]]]:
    """All starts by kind of image, page cache and rows, and the resumed ones."""

    def first_batch(folder: Path, image: Kind, cache: str) -> dict[str, float]:
        if cache == "cold":
            drop_from_cache(folder.iterdir())
        return seconds(start(folder, image, sets, settings))

    def resumed(image: Kind) -> dict[str, float]:
        return seconds(start(sets.many, image, sets, settings, "--step", settings.resume_step))

    cases: dict[str, Callable[[], dict[str, float]]] = {}
    for image in settings.images:
        for cache in settings.caches:
            for name, folder in (("many", sets.many), ("few", sets.few)):
                cases[f"{image}, {cache}, {name} rows"] = partial(first_batch, folder, image, cache)
        cases[f"{image}, resumed"] = partial(resumed, image)
    return cases


def measure_starts(sets: Sets, settings: Settings) -> dict[str, Any]:
    """Measure all starts in turns, and the ratio of many rows to few."""
    measured = interleaved(start_cases(sets, settings), settings.rounds)
    every = {name: [one["all"] for one in values] for name, values in measured.items()}
    beyond = {name: [one["beyond_imports"] for one in values] for name, values in measured.items()}
    pairs = [f"{image}, {cache}" for image in settings.images for cache in settings.caches]
    return {
        "seconds": {name: asdict(spread(values)) for name, values in every.items()},
        "beyond_imports": {name: asdict(spread(values)) for name, values in beyond.items()},
        "many_over_few": {
            pair: asdict(ratios(every[f"{pair}, many rows"], every[f"{pair}, few rows"]))
            for pair in pairs
        },
    }


def measure_memory(sets: Sets, settings: Settings) -> dict[str, Any]:
    """Measure the memory of loaders with the large dataset, and of an idle interpreter."""
    idle = fresh(["--idle"])["bytes"]
    loaders = []
    for image in settings.images:
        made = start(sets.many, image, sets, settings, "--batches", settings.memory_batches)
        readings = made["memory_bytes"]
        loaders.append(
            {
                "image": image,
                "samples": made["samples"],
                "readings_bytes": readings,
                "above_idle_bytes": max(readings) - idle,
            }
        )
    return {"idle_bytes": idle, "loaders": loaders}


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    crops = cached_crops(cache, settings)
    made = cached_sets(
        crops,
        shards=(settings.many_shards, settings.few_shards),
        rows_a_shard=settings.rows_a_shard,
        tars=settings.tars,
    )
    sets = Sets(made[settings.many_shards], made[settings.few_shards], crops)
    return {
        "benchmark": "bench_startup",
        "machine": machine(PACKAGES),
        "settings": {
            **asdict(settings),
            "many_rows": settings.many_shards * settings.rows_a_shard,
            "few_rows": settings.few_shards * settings.rows_a_shard,
        },
        "starts": measure_starts(sets, settings),
        "memory": measure_memory(sets, settings),
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings, starts, memory = (results[name] for name in ("settings", "starts", "memory"))
    rows = []
    for name, one in starts["seconds"].items():
        resumed = name.endswith("resumed")
        whole = "" if resumed else f"{Spread(**one)} of {FIRST_BATCH_SECONDS:g}"
        most = RESUMED_SECONDS if resumed else BEYOND_IMPORTS_SECONDS
        rows.append([name, whole, f"{Spread(**starts['beyond_imports'][name])} of {most:g}"])
    over = [
        [name, str(Spread(**one)), f"{OVER_FEW_ROWS:g}"]
        for name, one in starts["many_over_few"].items()
    ]
    held = [
        [
            one["image"],
            str(one["samples"]),
            f"{one['readings_bytes'][0] / 1e6:.0f}",
            f"{one['readings_bytes'][-1] / 1e6:.0f}",
            f"{one['above_idle_bytes'] / 1e6:.0f} of {MEMORY_BYTES[one['image']] / 1e6:.0f}",
        ]
        for one in memory["loaders"]
    ]
    return "\n".join(
        [
            f"Many rows: {settings['many_rows']} in {settings['many_shards']} shards; few: "
            f"{settings['few_rows']} in {settings['few_shards']}. {settings['workers']} workers, "
            f"batches of {settings['batch']}; {settings['rounds']} rounds; median (least to most). "
            f"{results['machine']['cpu']}, {results['machine']['cores']} cores.",
            "",
            markdown_table(["to the first batch", "s, of at most", "beyond the imports"], rows),
            "",
            markdown_table(["many rows over few", "ratio", "at most"], over),
            "",
            markdown_table(
                ["memory", "samples", "first, MB", "last, MB", "most above idle, MB"], held
            ),
            "",
            f"Idle interpreter with torch: {memory['idle_bytes'] / 1e6:.0f} MB.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_startup", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every start (default 5)")
    parser.add_argument(
        "--memory-batches", type=int, help="batches over which memory is measured (default 3000)"
    )
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds", "memory_batches"))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_startup", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
