"""Measures the stream's speed relative to bare decoding, and the time of a sample by stage.

    python -m benchmarks.bench_load

Stored crops and occluders are those of :mod:`benchmarks.crops`. These cases are measured in
samples/s, in turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`), each in a fresh
process that may use one or two cores:

- *bare decode*: simplejpeg only decodes the stored JPEGs, whole crops held in memory, to RGB into
  reused memory; on one core, and on two cores with two threads. *Without markers* decodes the same
  crops encoded again without restart markers, which make the stored JPEGs larger and slower to
  decode as a whole;
- the loader: :class:`refit_shard.StreamingLoader` with ReFit's augmentation and occluders, batches
  of 64, one worker per core, the whole process on one or two cores, after a warm-up.

Ratios are those of rates in the same round. Afterwards it measures the time of a sample by stage on
one core, and decoding of only the shown part of each crop (:mod:`benchmarks.load_stages`).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.build_cases import process
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import machine, markdown_table
from benchmarks.load_cases import Amounts, Decoding, Loading, measure
from benchmarks.load_stages import measure_stages
from benchmarks.peers.transform import Kind
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread

CORES = 2
PACKAGES = ("numpy", "opencv-python-headless", "simplejpeg", "pyarrow", "crc32c", "torch")


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run.

    ``seconds``: the shortest duration of a measurement, after ``warm_up`` batches.
    ``stage_batches``: batches made in each round of the stages, twice.
    """

    batch: int = 64
    images: tuple[Kind, ...] = ("uint8", "normalized")
    warm_up: int = 30
    seconds: float = 5.0
    stage_batches: int = 40
    rounds: int = 5


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    batch=4,
    images=("uint8",),
    warm_up=1,
    seconds=0.0,
    stage_batches=2,
    rounds=1,
)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The ratio of two cases, and its target."""

    title: str
    above: str
    below: str
    target: float


def all_cases(settings: Settings) -> dict[str, Decoding | Loading]:
    """All measurements of a round."""
    cases: dict[str, Decoding | Loading] = {
        "bare decode, 1 core": Decoding(threads=1),
        "bare decode, 2 cores": Decoding(threads=2),
        "bare decode without markers, 2 cores": Decoding(threads=2, markers=False),
    }
    for image in settings.images:
        cases[f"{image}, 1 core"] = Loading(image=image, cores=1)
        cases[f"{image}, 2 cores"] = Loading(image=image, cores=2)
    return cases


def all_ratios(settings: Settings) -> list[Ratio]:
    """The ratios to compute."""
    targets = {"uint8": 1.2, "normalized": 1.1}
    unmarked = {"uint8": 1.1, "normalized": 1.0}
    made = []
    for image in settings.images:
        two = f"{image}, 2 cores"
        bare, plain = "bare decode, 2 cores", "bare decode without markers, 2 cores"
        made += [
            Ratio(
                title=f"{image} over bare decode",
                above=two,
                below=bare,
                target=targets[image],
            ),
            Ratio(
                title=f"{image} over bare decode without markers",
                above=two,
                below=plain,
                target=unmarked[image],
            ),
            Ratio(
                title=f"{image}, 2 cores over 1",
                above=two,
                below=f"{image}, 1 core",
                target=1.9,
            ),
        ]
    return made


def measure_speed(crops: Crops, settings: Settings) -> dict[str, Any]:
    """Measure all cases in turns, and their ratios."""
    amounts = Amounts(batch=settings.batch, warm_up=settings.warm_up, seconds=settings.seconds)
    cases = all_cases(settings)
    work = {name: partial(measure, case, crops, amounts) for name, case in cases.items()}
    measured = interleaved(work, settings.rounds)
    compared = [
        asdict(one) | asdict(ratios(measured[one.above], measured[one.below]))
        for one in all_ratios(settings)
    ]
    rates = {name: asdict(spread(values)) for name, values in measured.items()}
    return {"samples_per_second": rates, "ratios": compared}


def measure_inside(crops: Crops, settings: Settings) -> dict[str, Any]:
    """Measure the stages for each kind of image."""
    stages = []
    for image in settings.images:
        with process() as pool:
            stages.append(
                pool.submit(
                    measure_stages,
                    image,
                    crops,
                    batch=settings.batch,
                    batches_a_round=settings.stage_batches,
                    rounds=settings.rounds,
                ).result()
            )
    return {"stages": stages}


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    crops = cached_crops(cache, settings)
    return {
        "benchmark": "bench_load",
        "machine": machine(PACKAGES),
        "settings": {**asdict(settings), "rows": crops.rows, "cores": CORES},
        **measure_speed(crops, settings),
        **measure_inside(crops, settings),
    }


def _spread(result: Mapping[str, Any]) -> str:
    return str(Spread(result["median"], result["low"], result["high"]))


def _stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    times = [one["microseconds"] for one in stages]
    titles = {
        "bare": "bare decode, whole crop",
        "whole": "a whole sample",
        "shown": "decode of what is shown, alone",
    }
    rows = [
        [titles.get(name, name), *(f"{one[name]:.1f}" for one in times)]
        for name in (*titles, *(name for name in times[0] if name not in titles))
    ]
    return markdown_table(["µs a sample, one core", *(one["image"] for one in stages)], rows)


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings = results["settings"]
    rates = [[name, _spread(one)] for name, one in results["samples_per_second"].items()]
    compared = [[one["title"], _spread(one), f"{one['target']:g}"] for one in results["ratios"]]
    return "\n".join(
        [
            f"{settings['rows']} crops, batches of {settings['batch']}, {settings['rounds']} "
            "rounds; median (least to most). "
            f"{results['machine']['cpu']}, {settings['cores']} of {results['machine']['cores']} "
            "cores.",
            "",
            markdown_table(["", "samples/s"], rates),
            "",
            markdown_table(["", "ratio", "target"], compared),
            "",
            _stage_table(results["stages"]),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_load", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds", "seconds"))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_load", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
