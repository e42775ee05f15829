"""Making one batch from its positions: the work of a thread. It holds no state but caches."""

import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loaders.mix import Mixer, make_mixer
from loaders.occluders import Occluders
from loaders.options import DEFAULT_OCCLUDERS, StreamOptions, check_ratios
from loaders.policy import Draws, draw, neutral, select
from loaders.render import Batch, gather, make_images, make_labels
from loaders.source import Source
from shards_spec import Sample
from shards_spec.errors import RefitShardError, ShardError, UsageError

Ints = NDArray[np.int64]

logger = logging.getLogger(__name__)

_REPLACEMENTS = 100


def open_occluders(options: StreamOptions) -> Occluders | None:
    """The cut-outs that the options ask for, or None without occlusion.

    Raises:
        UsageError: they are required and not there.
    """
    if not options.augment or options.policy.occlude == 0:
        return None
    if options.occluders not in (None, "required"):
        return Occluders(str(options.occluders))
    try:
        return Occluders(DEFAULT_OCCLUDERS)
    except UsageError:
        if options.occluders == "required":
            raise
    logger.warning(
        "occlusion is off: no occluders at %s; make them with refit-shard import-occluders, "
        "or pass occluders=FILE",
        DEFAULT_OCCLUDERS,
    )
    return None


def open_sources(
    sources: Mapping[str, tuple[str, float]], options: StreamOptions, *, sequential: bool
) -> list[Source]:
    """The sources, checked against the ratios, the filters and the policy.

    Raises:
        UsageError: they do not fit.
    """
    check_ratios(list(sources), [ratio for _, ratio in sources.values()])
    unknown = [name for name in options.where if name not in sources]
    if unknown:
        raise UsageError(f"where: {unknown[0]!r} is not a source; sources: {', '.join(sources)}")
    opened = [
        Source(
            name,
            url,
            ratio,
            seed=options.seed,
            where=options.where.get(name),
            sequential=sequential,
        )
        for name, (url, ratio) in sources.items()
    ]
    if options.augment:
        for source in opened:
            options.policy.check_envelope(source.shards.manifest.envelope, source.name)
    return opened


class BatchMaker:
    """``make(begin, end)`` gives the batch of these positions; safe to call from many threads.

    ``sequential``: position n is row n of the npz, for evaluation.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[str, float]],
        options: StreamOptions,
        *,
        sequential: bool = False,
    ) -> None:
        self.options = options
        self.sources = open_sources(sources, options, sequential=sequential)
        self.mixer: Mixer = make_mixer(
            options.mixing, [source.ratio for source in self.sources], options.seed
        )
        self.occluders = open_occluders(options)
        self.extrinsics = all(source.shards.manifest.extrinsics for source in self.sources)
        self.replaced = 0
        self._lock = threading.Lock()

    @property
    def largest(self) -> int:
        """Rows of the largest source."""
        return max(source.rows for source in self.sources)

    @property
    def identity(self) -> list[Any]:
        """What a saved state must agree with."""
        return [source.identity for source in self.sources]

    def make(self, begin: int, end: int) -> tuple[Batch, Ints]:
        """The batch of positions begin … end - 1, and its samples by source."""
        which, numbers = self.mixer.assign(begin, end - begin)
        samples = self._samples(which, numbers)
        draws = self._draws(begin, end - begin)
        columns = gather(samples, extrinsics=self.extrinsics)
        images, replaced = self._images(samples, columns, draws, which, numbers)
        if replaced:
            columns = gather(samples, extrinsics=self.extrinsics)
        made = make_labels(self.options, columns, draws)
        batch: Batch = {"img": torch.from_numpy(images)}
        batch |= {name: torch.from_numpy(np.ascontiguousarray(made[name])) for name in made}
        batch["imgname"] = [sample["imgname"] for sample in samples]
        batch["dataset_name"] = [self.sources[one].name for one in which.tolist()]
        return batch, np.bincount(which, minlength=len(self.sources))

    def _samples(self, which: Ints, numbers: Ints) -> list[Sample]:
        found: list[Sample | None] = [None] * len(which)
        for index, source in enumerate(self.sources):
            places = np.flatnonzero(which == index)
            if len(places):
                for place, sample in zip(
                    places.tolist(), source.samples(numbers[places]), strict=True
                ):
                    found[place] = sample
        return [sample for sample in found if sample is not None]

    def _draws(self, begin: int, count: int) -> Draws:
        if not self.options.augment:
            return neutral(count)
        objects = 0 if self.occluders is None else len(self.occluders)
        return draw(
            self.options.policy,
            self.options.seed,
            begin,
            count,
            objects=objects,
            res=self.options.res,
        )

    def _images(
        self,
        samples: list[Sample],
        columns: Mapping[str, NDArray[Any]],
        draws: Draws,
        which: Ints,
        numbers: Ints,
    ) -> tuple[NDArray[Any], int]:
        """The images; bad samples raise, or are replaced in ``samples`` by their source's next."""
        bad: list[int] = []

        def on_bad(index: int, error: RefitShardError) -> None:
            where = self.sources[which[index]].describe(samples[index])
            if self.options.on_error == "raise":
                raise ShardError(f"{where}: {error}") from error
            logger.warning("replaced: %s: %s", where, error)
            bad.append(index)

        images = make_images(self.options, samples, columns, draws, self.occluders, on_bad)
        waiting, tries = bad, 0
        while waiting:
            tries += 1
            if tries > _REPLACEMENTS:
                raise ShardError(f"{_REPLACEMENTS} samples in a row are damaged; run verify")
            for index in waiting:
                number = numbers[index : index + 1] + tries
                samples[index] = self.sources[which[index]].samples(number)[0]
            waiting = self._again(samples, draws, images, waiting)
        with self._lock:
            self.replaced += len(bad)
        return images, len(bad)

    def _again(
        self, samples: list[Sample], draws: Draws, images: NDArray[Any], chosen: list[int]
    ) -> list[int]:
        """Make the images of the chosen places anew; returns those that failed again."""
        part = [samples[index] for index in chosen]
        bad: list[int] = []
        made = make_images(
            self.options,
            part,
            gather(part, extrinsics=False),
            select(draws, chosen),
            self.occluders,
            lambda index, _error: bad.append(chosen[index]),
        )
        images[chosen] = made
        return bad

    def stats(self, position: int) -> dict[str, Any]:
        """Passes of each source at a position of the stream, and replaced samples."""
        counts = self.mixer.counts(position).tolist()
        return {
            "passes": {
                source.name: count / max(1, source.rows)
                for source, count in zip(self.sources, counts, strict=True)
            },
            "replaced": self.replaced,
        }
