"""Options of the stream."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from refit_shard.loaders.items.options import RenderOptions
from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.loaders.stream.split import Split
from refit_shard.loaders.stream.transform import BatchTransform
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, local_path
from refit_shard.shards_spec.values import as_float, flag, hold, one_of, whole

logger = logging.getLogger(__name__)

RATIO_TOLERANCE = 1e-6
_ROUNDED = 0.01 + 1e-9  # largest relative deviation of a sum from 1 or 100
_MAX_RATIO = 1e9  # far above 100, so that wrong percentages get the error about their sum
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kKMGTP]?)B?", re.ASCII)
# Options that are whole numbers, with their bounds.
_WHOLE = (
    ("batch_size", 1, 1 << 20),
    ("num_workers", 0, 1024),
    ("prefetch", 1, 1024),
    ("seed", 0, 2**63 - 1),
    ("window", 1, 2**31),
    ("epoch_samples", 1, 2**50),
    ("world_size", 1, 1 << 20),
    ("rank", 0, 1 << 20),
)
_OPTIONAL = {"window", "epoch_samples", "world_size", "rank"}
# Window of a source whose shards are downloaded into the cache.
DEFAULT_WINDOW = 16
REFIT_POLICY = AugmentationPolicy()
DEFAULT_OCCLUDERS = "data/dataset_extras/occluders.arrow"


@dataclass(frozen=True, kw_only=True, repr=False)
class StreamOptions(RenderOptions):
    """How a stream is mixed, augmented and delivered. Its repr shows the options that differ from
    the defaults.

    Args:
        image: Type of the images; see :class:`refit_shard.RenderOptions`.
        res: Side of an image, pixels.
        compat: ``"refit"`` for keypoints truncated to whole pixels as in ReFit.
        batch_size: Number of samples in a batch of one rank.
        seed: Seed of all random choices: rows, augmentation, and the numbers for ``transform``.
        epoch_samples: Number of samples in an epoch, all ranks together; None for the number of
            rows of the largest source.
        num_workers: Number of threads that draw batches (other threads read them); 0 to make
            batches in the calling thread.
        prefetch: Number of batches in flight for each worker: one is drawn, the others are being
            read or are ready. Use more than 2 if reads take tens of ms.
        rank: Number of this process among ``world_size``; None for that of torch.distributed, else
            of the environment, else 0.
        world_size: Number of ranks; None as for ``rank``, else 1.
        mixing: ``"exact"`` for exact ratios in every prefix of the stream, ``"iid"`` to draw the
            source of each sample independently.
        augment: False for no augmentation, as in evaluation; ``transform`` is still called.
        policy: Distributions of the augmentation's parameters.
        transform: Your own function that changes each batch, or None.
        occluders: Path of an Arrow file of cut-outs. None for the default path, without occlusion
            if there is no file; ``"required"`` for the default path, with an error instead.
        on_error: ``"raise"`` an error for a damaged sample, or ``"replace"`` the sample by the next
            draw of its source.
        drop_last: True to leave out the last, smaller batch of an epoch. None for True, or with
            ReFit's trainer for False.
        where: Maps sources to filters, pyarrow expressions over the index's columns. Rows for which
            the filter is not true are left out.
        split: ``("train", 0.9)`` for nine tenths of the sequences of each source, ``("val", 0.9)``
            for the others. An optional third entry is the seed of the split, by default 0.
        window: Number of shards of a source whose rows are mixed at a time; None for all of them,
            or for 16 if the shards are downloaded into the cache.
        cache: Local folder for the shards of sources at a URL.
        cache_bytes: The most bytes of shards in the cache, such as ``"200GB"``.

    Raises:
        UsageError: a value is outside its bounds.
    """

    batch_size: int = 64
    seed: int = 0
    epoch_samples: int | None = None
    num_workers: int = 8
    prefetch: int = 2
    rank: int | None = None
    world_size: int | None = None
    mixing: Literal["exact", "iid"] = "exact"
    augment: bool = True
    policy: AugmentationPolicy = REFIT_POLICY
    transform: BatchTransform | None = None
    occluders: AnyPath | None = None
    on_error: Literal["raise", "replace"] = "raise"
    drop_last: bool | None = None
    where: Mapping[str, Any] | None = None
    split: tuple[str, float] | tuple[str, float, int] | None = None
    window: int | None = None
    cache: AnyPath | None = None
    cache_bytes: int | str | None = None

    @property
    def batches_in_flight(self) -> int:
        """The most batches of a rank that are being made, ready or in use at a time."""
        return self.num_workers * self.prefetch + 2

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("mixing", self.mixing, ("exact", "iid"))
        one_of("on_error", self.on_error, ("raise", "replace"))
        for name, low, high in _WHOLE:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                hold(self, **{name: whole(name, value, low, high)})
        hold(self, augment=flag("augment", self.augment))
        if self.drop_last is not None:
            hold(self, drop_last=flag("drop_last", self.drop_last))
        if not isinstance(self.policy, AugmentationPolicy):
            raise UsageError(f"policy: must be an AugmentationPolicy, got {self.policy!r}")
        if self.transform is not None and not isinstance(self.transform, BatchTransform):
            raise UsageError(
                "transform: must be a BatchTransform, which names the function for saved states: "
                f"BatchTransform(name='my-transform-1', function=…), got {self.transform!r:.80}"
            )
        if self.split is not None:
            hold(self, split=tuple(Split.parse(self.split)))
        if self.where is not None and not isinstance(self.where, Mapping):
            raise UsageError(f"where: must be a mapping from source to filter, got {self.where!r}")
        self._check_places()
        if (self.rank is None) != (self.world_size is None):
            raise UsageError("rank and world_size must be given together")
        if self.rank is not None and self.world_size is not None:
            whole("rank", self.rank, 0, self.world_size - 1)

    def _check_places(self) -> None:
        if (self.cache is None) != (self.cache_bytes is None):
            raise UsageError("cache and cache_bytes must be given together")
        if self.cache is not None:
            hold(self, cache=str(local_path(self.cache, "cache")))
        if self.cache_bytes is not None:
            parse_bytes("cache_bytes", self.cache_bytes)
        if self.occluders is not None and self.occluders != "required":
            hold(self, occluders=str(local_path(self.occluders, "occluders")))


def parse_bytes(name: str, value: object) -> int:
    """A number of bytes from a number or a text such as ``"200GB"`` (decimal units, kB to PB).

    Raises:
        UsageError: the value is not a number of bytes.
    """
    found = _BYTES.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        size = float(int(float(found[1]) * 1000 ** "BKMGTP".index(found[2].upper() or "B")))
    else:
        size = as_float(value)
    if not 1 <= size < 2**63 or not size.is_integer():
        raise UsageError(f"{name}: must be a number of bytes such as '200GB', got {value!r:.80}")
    return int(size)


def check_ratios(names: Sequence[str], ratios: Sequence[Any]) -> list[float]:
    """The ratios as floats that are not negative and sum to 1.

    Whole numbers such as 3 and 1, and numbers whose sum is within 1 % of 1 or of 100, are divided
    by their sum; the result is logged.

    Raises:
        UsageError: a ratio or the sum is wrong; the message states it.
    """
    if not names:
        raise UsageError("sources: none given")
    numbers = [as_float(ratio) for ratio in ratios]
    for name, ratio, number in zip(names, ratios, numbers, strict=True):
        if not 0 <= number <= _MAX_RATIO:
            raise UsageError(
                f"{name}: the ratio must be a number of at least 0, all ratios together 1, got "
                f"{ratio!r:.60}"
            )
    total = math.fsum(numbers)
    if abs(total - 1.0) <= RATIO_TOLERANCE:
        return numbers
    counts = total > 0 and all(number.is_integer() for number in numbers)
    if not counts and all(abs(total - wanted) > _ROUNDED * wanted for wanted in (1.0, 100.0)):
        raise UsageError(
            f"the ratios must sum to 1, they sum to {total:.9g}: {numbers!r:.200}; a sum within "
            "1 % of 1 or of 100 is accepted too, as are whole numbers"
        )
    shares = [number / total for number in numbers]
    said = ", ".join(f"{name} {share:.4g}" for name, share in zip(names, shares, strict=True))
    logger.info("the ratios sum to %.9g and are divided by their sum: %s", total, said)
    return shares
