"""The user's ``data_config.py``, which may be ReFit's own: finding and reading it.

The file is found by path, never by import, which could pick up another project's file. It is run as
a Python program.
"""

import os
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refit_shard.converter.annotations.datasets import DATASETS, Dataset
from refit_shard.own_sets import OwnSet, parse_own_sets, python_section, yaml_section
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.files import is_file
from refit_shard.shards_spec.storage.paths import absolute, local_path, location

FILE_NAME = "data_config.py"


@dataclass(frozen=True)
class DataConfig:
    """The names that the file defines, and the datasets that it or a training YAML declares.

    Attributes:
        path: the file.
        names: its variables.
        own: declared datasets by name.
        missing: the error message for a registered dataset if the file does not exist; else empty.
    """

    path: Path
    names: dict[str, Any]
    own: Mapping[str, OwnSet] = field(default_factory=dict)
    missing: str = ""

    @property
    def datasets(self) -> dict[str, Dataset]:
        """All known datasets by name: registered and declared ones."""
        return DATASETS | {name: one.dataset for name, one in self.own.items()}

    def find(self, name: str, where: str = "") -> Dataset:
        """The dataset of this name. ``where``: the start of the error message.

        Raises:
            UsageError: no dataset has this name.
        """
        try:
            return self.datasets[name]
        except KeyError:
            raise UsageError(
                f"{where}unknown dataset {name!r}; known: {', '.join(self.datasets)}. For your "
                f"own, add an entry to DATASETS in {self.path} or to datasets: in the training "
                "YAML, or pass --npz FILE --root DIR --name NAME"
            ) from None

    def _declared(self, dataset: Dataset) -> OwnSet | None:
        """The entry that declares a dataset; None for a registered one.

        Raises:
            UsageError: the dataset is registered, and there is no data_config.py.
        """
        if dataset.name not in DATASETS:
            return self.own[dataset.name]
        if self.missing:
            raise UsageError(self.missing)
        return None

    def is_set(self, dataset: Dataset) -> bool:
        """True if a dataset's root is configured; it need not exist."""
        if dataset.name not in DATASETS:
            return True
        return bool(self._stated_root(dataset)[0])

    def _stated_root(self, dataset: Dataset) -> tuple[Any, bool]:
        """A registered dataset's configured root, and True if an environment variable sets it."""
        variable = dataset.root_variable
        folders = self.names.get("DATASET_FOLDERS")
        folder = folders.get(dataset.name) if isinstance(folders, dict) else None
        stated = os.environ.get(variable)
        return stated or folder or self.names.get(variable), bool(stated)

    @property
    def base(self) -> Path:
        """The folder of ``data_config.py``, to which its paths are relative."""
        return self.path.parent

    def root(self, dataset: Dataset) -> str:
        """Folder or URL of the dataset's frames.

        Raises:
            UsageError: the root is not configured, or is not a folder.
        """
        declared, variable = self._declared(dataset), dataset.root_variable
        if declared is not None:
            return _folder(declared.root, variable, declared.root, dataset.name)
        value, by_environment = self._stated_root(dataset)
        where = f"environment variable {variable}" if by_environment else str(self.path)
        if not value:
            page = f"; the dataset: {dataset.page}" if dataset.page else ""
            raise UsageError(
                f"{variable} is empty in {self.path}: set it to the folder that holds the images "
                f"of {dataset.name!r} (imgname is relative to it){page}"
            )
        variable = f"{variable} ({where})"
        return _folder(self._place(value, variable), variable, str(value), dataset.name)

    def _place(self, value: Any, what: str) -> str:
        """A configured path as an absolute path, or a URL unchanged."""
        place = location(value, what)
        return place if "://" in place else absolute(str(self.base / place))

    def npz(self, dataset: Dataset) -> str:
        """Path or URL of the dataset's annotations.

        Raises:
            UsageError: the npz is not listed, or does not exist.
            StorageError: its object store does not answer.
        """
        declared = self._declared(dataset)
        if declared is not None:
            if not is_file(declared.npz):
                raise UsageError(
                    f"{declared.npz}: missing; {declared.where} names it as its npz: put the npz "
                    "there or change the entry"
                )
            return declared.npz
        path = self.listed_npz(dataset)
        if path is None:
            raise UsageError(
                f"DATASET_FILES in {self.path} has no entry for {dataset.name!r}: add its npz"
            )
        if not is_file(path):
            raise UsageError(
                f"{path}: missing; DATASET_FILES in {self.path} names it as the annotations of "
                f"{dataset.name!r}: put the npz there or change the entry"
            )
        return path

    def listed_npz(self, dataset: Dataset) -> str | None:
        """Path or URL of a registered dataset's npz in ``DATASET_FILES``, which need not exist;
        None if it has no entry.
        """
        files = self.names.get("DATASET_FILES")
        for split in files if isinstance(files, (list, tuple)) else []:
            if isinstance(split, dict) and dataset.name in split:
                return self._place(split[dataset.name], f"DATASET_FILES in {self.path}")
        return None


def _folder(root: str, variable: str, value: str, name: str) -> str:
    """The root, checked to be a folder unless it is a URL.

    Raises:
        UsageError: it is not a folder.
    """
    if "://" not in root and not Path(root).is_dir():
        raise UsageError(
            f"{variable} is {value!r}, which is not a folder: "
            f"set it to the folder that holds the images of {name!r}"
        )
    return root


def find_data_config(path: str | None, yaml: str | None = None) -> DataConfig:
    """The file at ``path``, else ``./data_config.py``, and the datasets that it or the training
    config ``yaml`` declares.

    A missing ``./data_config.py`` is an error only once a registered dataset is requested.

    Raises:
        UsageError: a file is missing, does not run, or declares a dataset wrongly.
    """
    chosen = Path(absolute(str(local_path(path or FILE_NAME, "--data-config")))).resolve()
    declared = _declared_in(yaml) if yaml is not None else {}
    if not chosen.is_file():
        if path:
            raise UsageError(f"--data-config {path}: no such file")
        missing = (
            f"no {FILE_NAME}: looked for {chosen}; go to the folder that has yours (ReFit's works "
            "as it is), or pass --data-config PATH"
        )
        return DataConfig(chosen, {}, declared, missing)
    try:
        names = runpy.run_path(str(chosen))
    except (Exception, SystemExit) as error:  # the user's program may raise anything
        raise UsageError(f"{chosen}: does not run: {type(error).__name__}: {error}") from error
    own = parse_own_sets(names.get("DATASETS"), python_section(chosen))
    twice = next((name for name in declared if name in own), None)
    if twice is not None:
        raise UsageError(
            f"{declared[twice].where}: {own[twice].where} declares the same name; remove one entry"
        )
    return DataConfig(chosen, names, own | declared)


def _declared_in(yaml: str) -> dict[str, OwnSet]:
    """The datasets that a training config declares."""
    from refit_shard.loaders.stream.config import config_value, read_yaml

    try:
        content, place = read_yaml(yaml)
        section = yaml_section(Path(absolute(str(place))))
        return parse_own_sets(config_value(content, "datasets", where=str(place)), section)
    except UsageError as error:
        raise UsageError(f"--config {error}") from error


def names_of_config(path: str) -> tuple[str, ...]:
    """The names of the datasets in ``DATASET.LIST`` of a YAML config.

    Raises:
        UsageError: the loader would refuse the config.
    """
    from refit_shard.loaders.stream.config import read_config

    try:
        return read_config(path).names
    except UsageError as error:
        raise UsageError(f"--config {error}") from error
