"""Options of the stream, checked at once."""

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
_ROUNDED = 0.01 + 1e-9  # how far a sum may be off 1 or 100, as a share of it
_MAX_RATIO = 1e9  # far beyond 1, so that percentages hear what they sum to
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kKMGTP]?)B?", re.ASCII)
# Whole numbers among the options with their bounds; the optional ones may be None.
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
# Shards of a source that are mixed at a time where they come from afar.
DEFAULT_WINDOW = 16
REFIT_POLICY = AugmentationPolicy()
DEFAULT_OCCLUDERS = "data/dataset_extras/occluders.arrow"


@dataclass(frozen=True, kw_only=True, repr=False)
class StreamOptions(RenderOptions):
    """How a stream is mixed, augmented and delivered. Printed, it shows what is not the default.

    Args:
        image: Kind of the images; see :class:`refit_shard.RenderOptions`.
        res: Side of an image, pixels.
        compat: ``"refit"`` for keypoints truncated to whole pixels, as ReFit's are.
        batch_size: Samples that a rank receives at a time.
        seed: Seed of all random draws: rows, augmentation, and the numbers for ``transform``.
        epoch_samples: Samples of all ranks in an epoch; None for the rows of the largest source.
        num_workers: Threads that draw batches, 0 for none; others read them.
        prefetch: Batches in flight for each worker: one is drawn, the others are read or ready;
            more than 2 helps if reads take tens of ms.
        rank: This process's rank; None for that of torch.distributed, else of the environment,
            else 0.
        world_size: Number of ranks; None as for ``rank``, else 1.
        mixing: ``"exact"`` ratios in every prefix of the stream, or ``"iid"`` draws.
        augment: False for no augmentation, as in evaluation; ``transform`` is still called.
        policy: Distributions of the augmentation's parameters.
        transform: A function of your own that changes each batch, or None.
        occluders: An Arrow file of cut-outs; None for the default file, or no occlusion if that
            does not exist; ``"required"`` for the default file, or an error.
        on_error: ``"raise"``, or ``"replace"`` a damaged sample by the next row of its source.
        drop_last: Leave out an epoch's last, smaller batch; None means True, but False with ReFit's
            trainer.
        where: For each source to be filtered, a pyarrow expression over the index's columns; rows
            that do not meet it are left out.
        split: ``("train", 0.9)``, or ``("val", 0.9)`` for the other tenth: whole sequences of each
            source, drawn by a seed of its own, the third entry, 0 if there is none.
        window: Shards of a source whose rows are mixed at a time; None for all of them, or for 16
            where they come into the cache.
        cache: A local folder for shards that are at a URL.
        cache_bytes: What the cache may hold, such as ``"200GB"``.

    Raises:
        UsageError: a value is out of its bounds.
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
        """How many batches a rank may be making, have ready or be using at a time."""
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
            raise UsageError("rank and world_size go together")
        if self.rank is not None and self.world_size is not None:
            whole("rank", self.rank, 0, self.world_size - 1)

    def _check_places(self) -> None:
        if (self.cache is None) != (self.cache_bytes is None):
            raise UsageError("cache and cache_bytes go together")
        if self.cache is not None:
            hold(self, cache=str(local_path(self.cache, "cache")))
        if self.cache_bytes is not None:
            parse_bytes("cache_bytes", self.cache_bytes)
        if self.occluders is not None and self.occluders != "required":
            hold(self, occluders=str(local_path(self.occluders, "occluders")))


def parse_bytes(name: str, value: object) -> int:
    """A number of bytes, as a number or as ``"200GB"`` (decimal units, kB to PB).

    Raises:
        UsageError: it is none.
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
    """The ratios as floats, none of them negative, which sum to 1.

    Whole numbers such as 3 and 1, and numbers whose sum is within 1 % of 1 or of 100, are made
    shares of their sum, which a line of the log shows.

    Raises:
        UsageError: with the number that is wrong.
    """
    if not names:
        raise UsageError("sources: none given")
    numbers = [as_float(ratio) for ratio in ratios]
    for name, ratio, number in zip(names, ratios, numbers, strict=True):
        if not 0 <= number <= _MAX_RATIO:
            raise UsageError(
                f"{name}: its ratio must be a number of at least 0, and 1 in all, got {ratio!r:.60}"
            )
    total = math.fsum(numbers)
    if abs(total - 1.0) <= RATIO_TOLERANCE:
        return numbers
    counts = total > 0 and all(number.is_integer() for number in numbers)
    if not counts and all(abs(total - wanted) > _ROUNDED * wanted for wanted in (1.0, 100.0)):
        raise UsageError(
            f"the ratios must sum to 1, they sum to {total:.9g}: {numbers!r:.200}; a sum within "
            "1 % of 1 or of 100 is taken too, as are whole numbers"
        )
    shares = [number / total for number in numbers]
    said = ", ".join(f"{name} {share:.4g}" for name, share in zip(names, shares, strict=True))
    logger.info("the ratios sum to %.9g and are taken as shares of that: %s", total, said)
    return shares
