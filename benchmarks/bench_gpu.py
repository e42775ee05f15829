"""Measures if the stream keeps a GPU busy that trains HRNet-W48: forward and backward in bfloat16.

    pip install -e '.[train]'
    python -m benchmarks.bench_gpu

The model is that of the training example (``examples/hrnet_model.py``) with random weights. The
loss is the mean of its squared outputs, and there is no optimizer, so a real training step is
slower and needs fewer images/s from the loader. Measured in images/s, by batch size, in turns:

- *on the device*: every step uses the same batch of normalised images, already on the device;
- *from the loader*: uint8 batches of :class:`refit_shard.StreamingLoader`, with ReFit's
  augmentation and occluders, finalized on the device by :func:`refit_shard.finalize`. *Waiting* is
  the share of time in which the loop waits for the next batch. The loop synchronizes after every
  step, so the device is idle in that time.

Without a GPU nothing is measured; ``--device cpu --quick`` runs a small model on the CPU.
"""

import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.harness import cores, machine, markdown_table
from examples.hrnet_model import HumanModel
from refit_shard import StreamingLoader, StreamOptions, finalize
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread
from refit_shard.shards_spec.errors import RefitShardError

PACKAGES = ("numpy", "opencv-python-headless", "simplejpeg", "torch", "timm")
MOST_WAITING = 0.02
_EPOCH_SAMPLES = 1 << 40

Batch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run. ``steps``: steps of one measurement, after ``warm_up`` unmeasured ones."""

    model: str = "hrnet_w48"
    batches: tuple[int, ...] = (64, 128, 256)
    workers: int = 2
    warm_up: int = 10
    steps: int = 50
    rounds: int = 3


QUICK = Settings(
    frames=4,
    passes=4,
    samples_per_shard=16,
    occluders=4,
    model="hrnet_w18_small",
    batches=(2,),
    workers=1,
    warm_up=1,
    steps=1,
    rounds=1,
)


class Steps:
    """Runs forward and backward of the model on a device, and synchronizes after each step."""

    def __init__(self, model: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self._model = HumanModel(model)
        self._model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(self, images: Tensor) -> None:
        """Run one step on ``images`` (B, 3, H, W), normalised and on the device."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            predicted = self._model(images.contiguous(memory_format=torch.channels_last))
        loss = torch.stack([part.float().square().mean() for part in predicted]).sum()
        self._model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(
        self, batches: Iterator[Batch], ready: Callable[[Batch], Tensor], settings: Settings
    ) -> tuple[float, float]:
        """Images/s, and the share of time in which the loop waits for the next batch."""
        for _ in range(settings.warm_up):
            self.step(ready(next(batches)))
        images, waited = 0, 0.0
        begin = time.perf_counter()
        for _ in range(settings.steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            made = ready(batch)
            del batch  # its memory is the loader's again
            self.step(made)
            images += len(made)
        elapsed = time.perf_counter() - begin
        return images / elapsed, waited / elapsed


def measure_batch(steps: Steps, crops: Crops, batch: int, settings: Settings) -> dict[str, Any]:
    """Measure both cases at one batch size, in turns."""
    held = {"img": torch.randn(batch, 3, 256, 256, device=steps.device)}
    waiting: list[float] = []

    def on_device() -> float:
        return steps.rate(repeat(held), itemgetter("img"), settings)[0]

    def from_loader() -> float:
        options = StreamOptions(
            image="uint8",
            batch_size=batch,
            num_workers=settings.workers,
            epoch_samples=_EPOCH_SAMPLES,
            occluders=str(crops.occluders),
        )
        loader = StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, options)
        with closing(cast(Generator[Batch, None, None], iter(loader))) as batches:
            rate, waited = steps.rate(
                batches, lambda one: cast(Tensor, finalize(one, steps.device)["img"]), settings
            )
        waiting.append(waited)
        return rate

    measured = interleaved({"device": on_device, "loader": from_loader}, settings.rounds)
    return {
        "batch": batch,
        "images_per_second": {name: asdict(spread(rates)) for name, rates in measured.items()},
        "ratio": asdict(ratios(measured["loader"], measured["device"])),
        "waiting": asdict(spread(waiting[1:])),
    }


def run(settings: Settings, cache: Path, device: torch.device) -> dict[str, Any]:
    """Run all measurements; batch sizes that exceed the device's memory are left out."""
    crops = cached_crops(cache, settings)
    steps = Steps(settings.model, device)
    measured, left_out = [], []
    for batch in settings.batches:
        try:
            measured.append(measure_batch(steps, crops, batch, settings))
        except torch.OutOfMemoryError:
            left_out.append(batch)
    return {
        "settings": asdict(settings),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "batches": measured,
        "out_of_memory": left_out,
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings = results["settings"]
    rows = [
        [
            str(one["batch"]),
            *(str(Spread(**one["images_per_second"][name])) for name in ("device", "loader")),
            str(Spread(**one["ratio"])),
            str(Spread(**one["waiting"])),
        ]
        for one in results["batches"]
    ]
    columns = ["batch", "on the device", "from the loader", "ratio", "waiting (share of time)"]
    lines = [
        f"{settings['model']} on {results['device']}, {settings['workers']} workers; images/s over "
        f"{settings['steps']} steps, {settings['rounds']} rounds; median (least to most). "
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores.",
        "",
        markdown_table(columns, rows),
        "",
        f"Waiting should be at most {MOST_WAITING:g} of the time.",
    ]
    lines += [f"Left out: batch {one}, out of memory." for one in results["out_of_memory"]]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_gpu", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every case (default 3)")
    parser.add_argument("--workers", type=int, help="of the loader (default one a core)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(workers=len(cores())), ("rounds", "workers"))
    results: dict[str, Any] = {"benchmark": "bench_gpu", "machine": machine(PACKAGES)}
    if args.device == "cuda" and not torch.cuda.is_available():
        results["skipped"] = "no GPU that torch can use"
        print(f"bench_gpu: not measured: {results['skipped']}")
    else:
        try:
            results |= run(settings, args.cache, torch.device(args.device))
        except RefitShardError as error:
            print(f"bench_gpu: {error}", file=sys.stderr)
            return error.exit_code
        print(report(results))
    keep(args, "bench_gpu", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
