"""Makes and recognises the names of files and samples."""

import re

from refit_shard.shards_spec.errors import UsageError

MANIFEST = "manifest.json"
# Also an Arrow IPC file (Feather 2), but with another ending, so that *.arrow matches only shards.
QUARANTINE = "quarantine.feather"
# Exists while --overwrite builds new shards beside existing ones.
OVERWRITE = ".overwrite.json"
LOCK = ".build.lock"
TEMPORARY_SUFFIX = ".tmp"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_SHARD_ENDING = r"(?:-g(?P<generation>[1-9]\d{0,8}))?-\d{6,9}\.(?:tar|arrow)"
_SHARD_FILE = re.compile(_NAME.pattern + _SHARD_ENDING)
_QUARANTINE_FILE = re.compile(r"quarantine(?:-g(?P<generation>[1-9]\d{0,8}))?\.feather")
_ATTEMPT = re.compile(rf"\.(?P<file>.+)\.[0-9a-f]+{re.escape(TEMPORARY_SUFFIX)}")


def check_dataset_name(name: str) -> str:
    """Return ``name`` if it can be part of file names and of webdataset keys, which end at the
    first dot.

    Raises:
        UsageError: ``name`` cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"dataset name {name!r:.80}: must be 1 to 63 of a-z, 0-9, '-' and '_', "
            "and begin with a letter or digit"
        )
    return name


def sample_key(dataset: str, source_row: int) -> str:
    """The key of a sample: the stem of its members in the tar, without a dot."""
    return f"{dataset}-{source_row:08d}"


def shard_stem(dataset: str, index: int, generation: int = 0) -> str:
    """The file name of a shard without ``.tar`` or ``.arrow``.

    ``generation``: 0 for the first shards in a folder, and one more for shards that are built
    beside existing ones, so that their names differ.
    """
    middle = f"-g{generation}" if generation else ""
    return f"{dataset}{middle}-{index:06d}"


def generation_of(dataset: str, file: str) -> int | None:
    """The generation of a shard's file of this dataset, by its name; None for other files."""
    found = re.fullmatch(re.escape(dataset) + _SHARD_ENDING, file)
    return None if found is None else int(found["generation"] or 0)


def quarantine_name(generation: int) -> str:
    """The file name of a generation's quarantine, which is published together with the manifest."""
    return f"quarantine-g{generation}.feather" if generation else QUARANTINE


def quarantine_generation(file: str) -> int | None:
    """The generation of a quarantine's file, by its name; None for other files."""
    found = _QUARANTINE_FILE.fullmatch(file)
    return None if found is None else int(found["generation"] or 0)


def attempt_name(file: str, attempt: str) -> str:
    """The temporary name of a file until it is published; ``attempt`` is hexadecimal."""
    return f".{file}.{attempt}{TEMPORARY_SUFFIX}"


def final_name(name: str) -> str:
    """The published name of a file, given its temporary or its published name."""
    found = _ATTEMPT.fullmatch(name)
    return name if found is None else found["file"]


def is_attempt(dataset: str, name: str) -> bool:
    """True for the temporary name of a file of this dataset's build."""
    found = _ATTEMPT.fullmatch(name)
    return found is not None and (
        found["file"] in (MANIFEST, OVERWRITE)
        or quarantine_generation(found["file"]) is not None
        or generation_of(dataset, found["file"]) is not None
    )


def is_of_a_build(name: str) -> bool:
    """True if a file with this name belongs to a build, finished or not."""
    fixed = (MANIFEST, LOCK, OVERWRITE)
    return (
        name in fixed
        or quarantine_generation(name) is not None
        or _SHARD_FILE.fullmatch(name) is not None
    )
