"""Simulates what a stream would download on one node, from the manifests alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refit_shard.loaders.stream.mix import make_mixer
from refit_shard.loaders.stream.needs import Ints, Needs
from refit_shard.loaders.stream.options import DEFAULT_WINDOW, StreamOptions
from refit_shard.loaders.stream.source import open_sources
from refit_shard.shards_spec.storage.paths import AnyPath

EPOCHS = 2


class _Disk:
    """A cache that evicts the shards whose next use is latest; no other policy downloads less."""

    def __init__(self, needs: Needs, limit: int) -> None:
        self._needs = needs
        self._limit = limit
        self._held = np.zeros(len(needs.sizes), bool)
        self.downloaded = self.reads = self.hits = 0

    def read(self, wanted: Ints, position: int) -> None:
        """Download the ``wanted`` shards before ``position`` unless they are in the cache."""
        missing = wanted[~self._held[wanted]]
        self.reads += len(wanted)
        self.hits += len(wanted) - len(missing)
        if not len(missing):
            return
        self.downloaded += int(self._needs.sizes[missing].sum())
        self._held[missing] = True
        over = int(self._needs.sizes[self._held].sum()) - self._limit
        if over > 0:
            idle = self._held.copy()
            idle[wanted] = False
            choice = np.flatnonzero(idle)
            choice = choice[np.argsort(-self._needs.following(position)[choice], kind="stable")]
            enough = np.searchsorted(np.cumsum(self._needs.sizes[choice]), over) + 1
            self._held[choice[:enough]] = False


def _epochs(needs: Needs, limit: int, samples: int, step: int, share: int) -> list[dict[str, Any]]:
    """For each epoch the bytes that are downloaded and the share of reads that hit the cache.

    ``samples``: number in an epoch, all ranks together. ``step``: number in a step, of which the
    first ``share`` are this node's.
    """
    disk = _Disk(needs, limit)
    epochs = []
    for epoch in range(EPOCHS):
        before = disk.downloaded, disk.reads, disk.hits
        for begin in range(epoch * samples, (epoch + 1) * samples, step):
            disk.read(needs.of(begin, begin + share), begin)
        bytes_read, reads, hits = np.subtract((disk.downloaded, disk.reads, disk.hits), before)
        epochs.append({"bytes": int(bytes_read), "hit_rate": float(hits / max(1, reads))})
    return epochs


def epoch_draws(
    rows: Sequence[int], ratios: Sequence[float], options: StreamOptions, step: int
) -> tuple[int, list[int]]:
    """Number of samples in the stream's first epoch, and how many of them come from each source.

    ``rows``, ``ratios``: of each source. ``step``: samples of all ranks in a step; only whole steps
    count.
    """
    samples = max(1, (options.epoch_samples or max(rows)) // step) * step
    mixer = make_mixer(options.mixing, ratios, options.seed)
    return samples, mixer.counts(samples).tolist()


def simulate(
    sources: Mapping[str, tuple[AnyPath, float]],
    options: StreamOptions,
    *,
    world_size: int,
    node_ranks: int,
    limit: int,
) -> dict[str, Any]:
    """Simulate two epochs on a node with ``node_ranks`` of ``world_size`` ranks.

    They share a cache of ``limit`` bytes. ``epochs`` is empty if the loader would refuse a cache of
    that size (``fits`` is false).

    Raises:
        UsageError: the sources or their ratios are wrong.
    """
    options = replace(options, window=options.window or DEFAULT_WINDOW)
    opened = open_sources(sources, options, sequential=False, cache=None)
    mixer = make_mixer(options.mixing, [source.ratio for source in opened], options.seed)
    needs = Needs(opened, mixer, range(len(opened)), 0)
    step, share = options.batch_size * world_size, options.batch_size * node_ranks
    rows, ratios = [one.rows for one in opened], [one.ratio for one in opened]
    samples, drawn = epoch_draws(rows, ratios, options, step)
    first = [needs.of(0, share)]  # with workers, all batches that they begin with
    for batch in range(1, options.num_workers * options.prefetch):
        first.append(needs.of(batch * step, batch * step + share))
    needed = needs.working_bytes(step * options.batches_in_flight)
    return {
        "world_size": world_size,
        "node_ranks": node_ranks,
        "samples_per_epoch": samples,
        "cache_bytes": limit,
        "needed_bytes": needed,
        "fits": needed <= limit,
        "first_batch_bytes": int(needs.sizes[np.unique(np.concatenate(first))].sum()),
        "epochs": _epochs(needs, limit, samples, step, share) if needed <= limit else [],
        "sources": [
            {
                "name": source.name,
                "ratio": source.ratio,
                "rows": source.rows,
                "shards": len(source.shards.manifest.shards),
                "bytes": sum(
                    one.tar_bytes + one.arrow_bytes for one in source.shards.manifest.shards
                ),
                "window": source.window,
                "repeats": count / max(1, source.rows),
            }
            for source, count in zip(opened, drawn, strict=True)
        ],
    }
