"""One rank of a training run: ``python -m tests.loaders.rank SHARDS OUT END [SECONDS]``.

Up to position END of the stream it takes a batch, notes its items in OUT/RANK.jsonl, and waits
for all ranks as an exchange of gradients does, at most SECONDS; then rank 0 keeps the state. Given
again it goes on from there. Its process id is in OUT/RANK.pid.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from refit_shard import StreamingLoader, StreamOptions
from tests.loaders.streams import MIX, Batch, items, names

GLOBAL_BATCH = 12


def ranks_loader(shards: str) -> StreamingLoader:
    """The loader of this rank of torch.distributed; ``shards`` is a folder or URL."""
    mix = {name: (f"{shards}/{name}", ratio) for name, ratio in MIX.items()}
    batch = GLOBAL_BATCH // dist.get_world_size()
    return StreamingLoader(mix, StreamOptions(batch_size=batch, res=32, num_workers=1))


def train(loader: StreamingLoader, end: int, on_batch: Callable[[Batch], None]) -> None:
    """Epoch after epoch up to a position, all ranks in step."""
    while loader.state_dict()["position"] < end:
        for batch in loader:
            on_batch(batch)
            dist.all_reduce(torch.ones(1))
            if dist.get_rank() == 0:
                keep(loader)
            if loader.state_dict()["position"] >= end:
                break


def keep(loader: StreamingLoader) -> None:
    """Replace OUT/state.json."""
    out = Path(sys.argv[2])
    (out / "state.tmp").write_text(json.dumps(loader.state_dict()))
    os.replace(out / "state.tmp", out / "state.json")


def main() -> None:
    """As above."""
    shards, out, end, *seconds = sys.argv[1:]
    dist.init_process_group("gloo", timeout=timedelta(seconds=float(*seconds or ["60"])))
    rank, world_size = dist.get_rank(), dist.get_world_size()
    (Path(out) / f"{rank}.pid").write_text(str(os.getpid()))
    loader = ranks_loader(shards)
    state = Path(out) / "state.json"
    if state.exists():
        loader.load_state_dict(json.loads(state.read_text()))
    dist.barrier()  # all have read it before one writes it
    with (Path(out) / f"{rank}.jsonl").open("a") as log:

        def note(batch: Batch) -> None:
            position = loader.state_dict()["position"]
            content = [position, world_size, items(batch), names(batch)]
            log.write(json.dumps(content) + "\n")
            log.flush()

        train(loader, int(end), note)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
