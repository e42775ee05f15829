"""litData: chunks of records, with arrays and numbers written by litData's serialisers."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset, optimize

from benchmarks.peers.records import LoaderOptions, Record, record_of
from refit_shard import ShardSet

_CHUNK = "64MB"


def _read(shards: str, index: int) -> Record:
    return record_of(ShardSet.open(shards)[index])


def write(shards: str, folder: Path) -> None:
    """Write the crops."""
    optimize(
        fn=partial(_read, shards),
        inputs=list(range(len(ShardSet.open(shards)))),
        output_dir=str(folder),
        chunk_bytes=_CHUNK,
        num_workers=1,
        verbose=False,
    )


def load(
    folder: Path, transform: Callable[[Record], dict[str, Any]], options: LoaderOptions
) -> Iterable[Any]:
    """Batches of one long epoch in which samples repeat."""
    dataset = StreamingDataset(str(folder), shuffle=True, transform=transform)
    repeats = max(1.0, options.samples / len(dataset))
    dataset = StreamingDataset(str(folder), shuffle=True, transform=transform, subsample=repeats)
    loader: Iterable[Any] = StreamingDataLoader(
        dataset, batch_size=options.batch, drop_last=True, **options.torch
    )
    return loader
