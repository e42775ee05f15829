"""Datasets that a user declares: in ``datasets:`` of a training YAML, in ``DATASETS`` of a
``data_config.py``, or with ``--npz``, ``--root`` and ``--name`` of a command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refit_shard.console import plain
from refit_shard.converter.annotations.datasets import DATASETS, TURNS, Dataset
from refit_shard.converter.annotations.keep import parse_keeps
from refit_shard.converter.annotations.remaps import parse_remaps
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.names import check_dataset_name
from refit_shard.shards_spec.storage.files import is_file
from refit_shard.shards_spec.storage.paths import absolute, location
from refit_shard.shards_spec.values import flag, one_of

PLACES = ("npz", "root")
FLAGS = ("cropped", "use_pose_3d", "expects_smpl")
TEXTS = ("page", "turned")
LISTS = ("remaps", "keep")
KEYS = (*PLACES, *FLAGS, *TEXTS, *LISTS)


@dataclass(frozen=True, kw_only=True)
class OwnSet:
    """A dataset that the user declares.

    Attributes:
        dataset: its name and peculiarities.
        npz: absolute path or URL; empty for a registered dataset, to which an entry only adds.
        root: absolute path or URL; empty for a registered dataset.
        where: names the entry in error messages.
    """

    dataset: Dataset
    npz: str
    root: str
    where: str


@dataclass(frozen=True)
class Section:
    """A section of a file that declares datasets: the file, the section's name, and how a key of it
    is written there.
    """

    path: Path
    name: str
    key: str

    def where(self, *keys: object) -> str:
        """An entry or one of its keys as the file writes it, for error messages."""
        return self.name + "".join(self.key.format(plain(f"{key!s:.80}")) for key in keys)


def yaml_section(path: Path) -> Section:
    """The section of a training YAML."""
    return Section(path, "datasets", ".{}")


def python_section(path: Path) -> Section:
    """The section of a ``data_config.py``."""
    return Section(path, "DATASETS", "['{}']")


def parse_own_sets(content: Any, section: Section) -> dict[str, OwnSet]:
    """The datasets that a section declares, by name. Paths are relative to the file's folder.

    Raises:
        UsageError: a key or value is wrong; the message names it.
    """
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{section.path}: {section.name} must hold an entry for each dataset of your own, got "
            f"{content!r:.60}"
        )
    return {str(name): _parse_entry(name, entry, section) for name, entry in content.items()}


def _parse_entry(name: Any, entry: Any, section: Section) -> OwnSet:
    where = f"{section.path}: {section.where(name)}"
    if not isinstance(name, str):
        raise UsageError(f"{section.path}: {section.name}: {name!r:.80}: a name must be a text")
    try:
        check_dataset_name(name)
    except UsageError as error:
        raise UsageError(f"{section.path}: {section.name}: {error}") from error
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where}: must hold npz and root, got {entry!r:.60}")
    registered = DATASETS.get(name)
    allowed = KEYS if registered is None else LISTS
    for key in entry:
        if key not in allowed:
            why = f" is no key of a dataset; known: {', '.join(allowed)}"
            if registered is not None and key in KEYS:
                why = (
                    f": {name!r} is a registered dataset, to which an entry adds only "
                    f"{' and '.join(LISTS)}; give yours another name"
                )
            raise UsageError(f"{section.path}: {section.where(name, key)}{why}")

    traits = {key: _value(key, entry[key], name, section) for key in entry}
    if registered is not None:
        return OwnSet(dataset=replace(registered, **traits), npz="", root="", where=where)
    missing = [key for key in PLACES if key not in entry]
    if missing:
        raise UsageError(
            f"{section.path}: {section.where(name, missing[0])} is missing: the entry must say "
            "where the annotations (npz) and the folder of the frames (root) are"
        )
    npz, root = (traits.pop(key) for key in PLACES)
    variable = f"{section.where(name, 'root')} of {section.path}"
    return OwnSet(
        dataset=Dataset(name=name, root_variable=variable, **traits),
        npz=npz,
        root=root,
        where=where,
    )


def _value(key: str, value: Any, name: str, section: Section) -> Any:
    """A key's value, checked and converted."""
    where = f"{section.path}: {section.where(name, key)}"
    base = section.path.parent
    if key in FLAGS:
        return flag(where, value)
    if key in LISTS:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
            raise UsageError(f"{where}: must be a list of texts, got {value!r:.60}")
        try:
            return parse_remaps(texts) if key == "remaps" else parse_keeps(texts, base)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    if key == "turned":
        one_of(where, value, TURNS)
        return value
    if key in TEXTS:
        if not isinstance(value, str):
            raise UsageError(f"{where}: must be a text, got {value!r:.60}")
        return value
    place = location(value, where)
    return place if "://" in place else absolute(str(base / place))


def own_set_of_options(npz: str | None, root: str | None, name: str | None) -> OwnSet:
    """The dataset that ``--npz``, ``--root`` and ``--name`` declare.

    Raises:
        UsageError: an option or a file is missing, or the name is not allowed.
    """
    if not npz or not root or not name:
        raise UsageError("--npz, --root and --name go together")
    check_dataset_name(name)
    if name in DATASETS:
        raise UsageError(
            f"--name {name}: is a registered dataset, which has rules of its own: use "
            f"--dataset {name} (data_config.py states its npz and root), or choose another name"
        )
    return OwnSet(
        dataset=Dataset(name=name, root_variable="--root"),
        npz=npz_of_option(npz),
        root=root_of_option(root),
        where=f"--name {name}",
    )


def npz_of_option(given: str) -> str:
    """The path or URL of ``--npz``.

    Raises:
        UsageError: there is no such file.
    """
    npz = location(given, "--npz")
    if not is_file(npz):
        raise UsageError(f"--npz {given}: no such file")
    return npz


def root_of_option(given: str) -> str:
    """The absolute path or URL of ``--root``.

    Raises:
        UsageError: it is a path, and there is no such folder.
    """
    root = absolute(location(given, "--root"))
    if "://" not in root and not Path(root).is_dir():
        raise UsageError(f"--root {given}: no such folder")
    return root
