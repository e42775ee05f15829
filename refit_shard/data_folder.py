"""Finding and reading the user's ``data_config.py``, which may be ReFit's own.

The file is found by path, never by import, which could pick up another project's. It is the
user's own program and is run as one.
"""

import os
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refit_shard.converter.annotations.datasets import DATASETS, Dataset
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.files import is_file
from refit_shard.shards_spec.storage.paths import absolute, local_path, location

FILE_NAME = "data_config.py"


@dataclass(frozen=True)
class DataConfig:
    """The names that the file defines."""

    path: Path
    names: dict[str, Any]

    @property
    def base(self) -> Path:
        """Folder that the npz paths are relative to: the file's."""
        return self.path.parent

    def root(self, dataset: Dataset) -> str:
        """Folder or URL of the data set's frames.

        Raises:
            UsageError: it is not filled in, or is not there.
        """
        variable = dataset.root_variable
        folders = self.names.get("DATASET_FOLDERS")
        folder = folders.get(dataset.name) if isinstance(folders, dict) else None
        stated = os.environ.get(variable)
        value = stated or folder or self.names.get(variable)
        where = f"environment variable {variable}" if stated else str(self.path)
        if not value:
            page = f"; the data set: {dataset.page}" if dataset.page else ""
            raise UsageError(
                f"{variable} is empty in {self.path}: set it to the folder that holds the images "
                f"of {dataset.name!r} (imgname is looked for below it){page}"
            )
        root = self._place(value, f"{variable} ({where})")
        if "://" not in root and not Path(root).is_dir():
            raise UsageError(
                f"{variable} ({where}) is {str(value)!r}, which is not a folder: "
                f"set it to the folder that holds the images of {dataset.name!r}"
            )
        return root

    def _place(self, value: Any, what: str) -> str:
        """An absolute path, or a URL, of one that may be relative to the file."""
        place = location(value, what)
        return place if "://" in place else absolute(str(self.base / place))

    def npz(self, dataset: Dataset) -> str:
        """Path or URL of the data set's annotations.

        Raises:
            UsageError: the file is not listed, or is not there.
            StorageError: its object store cannot be asked.
        """
        files = self.names.get("DATASET_FILES")
        listed = files if isinstance(files, (list, tuple)) else []
        for split in listed:
            if isinstance(split, dict) and dataset.name in split:
                path = self._place(split[dataset.name], f"DATASET_FILES in {self.path}")
                if not is_file(path):
                    raise UsageError(
                        f"{path}: missing; DATASET_FILES in {self.path} names it as the "
                        f"annotations of {dataset.name!r}: put the npz there or change the entry"
                    )
                return path
        raise UsageError(
            f"DATASET_FILES in {self.path} has no entry for {dataset.name!r}: add its npz"
        )


def find_data_config(path: str | None) -> DataConfig:
    """The file at ``path``, else ``./data_config.py``.

    Raises:
        UsageError: the file is missing or does not run.
    """
    chosen = Path(absolute(str(local_path(path or FILE_NAME, "--data-config")))).resolve()
    if not chosen.is_file():
        if path:
            raise UsageError(f"--data-config {path}: no such file")
        raise UsageError(
            f"no {FILE_NAME}: looked for {chosen}; go to the folder that has yours (ReFit's works "
            "as it is), or pass --data-config PATH"
        )
    try:
        names = runpy.run_path(str(chosen))
    except (Exception, SystemExit) as error:  # whatever the user's file raises is theirs to read
        raise UsageError(f"{chosen}: does not run: {type(error).__name__}: {error}") from error
    return DataConfig(chosen, names)


def datasets_of_config(path: str) -> list[Dataset]:
    """The data sets that ``DATASET.LIST`` of a YAML config names.

    Raises:
        UsageError: a loader would refuse the file, or a name is not known.
    """
    from refit_shard.loaders.stream.config import read_config

    try:
        names = read_config(path).names
    except UsageError as error:
        raise UsageError(f"--config {error}") from error
    unknown = [name for name in names if name not in DATASETS]
    if unknown:
        raise UsageError(
            f"--config {path}: unknown data set {unknown[0]!r}; known: {', '.join(DATASETS)}"
        )
    return [DATASETS[name] for name in names]
