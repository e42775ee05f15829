"""Long test: the stream must be stable for an hour, and a build must survive twenty kills.

    python -m benchmarks.soak

*Stream*: another process reads batches of 64 with all augmentation, epoch after epoch. Meanwhile
the memory (PSS, which counts shared memory once), open files, threads, number of processes and
samples/s of it and its workers are sampled. From a fifth of the time on, each quantity's robust
slope (the median of the slopes between any two samples) must stay below its bound.

*Build*: a large dataset (many names for the same frames) is built without interruption; then again,
while its command or one of its workers is killed twenty times, each time a random moment after a
certain number of shards is finished. A killed command is run again. All files must equal those of
the uninterrupted build.

Exit code 1: a quantity grows, or the build differs.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.build_cases import cached_tree
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import CropSizes, cached_crops
from benchmarks.harness import REPOSITORY, machine, markdown_table
from benchmarks.soak_build import soak_build
from benchmarks.soak_stream import Samples, soak_stream, trend

PACKAGES = ("numpy", "opencv-python-headless", "simplejpeg", "pyarrow", "torch", "ray")
PLOT = REPOSITORY / "docs" / "how" / "soak.png"
# Allowed growth of each quantity over the whole run, as a share of its median.
BOUNDS = {"memory_bytes": 0.03, "open_files": 0.01, "threads": 0.01, "processes": 0.01}
LEAST_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run. ``batches``: limit of the stream; ``gigabytes``: size of built shards."""

    seconds: float = 3600.0
    batches: int | None = None
    frames: int = 200
    passes: int = 5
    batch: int = 64
    epoch_samples: int = 20_000
    num_workers: int = 2
    gigabytes: float = 20.0
    kills: int = 20
    build_workers: int = 2
    samples_per_shard: int = 2048
    seed: int = 0


QUICK = Settings(
    seconds=4.0,
    frames=4,
    passes=2,
    batch=4,
    epoch_samples=64,
    num_workers=1,
    gigabytes=0.004,
    kills=2,
    build_workers=1,
    samples_per_shard=4,
    seed=3,  # one kill of each kind
)


def judge(samples: Samples) -> list[str]:
    """Quantities that grow beyond their bounds, one line each.

    The first fifth of the samples, in which memory is first used, is ignored.
    """
    if len(samples["seconds"]) < LEAST_SAMPLES:
        return [f"the stream gave {len(samples['seconds'])} samples: too few to judge"]
    wrong = []
    for name, bound in BOUNDS.items():
        found = trend(samples, name)
        if found.growth > bound * found.median:
            wrong.append(
                f"{name} grows by {found.growth:.3g} over the run, from a median of "
                f"{found.median:.3g}; allowed: {bound:.0%}"
            )
    return wrong


def run(settings: Settings, cache: Path, parts: Sequence[str]) -> dict[str, Any]:
    """Run both parts, or one."""
    cache.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "benchmark": "soak",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "wrong": [],
    }
    if "stream" in parts:
        crops = cached_crops(cache, CropSizes(frames=settings.frames, passes=settings.passes))
        samples = soak_stream(
            crops,
            seconds=settings.seconds,
            batches=settings.batches,
            batch=settings.batch,
            epoch_samples=settings.epoch_samples,
            num_workers=settings.num_workers,
        )
        results["stream"] = samples
        results["wrong"] += judge(samples)
    if "build" in parts:
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            built = soak_build(
                cached_tree(cache, settings.frames),
                Path(scratch),
                gigabytes=settings.gigabytes,
                kills=settings.kills,
                workers=settings.build_workers,
                samples_per_shard=settings.samples_per_shard,
                seed=settings.seed,
            )
        results["build"] = built
        results["wrong"] += built["wrong"]
    return results


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = []
    samples = results.get("stream")
    if samples and samples["seconds"]:
        rows = []
        for name in samples.keys() - {"seconds"}:
            found = trend(samples, name)
            rows.append([name, f"{found.median:.4g}", f"{found.growth:+.3g}"])
        lines += [
            f"Stream: {samples['seconds'][-1]:.0f} s, {len(samples['seconds'])} samples.",
            "",
            markdown_table(["", "median", "growth over the run"], sorted(rows)),
            "",
        ]
    built = results.get("build")
    if built:
        lines.append(
            f"Build: {built['rows']} rows in {built['shards']} shards, {built['bytes'] / 1e9:.3g} "
            f"GB; killed: the command {built['killed'].count('command')} times, a worker "
            f"{built['killed'].count('worker')} times; {built['quiet_seconds']:.0f} s quietly, "
            f"{built['seconds']:.0f} s with the kills; {built['files']} files compared."
        )
    return "\n".join([*lines, *(f"WRONG: {line}" for line in results["wrong"])])


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print and store the results."""
    parser = command_line("soak", __doc__)
    parser.add_argument("--seconds", type=float, help="duration of the stream (default 3600)")
    parser.add_argument(
        "--batches", type=int, help="limit of the stream's batches (default: no limit)"
    )
    parser.add_argument(
        "--gigabytes",
        type=float,
        help="size of the built shards (default: half the free disk space, at most 20)",
    )
    parser.add_argument("--kills", type=int, help="kills during the build (default 20)")
    parser.add_argument(
        "--samples-per-shard", type=int, help="samples of each shard of the build (default 2048)"
    )
    parser.add_argument("--seed", type=int, help="seed of the kills (default 0)")
    parser.add_argument("--part", choices=("stream", "build"), help="only this one")
    parser.add_argument("--plot", type=Path, help="default docs/how/soak.png")
    args = parser.parse_args(argv)
    full = Settings(gigabytes=_default_gigabytes(args.cache))
    names = ("seconds", "batches", "gigabytes", "kills", "samples_per_shard", "seed")
    settings = chosen(args, QUICK, full, names)
    results = run(settings, args.cache, [args.part] if args.part else ["stream", "build"])
    print(report(results))
    keep(args, "soak", results)
    plot = args.plot or (None if args.quick else PLOT)
    if plot is not None and "stream" in results:
        if find_spec("matplotlib") is None:
            print("No plot: matplotlib is not installed.")
        else:
            from benchmarks.soak_plot import draw  # noqa: PLC0415

            draw(results["stream"], plot)
            print(plot)
    return 1 if results["wrong"] else 0


def _default_gigabytes(cache: Path) -> float:
    cache.mkdir(parents=True, exist_ok=True)
    return min(20.0, shutil.disk_usage(cache).free / 2e9)


if __name__ == "__main__":
    sys.exit(main())
