"""Streams of the shared shards, and what can be said of their batches."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refit_shard import Augmentation, Sample, ShardSet, StreamingLoader, StreamOptions
from refit_shard.loaders.items.draws import select, single
from refit_shard.loaders.items.policy import draw
from refit_shard.loaders.stream.mix import make_mixer
from refit_shard.loaders.stream.order import Passes

Batch = dict[str, Any]
Name = tuple[str, int]

MIX = {"bedlam": 0.6, "agora": 0.1, "coco": 0.3}


def sources(shards: Path, mix: dict[str, float] | None = None) -> dict[str, tuple[str, float]]:
    """Data sets with their ratios."""
    return {name: (str(shards / name), ratio) for name, ratio in (mix or MIX).items()}


def stream(shards: Path, mix: dict[str, float] | None = None, **changed: Any) -> StreamingLoader:
    """A small, quick loader: 32 px, 12 samples in all, no workers, unless said otherwise."""
    options: dict[str, Any] = {
        "batch_size": 12,
        "res": 32,
        "num_workers": 0,
        "rank": 0,
        "world_size": 1,
        **changed,
    }
    return StreamingLoader(sources(shards, mix), StreamOptions(**options))


def items(batch: Batch) -> list[str]:
    """A hash of each item of a batch: every key, dtype and byte."""
    found = []
    for index in range(len(batch["imgname"])):
        digest = hashlib.sha256()
        for key in sorted(batch):
            value = batch[key][index]
            digest.update(f"{key} ".encode())
            if isinstance(value, torch.Tensor):
                digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
                if value.dtype == torch.bfloat16:  # numpy has none
                    value = value.view(torch.int16)
                digest.update(np.ascontiguousarray(value.numpy()).tobytes())
            else:
                digest.update(value.encode())
        found.append(digest.hexdigest())
    return found


def all_items(batches: Iterable[Batch]) -> list[str]:
    """Hashes of the items of all batches, in order."""
    return [item for batch in batches for item in items(batch)]


def names(batch: Batch) -> list[Name]:
    """(dataset, row) of each item."""
    return list(zip(batch["dataset_name"], batch["sample_index"].tolist(), strict=True))


def all_names(batches: Iterable[Batch]) -> list[Name]:
    """(dataset, row) of the items of all batches, in order."""
    return [name for batch in batches for name in names(batch)]


def draws_of(
    shards: Path, first: int, count: int, *, seed: int = 0, res: int = 32
) -> list[tuple[str, Sample, Augmentation]]:
    """What positions of the stream hold, one after the other, from the pure parts."""
    sets = {name: ShardSet.open(str(shards / name)) for name in MIX}
    which, numbers = make_mixer("exact", list(MIX.values()), seed).assign(first, count)
    drawn = draw(StreamOptions().policy, seed, first, count, objects=0, res=res)
    found = []
    for place, (source, number) in enumerate(zip(which.tolist(), numbers.tolist(), strict=True)):
        name = list(MIX)[source]
        row = int(Passes([len(sets[name])], seed, name).locate(np.array([number]))[0])
        found.append((name, sets[name][row], single(select(drawn, [place]))))
    return found


def check_passes(found: Iterable[Name], rows: dict[str, int]) -> None:
    """Each source's rows come as permutations, one after the other; the last may be cut short."""
    listed = list(found)
    for source, count in rows.items():
        mine = [row for name, row in listed if name == source]
        for begin in range(0, len(mine), count):
            part = mine[begin : begin + count]
            assert len(set(part)) == len(part), (source, begin)
            if len(part) == count:
                assert sorted(part) == list(range(count))
