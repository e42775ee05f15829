"""SPDL: an uncompressed ``.npz`` a crop, read and transformed by the threads of one pipeline.

SPDL brings no format of its own; of the usual ones its documentation advises this one, with its own
reader, which lets go of the interpreter's lock.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from spdl.io import load_npz
from spdl.pipeline import PipelineBuilder
from torch.utils.data import default_collate

from benchmarks.peers.records import FLOATS, INTS, LoaderOptions, Record, one_thread, records

_BYTES = ("jpeg", "imgname")
_BATCHES_AHEAD = 4


def write(shards: str, folder: Path) -> None:
    """Write the crops; bytes and text as arrays of bytes, since nothing may be pickled."""
    for record in records(shards):
        record["imgname"] = record["imgname"].encode()
        arrays = {name: np.frombuffer(record.pop(name), np.uint8) for name in _BYTES}
        np.savez(folder / f"{record['source_row']:08d}.npz", **arrays, **record)


def _read(path: str) -> Record:
    with open(path, "rb") as file:
        arrays = load_npz(file.read())
    record: Record = {name: arrays[name] for name in arrays}
    for name in (*INTS, *FLOATS):
        record[name] = record[name].item()
    return record | {"jpeg": record["jpeg"].tobytes(), "imgname": bytes(record["imgname"]).decode()}


def _shuffled(paths: list[str]) -> Iterator[str]:
    """Pass after pass, each in another order."""
    while True:
        yield from random.sample(paths, len(paths))


def load(
    folder: Path, transform: Callable[[Record], dict[str, Any]], options: LoaderOptions
) -> Iterable[Any]:
    """Batches of one long epoch, each made by one thread: so few tasks a second that the pipeline's
    event loop takes next to nothing of the interpreter's lock.
    """
    one_thread(0)
    paths = sorted(str(path) for path in folder.glob("*.npz"))

    def make(chosen: list[str]) -> Any:
        return default_collate([transform(_read(path)) for path in chosen])

    pipeline = (
        PipelineBuilder()
        .add_source(islice(_shuffled(paths), options.samples))
        .aggregate(options.batch, drop_last=True)
        .pipe(make, concurrency=options.workers)
        .add_sink(_BATCHES_AHEAD * options.workers)
        .build(num_threads=options.workers)
    )
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
