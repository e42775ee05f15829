"""Reads and publishes files in folders, by path or URL. A published file is complete or absent.

A local file is written under a temporary name, synced and renamed. An object is uploaded in one
request (:mod:`refit_shard.shards_spec.storage.object_store`).
"""

import errno
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

from refit_shard.shards_spec.errors import ShardError, StorageError, UsageError, explain
from refit_shard.shards_spec.names import attempt_name, final_name
from refit_shard.shards_spec.storage.filesystem import sync, sync_folder
from refit_shard.shards_spec.storage.object_store import (
    RemoteFile,
    bucket_exists,
    open_store,
    upload,
)
from refit_shard.shards_spec.storage.paths import AnyPath, absolute, location, path_bytes

_CHUNK = 8 << 20


@dataclass(frozen=True)
class Folder:
    """A folder on a file system that pyarrow supports; see :func:`open_folder`.

    ``url``: its path or URL as the user gave it. ``path``: its path in ``filesystem``. ``place``:
    the option or argument that names it, for errors.
    """

    url: str
    filesystem: fs.FileSystem
    path: str
    place: str = "place"

    @property
    def local(self) -> Path | None:
        """The folder as a local path; None if it is in an object store."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def child(self, name: str) -> "Folder":
        """A folder below this one."""
        url, path = f"{self.url.rstrip('/')}/{name}", f"{self.path}/{name}"
        return Folder(url, self.filesystem, path, self.place)

    def names(self) -> dict[str, int]:
        """The files directly in this folder: size in bytes by name. Empty if it does not exist.

        Raises:
            StorageError: the folder cannot be listed, or its bucket does not exist.
        """
        return {name: size for name, size in self._listing() if size is not None}

    def folders(self) -> list[str]:
        """Paths or URLs of the folders directly in this one, sorted."""
        names = [name for name, size in self._listing() if size is None]
        return [self.child(name).url for name in sorted(names)]

    def _listing(self) -> list[tuple[str, int | None]]:
        """(name, size) of the files and folders directly in this folder; a folder's size is
        None.
        """
        try:
            if self.local is not None:
                return _list_local(self.path)
            selector = fs.FileSelector(self.path, allow_not_found=True)
            found = [
                (info.base_name, info.size if info.is_file else None)
                for info in self.filesystem.get_file_info(selector)
                if info.type in (fs.FileType.File, fs.FileType.Directory)
            ]
        except OSError as error:
            raise explain(error, self.url, self.place) from error
        if not found:
            self.reach()
        return found

    def reach(self) -> None:
        """Check that the object store answers, accepts the credentials and has the bucket; does
        nothing for a local folder.

        Raises:
            StorageError: one of these is not so.
        """
        if self.local is not None:
            return
        if not bucket_exists(self.filesystem, self.path.partition("/")[0], self.url):
            raise StorageError(f"{self.url}: no such bucket")

    def open(self, name: str) -> Any:
        """A file, opened for random access: a local one as pyarrow's file, an object as
        :class:`RemoteFile`.

        Raises:
            ShardError: the file is missing or not a regular file.
            StorageError: the file cannot be opened.
        """
        return self._opened(name, pa.OSFile)

    def map(self, name: str) -> Any:
        """As :meth:`open`, but a local file is memory-mapped if its file system supports that."""
        return self._opened(name, _mapped)

    def _opened(self, name: str, how: Callable[[bytes], Any]) -> Any:
        try:
            if self.local is not None:
                place = self.local / name
                if place.exists() and not place.is_file():  # opening a FIFO would wait for ever
                    raise ShardError(f"{self.url}/{name}: not a regular file")
                return how(path_bytes(str(place)))
            return RemoteFile(self.filesystem, f"{self.path}/{name}", f"{self.url}/{name}")
        except FileNotFoundError as error:
            raise ShardError(f"{self.url}/{name}: missing") from error
        except OSError as error:
            raise explain(error, f"{self.url}/{name}") from error

    @contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        """A file, opened for reading; errors while it is read are raised as by :meth:`open`."""
        try:
            with self.open(name) as file:
                yield file
        except OSError as error:
            raise explain(error, f"{self.url}/{name}") from error

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of a small file.

        Raises:
            ShardError: the file is missing, or larger than ``limit`` bytes.
            StorageError: the file cannot be read.
        """
        with self._reading(name) as file:
            size = file.size()
            if size > limit:
                raise ShardError(
                    f"{self.url}/{name}: {size} bytes, the limit is {limit}; is it damaged?"
                )
            return bytes(file.read())

    def create(self) -> None:
        """Create the folder and its parents. In an object store, which has no folders, only check
        that the bucket exists.

        Raises:
            StorageError: the folder cannot be created.
        """
        if self.local is None:
            self.reach()
            return
        try:
            self.local.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, self.url, self.place) from error

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        try:
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self.filesystem.delete_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, f"{self.url}/{name}", self.place) from error

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
        """A stream that writes a file, usually under a temporary name. The file is on the disk when
        the block ends.

        Raises:
            StorageError: writing failed; the file is deleted.
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
            raise explain(error, f"{self.url}/{final_name(name)}", self.place) from error

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing an existing one. An object store copies the object instead,
        without a transfer.

        Raises:
            StorageError: renaming failed.
        """
        try:
            if self.local is not None:
                (self.local / old).replace(self.local / new)
                sync_folder(self.local)
            else:
                self.filesystem.copy_file(f"{self.path}/{old}", f"{self.path}/{new}")
                self.filesystem.delete_file(f"{self.path}/{old}")
        except OSError as error:
            raise explain(error, f"{self.url}/{new}", self.place) from error

    @contextmanager
    def publish(self, name: str) -> Iterator[BinaryIO]:
        """A stream that writes a file, which gets the name ``name`` when the block ends without
        error.

        Raises:
            StorageError: writing failed; an existing file of that name is unchanged.
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
    def local_copy(self, *names: str) -> Iterator["Folder"]:
        """This folder if it is local, else a temporary folder with copies of these files.

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
        """Copy a file's bytes to ``target``.

        Raises:
            ShardError, StorageError: as :meth:`open`.
        """
        with self._reading(name) as file:
            while chunk := file.read(_CHUNK):
                target.write(chunk)


