"""Measures the cost of each part of the augmentation policy.

    python -m benchmarks.bench_policy

The stream's own function makes batches on one core with one part of the policy applied to every
sample, in turns with ReFit's policy alone, all in one fresh process. The cost of a part is the
difference to ReFit's policy in the same round, in microseconds per sample.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.build_cases import process
from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import machine, markdown_table
from benchmarks.load_cases import Amounts, options, pin
from refit_shard import AugmentationPolicy, StreamingLoader
from refit_shard.loaders.measure.repeats import interleaved, spread

PACKAGES = ("numpy", "torch")
REFITS = "ReFit's policy"
PARTS: dict[str, dict[str, Any]] = {
    REFITS: {},
    "upper_body": {"upper_body": 1.0},
    "lower_body": {"lower_body": 1.0},
    "downscale": {"downscale": 1.0},
    "blur": {"blur": 1.0},
    "gray": {"gray": 1.0},
    "tone": {"tone": 1.0},
    "one in ten of each": dict.fromkeys(
        ("upper_body", "lower_body", "downscale", "blur", "gray", "tone"), 0.1
    ),
}


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``seconds``: least duration of a measurement after ``warm_up`` batches."""

    batch: int = 64
    warm_up: int = 20
    seconds: float = 4.0
    rounds: int = 7


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    batch=4,
    warm_up=1,
    seconds=0.0,
    rounds=1,
)


def microseconds(part: str, crops: Crops, amounts: Amounts) -> float:
    """Time per sample on one core, in the loop's own thread."""
    pin(1)
    policy = AugmentationPolicy(**PARTS[part])
    asked = replace(options("uint8", crops, amounts.batch, 0), policy=policy)
    batches = iter(StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, asked))
    for _ in islice(batches, amounts.warm_up):
        pass
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < amounts.seconds:
        next(batches)
        count += amounts.batch
    return (time.perf_counter() - begin) / count * 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and store the results."""
    parser = command_line("bench_policy", __doc__)
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    crops = cached_crops(Path(args.cache), settings)
    amounts = Amounts(batch=settings.batch, warm_up=settings.warm_up, seconds=settings.seconds)
    with process() as pool:

        def measure(part: str) -> float:
            return pool.submit(microseconds, part, crops, amounts).result()

        found = interleaved({part: partial(measure, part) for part in PARTS}, settings.rounds)
    times = {part: spread(values) for part, values in found.items()}
    more = {
        part: spread([one - base for one, base in zip(values, found[REFITS], strict=True)])
        for part, values in found.items()
        if part != REFITS
    }
    rows = [[REFITS, f"{times[REFITS].median:.0f}", ""]]
    rows += [[part, f"{times[part].median:.0f}", f"{more[part].median:+.0f}"] for part in more]
    print(markdown_table(["on for every sample", "µs a sample", "more"], rows))
    results = {
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "microseconds": {part: asdict(one) for part, one in times.items()},
        "more": {part: asdict(one) for part, one in more.items()},
    }
    keep(args, "bench_policy", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
