"""Options of the stream, checked at once, and ReFit's YAML."""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import yaml

from loaders.policy import AugmentationPolicy
from shards_spec.errors import UsageError
from shards_spec.paths import AnyPath, local_path, location
from shards_spec.values import as_float, flag, hold, whole

RATIO_TOLERANCE = 1e-6
_MAX_RATIO = 1e9  # far beyond 1, so that percentages hear what they sum to
MAX_CONFIG_BYTES = 1 << 20
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
DEFAULT_OCCLUDERS = "data/dataset_extras/occluders.arrow"


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """How one item is made.

    ``image``: ``"normalized"`` is float32 (3, res, res), ``"uint8"`` is (res, res, 3) before the
    channel factors, for :func:`loaders.finalize`. ``compat="refit"`` gives keypoints truncated to
    whole pixels, as ReFit's are.

    Raises:
        UsageError: a value is not one of these.
    """

    image: Literal["normalized", "uint8"] = "normalized"
    res: int = 256
    compat: Literal["refit"] | None = None

    def __post_init__(self) -> None:
        _one_of("image", self.image, ("normalized", "uint8"))
        _one_of("compat", self.compat, (None, "refit"))
        hold(self, res=whole("res", self.res, 16, 4096))


@dataclass(frozen=True, kw_only=True)
class StreamOptions(RenderOptions):
    """How a stream is mixed, augmented and delivered.

    ``batch_size``: samples a rank receives at a time. ``epoch_samples``: samples of all ranks in
    an epoch; None for the rows of the largest source. ``num_workers``: processes, 0 for none.
    ``prefetch``: batches that each is ahead. ``rank``, ``world_size``: None for those of
    torch.distributed, else of the environment, else 0 of 1. ``mixing``: ``"exact"`` ratios in
    every prefix, or ``"iid"`` draws. ``augment``: False for evaluation. ``occluders``: an Arrow
    file of cut-outs; None for the default place, without occlusion if nothing is there;
    ``"required"`` refuses then. ``on_error``: ``"raise"``, or ``"replace"`` a bad sample by the
    next draw of its source. ``drop_last``: leave out an epoch's last, smaller batch. ``where``:
    a pyarrow expression a source over the index's columns; rows that fail it are left out.
    ``window``: shards of a source whose rows are mixed at a time; None for all of them, or for 16
    where they come into the cache. ``cache``: a local folder for shards that are at a URL, and
    ``cache_bytes``, such as ``"200GB"``, what it may hold.

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
    policy: AugmentationPolicy = field(default_factory=AugmentationPolicy)
    occluders: AnyPath | None = None
    on_error: Literal["raise", "replace"] = "raise"
    drop_last: bool = True
    where: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    cache: AnyPath | None = None
    cache_bytes: int | str | None = None

    @property
    def batches_in_flight(self) -> int:
        """How many batches a rank may be making, have ready or be using at a time."""
        return self.num_workers * self.prefetch + 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("mixing", self.mixing, ("exact", "iid"))
        _one_of("on_error", self.on_error, ("raise", "replace"))
        for name, low, high in _WHOLE:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                hold(self, **{name: whole(name, value, low, high)})
        for name in ("augment", "drop_last"):
            hold(self, **{name: flag(name, getattr(self, name))})
        if not isinstance(self.policy, AugmentationPolicy):
            raise UsageError(f"policy: must be an AugmentationPolicy, got {self.policy!r}")
        if not isinstance(self.where, Mapping):
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


def _one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}: must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_ratios(names: Sequence[str], ratios: Sequence[Any]) -> list[float]:
    """The ratios as floats, none of them negative, which sum to 1.

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
    if abs(total - 1.0) > RATIO_TOLERANCE:
        raise UsageError(f"the ratios must sum to 1, they sum to {total:.9g}: {numbers!r:.200}")
    return numbers


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What a ReFit YAML says of the data; None where it says nothing."""

    names: tuple[str, ...]
    ratios: tuple[float, ...]
    batch_size: int | None
    num_workers: int | None
    seed: int | None
    res: int | None

    @property
    def stated(self) -> dict[str, Any]:
        """The stream's options that the file states."""
        options = {
            name: getattr(self, name) for name in ("batch_size", "num_workers", "seed", "res")
        }
        return {name: value for name, value in options.items() if value is not None}

    def places(self, shards: AnyPath) -> dict[str, tuple[str, float]]:
        """Each data set's folder below ``shards``, and its ratio.

        Raises:
            UsageError: ``shards`` is no path or URL.
        """
        folder = location(shards, "shards").rstrip("/")
        pairs = zip(self.names, self.ratios, strict=True)
        return {name: (f"{folder}/{name}", ratio) for name, ratio in pairs}


