"""Reads ReFit's YAML: datasets, their ratios, and the options that the file states."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.loaders.stream.options import check_ratios
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, local_path, location
from refit_shard.shards_spec.values import as_float

MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What a ReFit YAML states about the data; None for options that it does not state.

    ``policy``: the fields under ``augmentation:``, all others as in ReFit. ``draws_seed``: True if
    a random seed is wanted, which a negative SEED_VALUE, ReFit's default, means.
    """

    names: tuple[str, ...]
    ratios: tuple[float, ...]
    batch_size: int | None
    num_workers: int | None
    seed: int | None
    res: int | None
    policy: AugmentationPolicy | None = None
    draws_seed: bool = False

    @property
    def stated(self) -> dict[str, Any]:
        """The stream's options that the file states."""
        names = ("batch_size", "num_workers", "seed", "res", "policy")
        options = {name: getattr(self, name) for name in names}
        return {name: value for name, value in options.items() if value is not None}

    def places(self, shards: AnyPath) -> dict[str, tuple[str, float]]:
        """The folder of each dataset below ``shards``, and its ratio.

        Raises:
            UsageError: ``shards`` is neither a path nor a URL.
        """
        folder = location(shards, "shards").rstrip("/")
        pairs = zip(self.names, self.ratios, strict=True)
        return {name: (f"{folder}/{name}", ratio) for name, ratio in pairs}


def config_value(content: Any, *keys: str, where: str) -> Any:
    """The value under nested keys of a config, or None if it is not there.

    ``content``: a mapping, or an object with attributes.


    Raises:
        UsageError: the config raises, as OmegaConf does for a value that must be set.
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
    except Exception as error:  # an interpolation of OmegaConf that cannot be resolved
        line = " ".join(str(error).split())
        raise UsageError(f"{where}: DATASET.{key}: {line}") from error


def _policy(content: Any, where: str) -> AugmentationPolicy | None:
    """The policy whose fields the config's ``augmentation`` states, or None without that key."""
    section = config_value(content, "augmentation", where=where)
    if section is None:
        return None
    stated = section if isinstance(section, Mapping) else getattr(section, "__dict__", None)
    if stated is None:
        raise UsageError(
            f"{where}: augmentation must hold fields of AugmentationPolicy, got {section!r:.60}"
        )
    known = [field.name for field in fields(AugmentationPolicy)]
    unknown = next((name for name in stated if name not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{where}: augmentation.{unknown!s:.60} is no field of AugmentationPolicy; known: "
            f"{', '.join(known)}"
        )
    values = {name: config_value(content, "augmentation", name, where=where) for name in stated}
    try:
        return AugmentationPolicy(**values)
    except (UsageError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: augmentation: {error}") from error


def parse_config(content: Any, where: str) -> TrainingConfig:
    """Read ReFit's keys from a mapping, a yacs or OmegaConf config, or nested objects.

    All other keys are ignored.

    Raises:
        UsageError: DATASET.LIST or DATASET.PARTITION is missing, their lengths differ, a ratio is
            wrong, or ``augmentation`` is not a valid policy.
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
            f"{where}: DATASET.LIST must name each dataset once, got {reprlib.repr(names):.80}"
        )
    try:
        numbers = check_ratios(names, ratios)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    seed = config_value(content, "SEED_VALUE", where=where)
    draws_seed = as_float(seed) < 0
    return TrainingConfig(
        names=tuple(str(name) for name in names),
        ratios=tuple(numbers),
        batch_size=config_value(content, "TRAIN", "BATCH_SIZE", where=where),
        num_workers=config_value(content, "NUM_WORKERS", where=where),
        seed=None if draws_seed else seed,
        res=config_value(content, "IMG_RES", where=where),
        policy=_policy(content, where),
        draws_seed=draws_seed,
    )


def read_yaml(path: AnyPath) -> tuple[Any, Path]:
    """The content of a YAML file, and the file's path.

    Raises:
        UsageError: it is missing, too large, or not YAML.
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
    except Exception as error:  # a tag that does not fit its value raises many types
        raise UsageError(f"{place}: not YAML: {' '.join(str(error).split())}") from error
    return content, place


def read_config(path: AnyPath) -> TrainingConfig:
    """Read a ReFit YAML file.

    Raises:
        UsageError: the file is missing, not YAML, or does not state valid datasets and ratios.
    """
    content, place = read_yaml(path)
    return parse_config(content, str(place))