def _mapped(path: bytes) -> Any:
    try:
        return pa.memory_map(path)
    except FileNotFoundError:
        raise
    except OSError:  # the file system cannot map files; any other error is raised again below
        return pa.OSFile(path)


def _list_local(path: str) -> list[tuple[str, int | None]]:
    """As :meth:`Folder._listing`, without pyarrow, which does not list names that are not UTF-8."""
    found: list[tuple[str, int | None]] = []
    try:
        with os.scandir(path_bytes(path)) as scan:
            for one in scan:
                name = one.name.decode("utf-8", "surrogateescape")
                try:
                    if one.is_dir():
                        found.append((name, None))
                    elif one.is_file():
                        found.append((name, one.stat().st_size))
                except OSError as error:  # deleted since it was listed, or a loop of links
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
    except FileNotFoundError:
        return []
    return found


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, opened for writing. It is on the disk at the end, or deleted after an error."""
    try:
        with path.open("xb") as stream:
            yield stream
            stream.flush()
            sync(stream.fileno(), str(path.parent))
    except BaseException:
        with suppress(OSError):  # the first error is raised; the next build deletes the file
            path.unlink(missing_ok=True)
        raise


def open_folder(path_or_url: AnyPath, place: str = "place") -> Folder:
    """A folder by local path or by URL (``s3://``, ``gs://``, ``file://``), which may not exist
    yet.

    ``place``: the option or argument that names it, for errors.

    Raises:
        UsageError: as :func:`~refit_shard.shards_spec.storage.paths.location`, or the kind of URL
            is not supported.
        StorageError: the bucket's region cannot be determined.
    """
    url = location(path_or_url, "a path" if place == "place" else place)
    if "://" not in url:
        return Folder(url.rstrip("/") or "/", fs.LocalFileSystem(), absolute(url), place)
    if "?" in url:
        raise UsageError(
            f"{url}: a URL must not have options (?…); set AWS_ENDPOINT_URL and AWS_REGION in the "
            "environment instead"
        )
    try:
        filesystem, path = open_store(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{url}: cannot open this URL: {error}") from error
    except OSError as error:  # if the environment states no region, AWS is asked for it
        raise explain(error, url) from error
    if not path:
        raise UsageError(f"{url}: names no bucket")
    return Folder(url.rstrip("/"), filesystem, path.rstrip("/"), place)