def config_value(content: Any, *keys: str, where: str) -> Any:
    """What a config holds under nested keys, or None: a mapping, or an object with attributes.

    Raises:
        UsageError: the config refuses to say, as OmegaConf does where a value is not set.
    """
    for key in keys:
        try:
            if isinstance(content, Mapping):
                stated = set(content.keys())  # OmegaConf's get() hides a value that must be set
                content = content[key] if key in stated else None
            else:
                content = getattr(content, key, None)
        except Exception as error:  # whatever another library's config raises
            line = " ".join(str(error).split())
            raise UsageError(f"{where}: {'.'.join(keys)}: {line}") from error
    return content


def _list_of(content: Any, key: str, where: str) -> list[Any]:
    value = config_value(content, "DATASET", key, where=where)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not value:
        raise UsageError(f"{where}: DATASET.{key} must be a list, got {reprlib.repr(value):.80}")
    try:
        return list(value)
    except Exception as error:  # an interpolation of OmegaConf's that leads nowhere
        line = " ".join(str(error).split())
        raise UsageError(f"{where}: DATASET.{key}: {line}") from error


def parse_config(content: Any, where: str) -> TrainingConfig:
    """Read ReFit's keys of a mapping, of a yacs or OmegaConf config, or of nested objects.

    All other keys are left alone.

    Raises:
        UsageError: DATASET.LIST or DATASET.PARTITION is missing or they do not fit.
    """
    section = config_value(content, "DATASET", where=where)
    if section is None or isinstance(section, (Sequence, int, float)):
        raise UsageError(f"{where}: must hold DATASET with LIST and PARTITION")
    names = _list_of(content, "LIST", where)
    ratios = _list_of(content, "PARTITION", where)
    if len(names) != len(ratios):
        raise UsageError(
            f"{where}: DATASET.LIST has {len(names)} names, DATASET.PARTITION {len(ratios)} ratios"
        )
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise UsageError(
            f"{where}: DATASET.LIST must name each data set once, got {reprlib.repr(names):.80}"
        )
    try:
        numbers = check_ratios(names, ratios)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return TrainingConfig(
        names=tuple(str(name) for name in names),
        ratios=tuple(numbers),
        batch_size=config_value(content, "TRAIN", "BATCH_SIZE", where=where),
        num_workers=config_value(content, "NUM_WORKERS", where=where),
        seed=config_value(content, "SEED_VALUE", where=where),
        res=config_value(content, "IMG_RES", where=where),
    )


def read_config(path: AnyPath) -> TrainingConfig:
    """A ReFit YAML file.

    Raises:
        UsageError: it is missing, not YAML, or says nothing usable of the data.
    """
    place = local_path(path, "config")
    try:
        with place.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{place}: more than {MAX_CONFIG_BYTES} bytes; is it a training config?")
    try:
        content = yaml.safe_load(data.decode())
    except Exception as error:  # a tag that does not fit its value fails in many ways
        raise UsageError(f"{place}: not YAML: {' '.join(str(error).split())}") from error
    return parse_config(content, str(place))
