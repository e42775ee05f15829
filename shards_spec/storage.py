"""Folders and files behind paths or URLs: reading, and publishing whole or not at all.

A local file appears by rename after fsync, an object by a whole upload
(:mod:`shards_spec.object_store`).
"""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from shards_spec.errors import ShardError, StorageError, UsageError, explain
from shards_spec.filesystem import sync, sync_folder
from shards_spec.layout import attempt_name, final_name
from shards_spec.object_store import RemoteFile, tuned, upload

_CHUNK = 8 << 20


@dataclass(frozen=True)
class Folder:
    """A folder on a file system that pyarrow knows; made by :func:`open_folder`."""

    url: str
    filesystem: fs.FileSystem
    path: str

    @property
    def local(self) -> Path | None:
        """The folder as a local path, or None where it is remote."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def child(self, name: str) -> "Folder":
        """A folder below this one."""
        return Folder(f"{self.url.rstrip('/')}/{name}", self.filesystem, f"{self.path}/{name}")

    def names(self) -> dict[str, int]:
        """Files directly in this folder, by name, with their size in bytes.

        Raises:
            StorageError: it cannot be listed; its bucket does not exist.
        """
        return {info.base_name: info.size for info in self._listing() if info.is_file}

    def folders(self) -> list[str]:
        """Paths or URLs of the folders directly in this one, sorted."""
        found = self._listing()
        names = [info.base_name for info in found if info.type == fs.FileType.Directory]
        return [self.child(name).url for name in sorted(names)]

    def _listing(self) -> list[Any]:
        selector = fs.FileSelector(self.path, allow_not_found=True)
        try:
            found: list[Any] = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise explain(error, self.url) from error
        if not found:
            self.reach()
        return found

    def reach(self) -> None:
        """Make sure that an object store answers, lets us in and has the bucket.

        Raises:
            StorageError: it does not.
        """
        if self.local is not None:
            return
        bucket = self.path.partition("/")[0]
        try:
            kind = self.filesystem.get_file_info(bucket).type
        except OSError as error:
            raise explain(error, self.url) from error
        if kind == fs.FileType.NotFound:
            raise StorageError(f"{self.url}: no such bucket")

    def open(self, name: str) -> Any:
        """Open a file for random access: a local one as pyarrow reads it, an object as
        :class:`RemoteFile`.

        Raises:
            ShardError: the file is missing.
            StorageError: it cannot be read.
        """
        return self._opened(name, pa.OSFile)

    def map(self, name: str) -> Any:
        """As :meth:`open`; a local file is mapped into memory where its file system can do that."""
        return self._opened(name, _mapped)

    def _opened(self, name: str, how: Callable[[str], Any]) -> Any:
        try:
            if self.local is not None:
                place = self.local / name
                if place.exists() and not place.is_file():  # a FIFO would be waited for, for ever
                    raise ShardError(f"{self.url}/{name}: not a plain file")
                return how(str(place))
            return RemoteFile(self.filesystem, f"{self.path}/{name}", f"{self.url}/{name}")
        except FileNotFoundError as error:
            raise ShardError(f"{self.url}/{name}: missing") from error
        except OSError as error:
            raise explain(error, f"{self.url}/{name}") from error

    @contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        """An open file; what fails on it is told as :meth:`open` tells it."""
        try:
            with self.open(name) as file:
                yield file
        except OSError as error:
            raise explain(error, f"{self.url}/{name}") from error

    def read(self, name: str, *, limit: int) -> bytes:
        """A small file as bytes; refuses one larger than ``limit`` before reading it."""
        with self._reading(name) as file:
            size = file.size()
            if size > limit:
                raise ShardError(
                    f"{self.url}/{name}: {size} bytes, more than the {limit} that it may have"
                )
            return bytes(file.read())

    def create(self) -> None:
        """Make the folder and its parents; an object store has none, but must have the bucket.

        Raises:
            StorageError: it cannot be made.
        """
        if self.local is None:
            self.reach()
            return
        try:
            self.filesystem.create_dir(self.path, recursive=True)
        except OSError as error:
            raise explain(error, self.url) from error

    def remove(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        try:
            self.filesystem.delete_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, f"{self.url}/{name}") from error

    def fingerprint(self, name: str) -> tuple[str, int]:
        """SHA-256 and size in bytes of a file.

        Raises:
            ShardError, StorageError: as :meth:`open`.
        """
        digest = hashlib.sha256()
        size = 0
        with self._reading(name) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    @contextmanager
    def stage(self, name: str) -> Iterator[BinaryIO]:
        """A stream to write a file that nobody reads yet; it is on disk when the block ends.

        Raises:
            StorageError: writing failed; no file stays.
        """
        try:
            if self.local is not None:
                with _new_file(self.local / name) as stream:
                    yield stream
            else:
                with tempfile.TemporaryFile() as stream:
                    yield stream
                    stream.flush()
                    upload(self.filesystem, f"{self.path}/{name}", stream)
        except OSError as error:
            raise explain(error, f"{self.url}/{final_name(name)}") from error

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had it; a store copies it on its side.

        Raises:
            StorageError: it failed.
        """
        try:
            if self.local is not None:
                (self.local / old).replace(self.local / new)
                sync_folder(self.local)
            else:
                self.filesystem.copy_file(f"{self.path}/{old}", f"{self.path}/{new}")
                self.filesystem.delete_file(f"{self.path}/{old}")
        except OSError as error:
            raise explain(error, f"{self.url}/{new}") from error

    @contextmanager
    def publish(self, name: str) -> Iterator[BinaryIO]:
        """A stream to write; the file appears under ``name`` when the block ends without error.

        Raises:
            StorageError: writing failed; nothing appears.
        """
        if self.local is None:
            with self.stage(name) as stream:
                yield stream
            return
        attempt = attempt_name(name, secrets.token_hex(4))
        with self.stage(attempt) as stream:
            yield stream
        self.rename(attempt, name)

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file."""
        with self.publish(name) as stream:
            stream.write(data)

    @contextmanager
    def near(self, *names: str) -> Iterator["Folder"]:
        """This folder if it is local, else a temporary one that holds copies of these files.

        Raises:
            ShardError, StorageError: as :meth:`open`.
        """
        if self.local is not None:
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="refit-shard-") as place:
            for name in names:
                with (Path(place) / name).open("wb") as copy:
                    self.download(name, copy)
            yield Folder(self.url, fs.LocalFileSystem(), place)

    def download(self, name: str, target: BinaryIO) -> None:
        """Copy a file's bytes.

        Raises:
            ShardError, StorageError: as :meth:`open`.
        """
        with self._reading(name) as file:
            while chunk := file.read(_CHUNK):
                target.write(chunk)


def _mapped(path: str) -> Any:
    try:
        return pa.memory_map(path)
    except FileNotFoundError:
        raise
    except OSError:  # a file system that maps none; if it is another fault, it comes again
        return pa.OSFile(path)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which is on disk at the end, or gone after an error."""
    try:
        with path.open("xb") as stream:
            yield stream
            stream.flush()
            sync(stream.fileno(), str(path.parent))
    except BaseException:
        with suppress(OSError):  # the first error counts; the next build removes what is left
            path.unlink(missing_ok=True)
        raise


def open_folder(path_or_url: str) -> Folder:
    """A folder by local path or by URL (``s3://``, ``gs://``, ``file://``); it need not exist.

    Raises:
        UsageError: the path is empty, or the URL is of another kind.
        StorageError: the bucket's region cannot be found out.
    """
    if not path_or_url:
        raise UsageError("a path is empty; '.' is the current folder")
    if "://" not in path_or_url:
        path = os.path.abspath(path_or_url)
        return Folder(path_or_url.rstrip("/") or "/", fs.LocalFileSystem(), path)
    if "?" in path_or_url:
        raise UsageError(
            f"{path_or_url}: a URL's options go into the environment: AWS_ENDPOINT_URL, AWS_REGION"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(path_or_url)
        filesystem = tuned(filesystem)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{path_or_url}: cannot open this URL: {error}") from error
    except OSError as error:  # without a region in the environment, AWS was asked for it
        raise explain(error, path_or_url) from error
    if not path:
        raise UsageError(f"{path_or_url}: names no bucket")
    return Folder(path_or_url.rstrip("/"), filesystem, path.rstrip("/"))
