"""Reads and writes single files by path or URL."""

import io
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from refit_shard.shards_spec.errors import SourceError, StorageError, UsageError, explain
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.storage.paths import AnyPath, location

LFS_POINTER = b"version https://git-lfs"
HEAD_BYTES = 64
_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


def mistaken_for(head: bytes) -> str | None:
    """A text that says what a failed download has left in place of the file, and what to do; None
    if the file is not empty, a Git LFS pointer or a web page.

    ``head``: the file's first HEAD_BYTES bytes.
    """
    if not head:
        return "is empty; download it again"
    if head.startswith(LFS_POINTER):
        return "is a Git LFS pointer, not the file; run `git lfs pull` in its repository"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        return (
            "is a web page (a login, a quota or an error), not the file; download it again with a "
            "browser"
        )
    return None


def refuse_mistaken(stream: BinaryIO | io.BufferedIOBase, where: str) -> None:
    """Check that a failed download has not left something else in place of a file. ``stream``: the
    file, at its beginning, where it is again afterwards.

    Raises:
        SourceError: the file is a web page, a Git LFS pointer, or empty.
    """
    mistaken = mistaken_for(stream.read(HEAD_BYTES))
    if mistaken is not None:
        raise SourceError(f"{where}: {mistaken}")
    stream.seek(0)


def is_of_a_mac(path: str) -> bool:
    """True for files and folders that macOS adds to archives: ``__MACOSX/…``, ``._NAME``."""
    return any(part == "__MACOSX" or part.startswith("._") for part in path.split("/"))


def _split(url: str) -> tuple[Folder, str]:
    """The folder of an object, and its name."""
    parent, _, name = url.rpartition("/")
    if not name or parent.endswith(":/"):
        raise UsageError(f"{url}: names no file")
    return open_folder(parent), name


def is_file(path_or_url: AnyPath) -> bool:
    """True if the file exists.

    Raises:
        UsageError, StorageError: the object store cannot be reached.
    """
    url = location(path_or_url)
    if "://" not in url:
        return Path(url).is_file()
    folder, name = _split(url)
    folder.reach()
    try:
        return bool(folder.filesystem.get_file_info(f"{folder.path}/{name}").is_file)
    except OSError as error:
        raise explain(error, url) from error


def open_file(path_or_url: AnyPath) -> io.BufferedReader | io.BufferedRandom:
    """A file, opened for reading. An object is copied to a temporary file first.

    Raises:
        OSError: a local file cannot be opened.
        UsageError, ShardError, StorageError: as :meth:`Folder.open`.
    """
    url = location(path_or_url)
    if "://" not in url:
        return Path(url).open("rb")
    folder, name = _split(url)
    with ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        folder.download(name, copy)
        copy.seek(0)
        stack.pop_all()
        return copy


def write_file(path: Path, data: bytes, place: str = "place") -> None:
    """Publish a small local file; its folder is created if it does not exist.

    ``place``: the option or argument that names the file, for errors.

    Raises:
        StorageError: the file cannot be written, or the path is not a regular file.
    """
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StorageError(f"{path}: not a regular file; choose another {place}")
    folder = open_folder(path.parent, place)
    folder.create()
    folder.write(path.name, data)
