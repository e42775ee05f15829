"""Measures the stream's speed beside other loaders that produce the same items.

    pip install -e '.[bench]'
    pip install --no-deps -r benchmarks/peers/mosaic.txt
    python -m benchmarks.bench_peers

Every loader produces batches of 64 of ReFit's training items, with all augmentation, occluders and
labels, from the same stored crops (:mod:`benchmarks.crops`). Measured in samples/s:

- *ours*: :class:`refit_shard.StreamingLoader`, by its number of workers;
- *webdataset*, *MosaicML streaming*, *litData*: each with its own format and loader as its
  documentation advises, by the number of worker processes. All use the same transform,
  :mod:`benchmarks.peers.transform`: decoding with simplejpeg, one warp, occluders and labels;
- *SPDL*: the same transform in the threads of its pipeline, by their number; SPDL has no storage
  format (:mod:`benchmarks.peers.spdl_peer`);
- *ReFit's way*: every item is made from the whole 1280x720 PNG frame with scikit-image.

``uint8`` images leave colour factors and normalisation to the GPU, ``normalized`` ones are float32.
Each measurement runs in a fresh process and begins when each worker has made two batches; the cases
take turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`). Peers that are not
installed are left out.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import REPOSITORY, machine, markdown_table
from benchmarks.peer_cases import OURS, PEERS, REFIT, TITLES, Case, measure, prepare
from benchmarks.peers.transform import Kind
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread

PACKAGES = (
    *("numpy", "opencv-python-headless", "simplejpeg", "pyarrow", "torch"),
    *("webdataset", "mosaicml-streaming", "litdata", "spdl", "scikit-image"),
)
PLOT = REPOSITORY / "docs" / "how" / "throughput.png"


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``seconds``: the shortest duration of a measurement, without its start."""

    batch: int = 64
    workers: tuple[int, ...] = (1, 2, 3, 4)
    refit_workers: tuple[int, ...] = (1, 2)
    images: tuple[Kind, ...] = ("uint8", "normalized")
    seconds: float = 5.0
    rounds: int = 5


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    batch=4,
    workers=(1,),
    refit_workers=(1,),
    images=("uint8",),
    seconds=0.0,
    rounds=1,
)

Measured = dict[Case, list[float]]


def all_cases(settings: Settings, peers: Sequence[str]) -> list[Case]:
    """All measurements of a round."""
    cases = [
        Case(contender=name, image=image, workers=workers)
        for image in settings.images
        for name in (OURS, *peers)
        for workers in settings.workers
    ]
    return cases + [
        Case(contender=REFIT, image="normalized", workers=workers)
        for workers in settings.refit_workers
    ]


def measure_all(cases: Sequence[Case], crops: Crops, settings: Settings) -> Measured:
    """Measure all cases in turns."""
    work = {
        str(number): partial(measure, case, crops, settings.batch, settings.seconds)
        for number, case in enumerate(cases)
    }
    return dict(zip(cases, interleaved(work, settings.rounds).values(), strict=True))


def best_of(measured: Measured, contender: str, image: Kind) -> Case:
    """The number of workers with the largest median rate."""
    chosen = [one for one in measured if (one.contender, one.image) == (contender, image)]
    return max(chosen, key=lambda case: median(measured[case]))


def compare(measured: Measured) -> list[dict[str, Any]]:
    """The ratio of our best rate to each other loader's, for the same kind of image."""
    compared = []
    for contender, image in dict.fromkeys((one.contender, one.image) for one in measured):
        if contender != OURS and any(
            (one.contender, one.image) == (OURS, image) for one in measured
        ):
            ours, theirs = (best_of(measured, name, image) for name in (OURS, contender))
            compared.append(
                {
                    **asdict(theirs),
                    "our_workers": ours.workers,
                    **asdict(ratios(measured[ours], measured[theirs])),
                }
            )
    return compared


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    crops = cached_crops(cache, settings)
    skipped = {name: why for name in PEERS if (why := prepare(name, crops))}
    peers = [name for name in PEERS if name not in skipped]
    measured = measure_all(all_cases(settings, peers), crops, settings)
    return {
        "benchmark": "bench_peers",
        "machine": machine(PACKAGES),
        "settings": {**asdict(settings), "rows": crops.rows},
        "skipped": skipped,
        "samples_per_second": [
            {**asdict(case), **asdict(spread(rates))} for case, rates in measured.items()
        ],
        "ours_over": compare(measured),
    }


def _spread(result: dict[str, Any]) -> Spread:
    return Spread(result["median"], result["low"], result["high"])


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings, rates = results["settings"], results["samples_per_second"]
    columns = sorted({one["workers"] for one in rates})
    ours_over = {(one["contender"], one["image"]): one for one in results["ours_over"]}
    rows = []
    for contender, image in dict.fromkeys((one["contender"], one["image"]) for one in rates):
        by_workers = {
            one["workers"]: str(_spread(one))
            for one in rates
            if (one["contender"], one["image"]) == (contender, image)
        }
        over = ours_over.get((contender, image))
        rows.append(
            [
                f"{TITLES[contender]}, {image}",
                *(by_workers.get(workers, "") for workers in columns),
                str(_spread(over)) if over else "",
            ]
        )
    lines = [
        f"Samples/s by the number of workers, batches of {settings['batch']}, {settings['rows']} "
        f"crops, {settings['rounds']} rounds; median (least to most). "
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores.",
        "",
        markdown_table(
            ["", *(f"{workers} workers" for workers in columns), "our best over its best"], rows
        ),
    ]
    lines += [f"\nLeft out: {TITLES[name]}: {why}." for name, why in results["skipped"].items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_peers", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    parser.add_argument("--seconds", type=float, help="seconds of one measurement (default 5)")
    parser.add_argument(
        "--plot", type=Path, help="default docs/how/throughput.png; --quick draws none"
    )
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds", "seconds"))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_peers", results)
    plot = args.plot or (None if args.quick else PLOT)
    if plot is not None and find_spec("matplotlib") is None:
        print("No plot: matplotlib is not installed.")
    elif plot is not None:
        from benchmarks.throughput_plot import draw  # noqa: PLC0415

        draw(results, plot)
        print(plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
