"""MosaicML's streaming: MDS shards with a typed column for each label."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from benchmarks.peers.records import ARRAYS, FLOATS, INTS, LoaderOptions, Record, records

_COLUMNS = {
    "jpeg": "bytes",
    "imgname": "str",
    **{
        name: f"ndarray:{dtype}:{','.join(map(str, shape))}"
        for name, (dtype, shape) in ARRAYS.items()
    },
    **dict.fromkeys(INTS, "int"),
    **dict.fromkeys(FLOATS, "float64"),
}


def write(shards: str, folder: Path) -> None:
    """Write the crops."""
    with MDSWriter(out=str(folder), columns=_COLUMNS) as out:
        for record in records(shards):
            out.write(record)


class Crops(StreamingDataset):
    """A dataset of stored records that are transformed into items."""

    def __init__(
        self, *, transform: Callable[[Record], dict[str, Any]], **arguments: object
    ) -> None:
        super().__init__(**arguments)
        self.transform = transform

    def __getitem__(self, at: Any) -> Any:
        return self.transform(super().__getitem__(at))


def load(
    folder: Path, transform: Callable[[Record], dict[str, Any]], options: LoaderOptions
) -> Iterable[Any]:
    """Batches of one long epoch in which samples repeat."""
    clean_stale_shared_memory()  # left by a run that was killed
    dataset = Crops(
        transform=transform,
        local=str(folder),
        batch_size=options.batch,
        epoch_size=options.samples,
        shuffle=True,
    )
    loader: Iterable[Any] = StreamingDataLoader(
        dataset, batch_size=options.batch, drop_last=True, **options.torch
    )
    return loader
