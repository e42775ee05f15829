"""Measures one start of a loader in this fresh process, for :mod:`benchmarks.bench_startup`.

Prints JSON. The measurement begins before the first import of ``loaders``, so until then only small
modules of the standard library are imported.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any


def idle_memory() -> dict[str, Any]:
    """Memory of an idle interpreter that imported torch, bytes."""
    import torch  # noqa: F401, PLC0415

    return {"bytes": _memory()}


def _memory() -> int:
    from benchmarks.harness import descendants, memory_together  # noqa: PLC0415

    return memory_together([os.getpid(), *descendants(os.getpid())])


def start(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first batch, and memory of all processes over ``--batches`` more, bytes."""
    begin = time.perf_counter()
    from refit_shard import StreamingLoader, StreamOptions  # noqa: PLC0415

    imported = time.perf_counter()
    options = StreamOptions(
        image=args.image,
        batch_size=args.batch,
        num_workers=args.workers,
        occluders=args.occluders,
    )
    loader = StreamingLoader({"bedlam": (args.shards, 1.0)}, options)
    if args.step:
        loader.load_state_dict(_state_at(loader, args.step * args.batch))
    batches = iter(loader)
    next(batches)
    made = time.perf_counter()
    memory = []
    for number in range(args.batches):
        batch = next(batches)
        if number % max(1, args.batches // 10) == 0 or number == args.batches - 1:
            memory.append(_memory())
        del batch
    return {
        "import_seconds": imported - begin,
        "seconds": made - begin,
        "memory_bytes": memory,
        "samples": args.batches * args.batch,
    }


def _state_at(loader: Any, position: int) -> dict[str, Any]:
    """The state that a loader of one dataset saves at a position."""
    samples = len(loader) * loader.global_batch
    loader.set_epoch(position // samples)
    state: dict[str, Any] = loader.state_dict()
    return state | {"position": position, "draws": [position]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_batch", description=__doc__)
    parser.add_argument("--idle", action="store_true", help="only measure memory without a loader")
    parser.add_argument("--shards")
    parser.add_argument("--occluders")
    parser.add_argument("--image", default="uint8")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", type=int, default=0, help="resume from the state of this step")
    parser.add_argument(
        "--batches",
        type=int,
        default=0,
        help="batches after the first over which memory is measured",
    )
    args = parser.parse_args(argv)
    print(json.dumps(idle_memory() if args.idle else start(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
