"""Single files by path or URL."""

import io
import tempfile
from contextlib import ExitStack
from pathlib import Path

from shards_spec.errors import StorageError, UsageError, explain
from shards_spec.storage import Folder, open_folder


def _split(url: str) -> tuple[Folder, str]:
    """The folder of an object, and its name."""
    parent, _, name = url.rpartition("/")
    if not name or parent.endswith(":/"):
        raise UsageError(f"{url}: names no file")
    return open_folder(parent), name


def is_file(path_or_url: str) -> bool:
    """Whether there is a file.

    Raises:
        UsageError, StorageError: the object store cannot be asked.
    """
    if "://" not in path_or_url:
        return Path(path_or_url).is_file()
    folder, name = _split(path_or_url)
    folder.reach()
    try:
        return bool(folder.filesystem.get_file_info(f"{folder.path}/{name}").is_file)
    except OSError as error:
        raise explain(error, path_or_url) from error


def open_file(path_or_url: str) -> io.BufferedReader | io.BufferedRandom:
    """A file to read; one of an object store is copied to a temporary file first.

    Raises:
        OSError: a local one cannot be opened.
        UsageError, ShardError, StorageError: as :meth:`Folder.open`.
    """
    if "://" not in path_or_url:
        return Path(path_or_url).open("rb")
    folder, name = _split(path_or_url)
    with ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        folder.download(name, copy)
        copy.seek(0)
        stack.pop_all()
        return copy


def write_file(path: Path, data: bytes) -> None:
    """Publish a small local file; its folder is made if need be.

    Raises:
        StorageError: it cannot be written, or something else than a file is in its place.
    """
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StorageError(f"{path}: not a plain file; choose another place")
    folder = open_folder(str(path.parent))
    folder.create()
    folder.write(path.name, data)
