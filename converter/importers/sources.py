"""Finds downloaded annotations in the folders where a dataset's npz or frames should be."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from refit_shard.converter.importers.importer import ALL_OF, Importer
from refit_shard.converter.importers.run import IMPORTERS
from refit_shard.shards_spec.errors import RefitShardError


def find_downloaded(dataset: str, folders: Sequence[Path]) -> str | None:
    """A source for ``import-annotations``, quoted for a shell: the best downloaded annotations of
    this dataset, in the first of the folders that has them; None if there are none.

    Files are recognised by the names that their site gives them. Nothing is read except directories
    of zips.
    """
    for importer in IMPORTERS:
        for pattern in importer.called.get(dataset, ()):
            for folder in folders:
                with suppress(RefitShardError, OSError):  # damaged or unreadable
                    source = _source(importer, dataset, folder, pattern)
                    if source is not None:
                        return source
    return None


def _source(importer: Importer, dataset: str, folder: Path, pattern: str) -> str | None:
    if pattern == ".":
        return shlex.quote(str(folder)) if importer.find(folder, dataset) else None
    found = sorted(one for one in folder.glob(pattern) if importer.find(one, dataset))
    if not found:
        return None
    is_all = pattern.startswith(ALL_OF) and len(found) > 1
    return f"{shlex.quote(str(folder))}/{pattern}" if is_all else shlex.quote(str(found[-1]))
