"""Measures the loader's effect on a training loop: how long it waits, and how much slower it runs.

    python -m benchmarks.bench_loop

Stored crops and occluders are those of :mod:`benchmarks.crops`; batches of 64, ReFit's augmentation
and occluders, two workers on two cores. Each measurement runs in a fresh process after a warm-up,
in turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`):

- *next, ready*: median milliseconds of ``next(loader)`` when a batch is ready, because the loop
  sleeps longer between two calls than the workers need for a batch;
- *waits at 1,000/s*, *at 2,000/s*: the share of its time that a loop spends in ``next`` if it
  sleeps between two calls for as long as a GPU of that speed would compute;
- *slower at 1,000/s*: how much longer the work of a pure Python loop takes than without a loader;
  the work fills the time between two batches at this rate;
- *slower at 1,000/s, loader elsewhere*: the same loop while another process takes the batches:
  what sharing the cores and caches costs, without a shared interpreter.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_load import CORES
from benchmarks.build_cases import process
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import machine, markdown_table
from benchmarks.load_cases import options, pin
from benchmarks.peers.transform import Kind
from refit_shard import StreamingLoader
from refit_shard.loaders.measure.repeats import Spread, interleaved, spread

PACKAGES = ("numpy", "simplejpeg", "pyarrow", "torch")
_STEP = 1000  # additions between two readings of the clock


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``batches``: batches of one measurement; ``warm_up``: batches before it."""

    batch: int = 64
    workers: int = 2
    images: tuple[Kind, ...] = ("uint8", "normalized")
    warm_up: int = 30
    batches: int = 60
    rounds: int = 5


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    batch=4,
    images=("uint8",),
    warm_up=2,
    batches=3,
    rounds=1,
)


def _batches(crops: Crops, settings: Settings, image: Kind) -> Iterator[Any]:
    made = options(image, crops, settings.batch, settings.workers)
    batches = iter(StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, made))
    for _ in range(settings.warm_up):
        next(batches)
    return batches


def next_ready(crops: Crops, settings: Settings, image: Kind) -> float:
    """Median milliseconds of a ``next`` that finds a batch ready."""
    pin(CORES)
    batches = _batches(crops, settings, image)
    taken = []
    for _ in range(settings.batches):
        time.sleep(settings.batch / 500)
        begin = time.perf_counter()
        next(batches)
        taken.append(time.perf_counter() - begin)
    return 1e3 * median(taken)


def waits(rate: int, crops: Crops, settings: Settings, image: Kind) -> float:
    """The share of its time that a loop of ``rate`` images/s spends in ``next``."""
    pin(CORES)
    batches = _batches(crops, settings, image)
    waited = 0.0
    begin = time.perf_counter()
    for _ in range(settings.batches):
        time.sleep(settings.batch / rate)
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
    return waited / (time.perf_counter() - begin)


def _work(steps: int) -> float:
    """Seconds that this many steps of pure Python take."""
    begin = time.perf_counter()
    total = 0
    for _ in range(steps):
        for number in range(_STEP):
            total += number
    return time.perf_counter() - begin


def _alone(rate: int, settings: Settings) -> tuple[int, float]:
    """The steps that fill the time between two batches at this rate while nothing else runs, and
    the seconds that they take.
    """
    pin(CORES)
    between = settings.batch / rate
    steps = max(1, round(between / min(_work(50) / 50 for _ in range(10))))
    return steps, median(_work(steps) for _ in range(settings.batches))


def slower(rate: int, crops: Crops, settings: Settings, image: Kind) -> float:
    """The relative slowdown of a loop's own work while it receives ``rate`` samples/s."""
    steps, alone = _alone(rate, settings)
    batches = _batches(crops, settings, image)
    fed = []
    for _ in range(settings.batches):
        fed.append(_work(steps))
        next(batches)
    return median(fed) / alone - 1


def slower_beside(rate: int, crops: Crops, settings: Settings, image: Kind) -> float:
    """The relative slowdown of the same work while another process receives ``rate`` samples/s."""
    steps, alone = _alone(rate, settings)
    context = get_context("spawn")
    ready, stop = context.Event(), context.Event()
    other = context.Process(target=_take, args=(rate, crops, settings, image, ready, stop))
    other.start()
    try:
        if not ready.wait(120):
            raise TimeoutError("the process with the loader has taken no batch in two minutes")
        beside = median(_work(steps) for _ in range(settings.batches))
    finally:
        stop.set()
        other.join()
    return beside / alone - 1


def _take(
    rate: int, crops: Crops, settings: Settings, image: Kind, ready: Event, stop: Event
) -> None:
    """Take ``rate`` samples/s until told to stop; ``ready`` is set after the warm-up."""
    pin(CORES)
    batches = _batches(crops, settings, image)
    ready.set()
    due = time.perf_counter()
    while not stop.is_set():
        next(batches)
        due += settings.batch / rate
        time.sleep(max(0.0, due - time.perf_counter()))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measurement in a fresh process; ``most``: the largest value that meets the target."""

    title: str
    measure: Callable[[Crops, Settings, Kind], float]
    most: float | None = None


CASES = (
    Case(title="next, ready, ms", measure=next_ready, most=0.2),
    Case(title="waits at 1,000/s, share", measure=partial(waits, 1000), most=0.005),
    Case(title="waits at 2,000/s, share", measure=partial(waits, 2000), most=0.01),
    Case(title="slower at 1,000/s, share", measure=partial(slower, 1000), most=0.05),
    Case(title="slower at 1,000/s, loader elsewhere, share", measure=partial(slower_beside, 1000)),
)


def _fresh(case: Case, crops: Crops, settings: Settings, image: Kind) -> float:
    with process() as pool:
        return pool.submit(case.measure, crops, settings, image).result()


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    crops = cached_crops(cache, settings)
    work = {
        f"{image}: {case.title}": partial(_fresh, case, crops, settings, image)
        for case in CASES
        for image in settings.images
    }
    measured = interleaved(work, settings.rounds)
    return {
        "benchmark": "bench_loop",
        "machine": machine(PACKAGES),
        "settings": {**asdict(settings), "cores": CORES},
        "felt": {name: asdict(spread(values)) for name, values in measured.items()},
    }


def report(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    settings, felt = results["settings"], results["felt"]
    rows = [
        [
            case.title,
            *(str(Spread(**felt[f"{image}: {case.title}"])) for image in settings["images"]),
            "" if case.most is None else f"{case.most:g}",
        ]
        for case in CASES
    ]
    return "\n".join(
        [
            f"Batches of {settings['batch']}, {settings['workers']} workers, {settings['rounds']} "
            f"rounds; median (least to most). {results['machine']['cpu']}, {settings['cores']} "
            "cores.",
            "",
            markdown_table(["", *settings["images"], "at most"], rows),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_loop", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_loop", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
