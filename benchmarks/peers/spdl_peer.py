"""SPDL: crops in one file, read and transformed by the threads of one pipeline.

SPDL has no storage format. JPEGs are stored one after another in a file, their labels in a
memory-mapped numpy table, because this holds the interpreter's lock least. (One ``.npz`` per crop
with SPDL's ``load_npz``, which its documentation advises for arrays, took 242 µs of processor time,
this takes 20: medians of 21 rounds over 256 crops of 40 kB, in one thread.)
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spdl.pipeline import PipelineBuilder
from torch.utils.data import default_collate

from benchmarks.peers.records import (
    ARRAYS,
    FLOATS,
    INTS,
    LoaderOptions,
    Record,
    one_thread,
    records,
)

_ROW = np.dtype(
    [
        *((name, *kind) for name, kind in ARRAYS.items()),
        *((name, "int64") for name in (*INTS, "begin", "length")),
        *((name, "float64") for name in FLOATS),
        ("imgname", "S256"),
    ],
    align=True,
)
_JPEGS, _LABELS = "crops.jpegs", "labels.npy"
_BATCHES_AHEAD = 4


def write(shards: str, folder: Path) -> None:
    """Write the crops."""
    rows = []
    with (folder / _JPEGS).open("wb") as file:
        for record in records(shards):
            row = np.zeros((), _ROW)
            row["begin"], row["length"] = file.tell(), len(record["jpeg"])
            file.write(record.pop("jpeg"))
            record["imgname"] = record["imgname"].encode()
            for name, value in record.items():
                row[name] = value
            rows.append(row)
    np.save(folder / _LABELS, np.array(rows))


def _read(descriptor: int, row: NDArray[np.void]) -> Record:
    record: Record = {name: row[name] for name in ARRAYS}
    for name in (*INTS, *FLOATS):
        record[name] = row[name].item()
    record["imgname"] = row["imgname"].item().decode()
    record["jpeg"] = os.pread(descriptor, int(row["length"]), int(row["begin"]))
    return record


def _shuffled(rows: int) -> Iterator[int]:
    """Numbers of crops without end: pass after pass, each in another order."""
    while True:
        yield from random.sample(range(rows), rows)


def load(
    folder: Path, transform: Callable[[Record], dict[str, Any]], options: LoaderOptions
) -> Iterable[Any]:
    """Batches of one long epoch, each made by one thread.

    This gives so few tasks per second that the pipeline's event loop hardly holds the interpreter's
    lock.
    """
    one_thread(0)
    labels = np.load(folder / _LABELS, mmap_mode="r")
    with (folder / _JPEGS).open("rb") as file:

        def make(chosen: list[int]) -> Any:
            return default_collate([transform(_read(file.fileno(), labels[at])) for at in chosen])

        pipeline = (
            PipelineBuilder()
            .add_source(islice(_shuffled(len(labels)), options.samples))
            .aggregate(options.batch, drop_last=True)
            .pipe(make, concurrency=options.workers)
            .add_sink(_BATCHES_AHEAD * options.workers)
            .build(num_threads=options.workers)
        )
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()
