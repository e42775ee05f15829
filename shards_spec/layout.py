"""Names of files and samples."""

import re

from shards_spec.errors import UsageError

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.arrow"
LOCK = ".build.lock"
TEMPORARY_SUFFIX = ".tmp"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHARD_FILE = re.compile(rf"{_NAME.pattern}-\d{{6,}}\.(tar|arrow)")


def check_dataset_name(name: str) -> str:
    """Return ``name`` if it can stand in file names and in webdataset keys, which end at a dot.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"dataset name {name!r:.80}: must be 1 to 63 of a-z, 0-9, '-' and '_', "
            "and begin with a letter or digit"
        )
    return name


def sample_key(dataset: str, source_row: int) -> str:
    """Key of one sample: the stem of its members in the tar. It holds no dot."""
    return f"{dataset}-{source_row:08d}"


def shard_stem(dataset: str, index: int) -> str:
    """File name of a shard without ``.tar`` or ``.arrow``."""
    return f"{dataset}-{index:06d}"


def is_of_a_build(name: str) -> bool:
    """Whether a build leaves a file of this name, finished or not."""
    return name in (MANIFEST, QUARANTINE, LOCK) or _SHARD_FILE.fullmatch(name) is not None
