"""Makes reads and uploads of object stores complete, and sets time limits and retries.

pyarrow's clients retry requests, with growing pauses, if a store is overloaded or down or a
connection is cut. But they do not notice an answer that is shorter than requested, and their output
streams complete an upload when they are closed or garbage-collected, even after an error.
"""

import mmap
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from refit_shard.shards_spec.errors import SilenceError, StorageError, UsageError, explain

# Six attempts with S3's standard back-off take about a quarter of a minute.
_S3_ATTEMPTS = 6
_S3_CONNECT_SECONDS = 10
# A store may send nothing for long while it joins the parts of a large object.
_S3_SILENT_SECONDS = 30
# Google's client would retry for a quarter of an hour and ignore signals meanwhile.
_GCS_SECONDS = 60
_ENDPOINT = re.compile(r"https?://[^/\s]+/?")


# Texts for stores that did not answer, by endpoint, within :func:`asked_once`.
_SILENT: dict[str, str] = {}
_REMEMBERS = threading.Event()


@contextmanager
def asked_once() -> Iterator[None]:
    """Within this block, a store that did not answer is not asked for its buckets again.

    For a command that checks several datasets, because each attempt takes a quarter of a minute.
    """
    _REMEMBERS.set()
    try:
        yield
    finally:
        _REMEMBERS.clear()
        _SILENT.clear()


def bucket_exists(filesystem: fs.FileSystem, bucket: str, where: str) -> bool:
    """True if the store has the bucket and accepts the credentials. ``where``: URL for errors.

    Raises:
        SilenceError: the store does not answer.
        StorageError: the store answers with an error.
    """
    _, (options,) = filesystem.__reduce__()
    endpoint = f"{filesystem.type_name} {options.get('endpoint_override')}"
    if endpoint in _SILENT:
        raise SilenceError(f"{where}: not tried; {_SILENT[endpoint]}")
    try:
        return bool(filesystem.get_file_info(bucket).type != fs.FileType.NotFound)
    except OSError as error:
        explained = explain(error, where)
        if isinstance(explained, SilenceError) and _REMEMBERS.is_set():
            _SILENT[endpoint] = f"its store did not answer for {where}"
        raise explained from error


def open_store(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL, with retries and time limits, and the path in it.

    Raises:
        UsageError: neither S3's nor Google's store, or a variable of the environment is wrong.
        ArrowInvalid, ArrowNotImplementedError: the URL is not valid.
        OSError: the bucket's region cannot be determined.
    """
    if url.lower().startswith("s3:"):
        _check_endpoint()
    filesystem, path = fs.FileSystem.from_uri(url)
    return _tuned(filesystem), path


def _check_endpoint() -> None:
    """Check the form of the endpoint, because pyarrow would try a wrong one for a quarter
    of a minute.
    """
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        value = os.environ.get(name, "")
        if value and not _ENDPOINT.fullmatch(value):
            raise UsageError(
                f"{name}={value}: must be a URL with http:// or https://, such as "
                f"http://{value.rpartition('//')[2] or 'HOST:9000'}"
            )


def _tuned(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The same file system with retries and time limits; endpoint, region and keys are unchanged.

    Raises:
        UsageError: neither S3's nor Google's store; AWS_MAX_ATTEMPTS is not a number.
    """
    settings: dict[str, Any]
    match filesystem.type_name:
        case "s3":
            settings = {
                "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_attempts()),
                "connect_timeout": _S3_CONNECT_SECONDS,
                "request_timeout": _S3_SILENT_SECONDS,
                # With delayed opening, a stream closed after a failure would store a partial
                # object.
                "allow_delayed_open": False,
                "background_writes": True,
            }
        case "gcs":
            settings = {"retry_time_limit": timedelta(seconds=_GCS_SECONDS)}
        case other:
            raise UsageError(f"{other} is not supported; s3://, gs:// and file:// are")
    make, (options,) = filesystem.__reduce__()  # options from the URL and the environment
    return make(options | settings)


def _attempts() -> int:
    stated = os.environ.get("AWS_MAX_ATTEMPTS") or str(_S3_ATTEMPTS)
    if not stated.isdecimal() or int(stated) < 1:
        raise UsageError(f"AWS_MAX_ATTEMPTS must be a number of at least 1, got {stated!r}")
    return int(stated)


class RemoteFile:
    """An object opened for reading, like pyarrow's file, except that a truncated answer is an
    error.

    ``where``: its URL, for errors. Several threads may call :meth:`read_at`.

    Raises:
        FileNotFoundError, OSError: the object cannot be opened.
    """

    def __init__(self, filesystem: fs.FileSystem, path: str, where: str) -> None:
        self._file = filesystem.open_input_file(path)
        self._size = int(self._file.size())
        self._where = where
        self._position = 0

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def size(self) -> int:
        """Size in bytes."""
        return self._size

    def read_at(self, count: int, offset: int) -> bytes:
        """``count`` bytes at ``offset``; fewer only at the end of the object.

        Raises:
            StorageError: the bytes cannot be read.
        """
        return bytes(self._whole(count, offset))

    def read(self, count: int | None = None) -> bytearray:
        """The next ``count`` bytes, or all that are left; fewer only at the end of the object.

        Raises:
            StorageError: the bytes cannot be read.
        """
        data = self._whole(self._size if count is None else count, self._position)
        self._position += len(data)
        return data

    def read_buffer(self) -> pa.Buffer:
        """All bytes that are left, as :meth:`read`."""
        return pa.py_buffer(self.read())

    def _whole(self, count: int, offset: int) -> bytearray:
        """Fill a buffer from the store, or raise if fewer bytes arrived than were asked for.

        pyarrow does not compare the length of an answer. So the last byte of the buffer is set to a
        marker value before the read; if it still has that value afterwards, the read is repeated
        with another marker.
        """
        data = bytearray(max(0, min(count, self._size - offset)))
        if not data:
            return data
        for mark in (0x5A, 0xA5):
            data[-1] = mark
            try:
                self._file.get_stream(offset, len(data)).readinto(data)
            except OSError as error:
                raise explain(error, self._where) from error
            if data[-1] != mark:
                return data
        raise StorageError(
            f"{self._where}: the store gave less than the {len(data)} bytes asked for at {offset}; "
            "was the object replaced? Run the same command again"
        )


def upload(filesystem: fs.FileSystem, path: str, stream: BinaryIO) -> None:
    """Upload a file as one object, which appears complete or not at all.

    Closing one of pyarrow's output streams completes what was written so far, also when an
    exception closes it or when it is garbage-collected. So all bytes are written in one call, in a
    separate thread, where no interrupt can arrive between opening, writing and closing. If a part
    failed, closing fails, and no object appears.

    Raises:
        OSError: the object cannot be stored.
    """
    size = os.fstat(stream.fileno()).st_size
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def send() -> None:
        target = filesystem.open_output_stream(path)
        target.write(data)
        target.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(send).result()
