"""Single files by path or URL."""

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
    """What a file really is that a download left in place of another one, and what to do; None if
    it is none of these.

    ``head``: its first HEAD_BYTES bytes.
    """
    if not head:
        return "is empty; download it again"
    if head.startswith(LFS_POINTER):
        return "is a Git LFS pointer, not the file; run `git lfs pull` where it comes from"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        return (
            "is a web page, not the file: a login, a quota or an error; download it again with a "
            "browser"
        )
    return None


def refuse_mistaken(stream: BinaryIO | io.BufferedIOBase, where: str) -> None:
    """Refuse an open file that is not what it was downloaded as; its place is its beginning.

    Raises:
        SourceError: it is a web page, a Git LFS pointer, or empty.
    """
    mistaken = mistaken_for(stream.read(HEAD_BYTES))
    if mistaken is not None:
        raise SourceError(f"{where}: {mistaken}")
    stream.seek(0)


def is_of_a_mac(path: str) -> bool:
    """Whether macOS added this file or folder to an archive: ``__MACOSX/…``, ``._NAME``."""
    return any(part == "__MACOSX" or part.startswith("._") for part in path.split("/"))


def _split(url: str) -> tuple[Folder, str]:
    """The folder of an object, and its name."""
    parent, _, name = url.rpartition("/")
    if not name or parent.endswith(":/"):
        raise UsageError(f"{url}: names no file")
    return open_folder(parent), name


def is_file(path_or_url: AnyPath) -> bool:
    """Whether there is a file.

    Raises:
        UsageError, StorageError: the object store cannot be asked.
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
    """A file to read; one of an object store is copied to a temporary file first.

    Raises:
        OSError: a local one cannot be opened.
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
    """Publish a small local file; its folder is made if need be.

    ``place``: the option or argument that names it, for errors.

    Raises:
        StorageError: it cannot be written, or something else than a file is in its place.
    """
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise StorageError(f"{path}: not a plain file; choose another {place}")
    folder = open_folder(path.parent, place)
    folder.create()
    folder.write(path.name, data)
