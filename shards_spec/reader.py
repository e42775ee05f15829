"""Reads shards: labels and images as views into memory-mapped files, without copies. Files are read
instead if their file system cannot map them.

Files are not trusted: the schema must be this program's, every offset is checked against the tar's
size, and nothing is ever unpickled.
"""

import bisect
import itertools
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import FormatError, ShardError, StorageError, explain
from refit_shard.shards_spec.fields import (
    STRING,
    Field,
    arrow_schema,
    is_whole_record,
    npy_dtype,
    numpy_view,
    own_fields,
)
from refit_shard.shards_spec.ipc import read_batch
from refit_shard.shards_spec.manifest import Manifest, ShardEntry, read_manifest
from refit_shard.shards_spec.names import MANIFEST, is_of_a_build, sample_key
from refit_shard.shards_spec.storage.filesystem import warn_once
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.storage.paths import AnyPath
from refit_shard.shards_spec.writer import METADATA_KEY, Quarantined, content_sha256

_TAR_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class ShardSeal:
    """What an index's metadata states of its shard."""

    plan_hash: str
    tar_sha256: str
    tar_bytes: int
    frames: int
    quarantined: tuple[Quarantined, ...]
    warned: Mapping[str, int]


def read_index(folder: Folder, name: str, *, mapped: bool = False) -> pa.RecordBatch:
    """The index in the file ``name`` as one record batch.

    ``mapped``: True for views into the mapped file, if the folder is local, instead of into a copy.

    Raises:
        ShardError: the file is missing or not an Arrow file of one batch.
        StorageError: the file cannot be read.
    """
    where = f"{folder.url}/{name}"
    try:
        with folder.map(name) if mapped else folder.open(name) as file:
            data = file.read_buffer()
    except OSError as error:
        raise explain(error, where) from error
    return parse_index(data, where)


def parse_index(data: pa.Buffer, where: str) -> pa.RecordBatch:
    """The index in an Arrow file's bytes, as views into them. ``where``: the file, for errors.

    Raises:
        ShardError: the file is damaged, or does not hold exactly one batch.
    """
    try:
        return read_batch(data)
    except (pa.ArrowException, OSError, ValueError, struct.error, StopIteration) as error:
        line = " ".join(str(error).split())
        raise ShardError(f"{where}: not a readable Arrow file ({line})") from error


def is_shard(folder: Folder, name: str, dataset: str) -> bool:
    """True if a tar begins with the header of one of the dataset's samples, or is empty.

    Raises:
        StorageError: the tar cannot be read.
    """
    with folder.open(name) as file:
        head = bytes(file.read(_TAR_BLOCK))
    try:
        member = tarfile.TarInfo.frombuf(head, "utf-8", "strict").name
    except (tarfile.TarError, ValueError):
        return not head.strip(b"\0")  # a tar without samples, because none could be made
    key = member.removesuffix(".jpg")
    return key == sample_key(dataset, int(key[-8:])) if key[-8:].isdecimal() else False


def check_schema(batch: pa.RecordBatch, fields: Sequence[Field], where: str) -> None:
    """Check that an index has the columns ``fields``.

    Raises:
        FormatError: a column is missing, added, moved or of another type.
    """
    expected = arrow_schema(fields)
    if not batch.schema.equals(expected):
        differing = [str(field.name) for field in expected if field not in list(batch.schema)]
        named = ", ".join(differing) or "their order or number"
        raise FormatError(f"{where}: columns differ from the manifest's: {named}")


def read_seal(batch: pa.RecordBatch, where: str) -> ShardSeal:
    """The metadata of an index. The hash of columns and metadata is verified.

    Raises:
        ShardError: the metadata are missing, or they or a column are damaged.
        FormatError: the index is of an older version.
    """
    try:
        content = json.loads((batch.schema.metadata or {})[METADATA_KEY])
        stated = content.pop("sha256")
        if stated != content_sha256(batch, content):
            raise ShardError(f"{where}: the index's columns or metadata have changed")
        if "warned" not in content:
            raise FormatError(f"{where}: an older refit-shard built this shard")
        rows = tuple(Quarantined(**row) for row in content.pop("quarantined"))
        return ShardSeal(**content, quarantined=rows)
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise ShardError(f"{where}: the index's metadata are damaged") from error


def open_index(folder: Folder, entry: ShardEntry, fields: Sequence[Field]) -> pa.RecordBatch:
    """The index of a shard. Its columns and its number of rows are checked.

    Raises:
        ShardError: the index is missing, damaged, or has another number of rows.
        FormatError: its columns are not ``fields``.
    """
    name = f"{entry.name}.arrow"
    batch = read_index(folder, name, mapped=True)
    check_schema(batch, fields, f"{folder.url}/{name}")
    if batch.num_rows != entry.rows:
        raise ShardError(
            f"{folder.url}/{name}: {batch.num_rows} rows, the manifest says {entry.rows}"
        )
    return batch


class Shard:
    """One open shard: its index and its tar. Arrays and images are views, not copies.

    Args:
        folder: The dataset's folder.
        entry: The shard's name, sizes and hashes in the manifest.
        fields: The columns that the index must have.

    Raises:
        ShardError: the index is missing, damaged, or has another number of rows.
        FormatError: the index has other columns.
    """

    def __init__(self, folder: Folder, entry: ShardEntry, fields: Sequence[Field]) -> None:
        self.name = entry.name
        self.fields = {field.name: field for field in fields}
        self.where = f"{folder.url}/{entry.name}"
        self._index = open_index(folder, entry, fields)
        self._views: dict[str, NDArray[Any]] = {}
        self._tar = folder.map(f"{entry.name}.tar")
        self._size = self._tar.size()
        self._mapped: memoryview | None = None
        if isinstance(self._tar, pa.MemoryMappedFile):
            self._mapped = memoryview(self._tar.read_buffer()).cast("B")
            self._tar.close()  # the buffer keeps the mapping; no file handle stays open

    def __len__(self) -> int:
        return int(self._index.num_rows)

    def column(self, name: str) -> pa.Array:
        """A column of the index as an Arrow array, without a copy.

        Args:
            name: A column of the format.
        """
        return self._index.column(name)

    def table(self) -> pa.Table:
        """The index as an Arrow table, without a copy."""
        return pa.Table.from_batches([self._index])

    def seal(self) -> ShardSeal:
        """The metadata of the index. The hash of columns and metadata is verified.

        Raises:
            ShardError: the metadata or a column are damaged.
        """
        return read_seal(self._index, f"{self.name}.arrow")

    def view(self, name: str) -> NDArray[Any]:
        """A column as a numpy array (rows, \\*shape); a copy only for strings and booleans.

        Args:
            name: A column of the format.
        """
        if name not in self._views:
            self._views[name] = numpy_view(self.fields[name], self._index.column(name))
        return self._views[name]

    def jpeg(self, row: int) -> bytes | memoryview:
        """The JPEG of one row; a view into the tar if that is mapped.

        Args:
            row: The row's number in this shard, from 0.

        Raises:
            ShardError: the index points outside the tar.
            StorageError: the tar cannot be read.
        """
        offset = int(self.view("jpg_offset")[row])
        length = int(self.view("jpg_length")[row])
        if offset + length > self._size:
            raise ShardError(
                f"{self.where}.tar: row {row} ends at byte {offset + length} "
                f"of {self._size}; the tar is cut short"
            )
        if self._mapped is not None:
            return self._mapped[offset : offset + length]
        try:
            return bytes(self._tar.read_at(length, offset))
        except OSError as error:
            raise explain(error, f"{self.where}.tar: row {row}") from error

    def sample(self, row: int) -> "Sample":
        """The sample of one row.

        Args:
            row: The row's number in this shard, from 0.
        """
        return Sample(self, row)


class Sample:
    """One person: the stored crop ``sample.jpeg``, and labels by the names of columns, such as
    ``sample["pose"]``.

    Numbers are views into the shard, with the shapes of the format: ``sample["keypoints"]`` is
    (49, 3) float32: x and y in pixels of the frame, and confidence.

    Args:
        shard: The sample's shard.
        row: The sample's row in the shard, from 0.
    """

    def __init__(self, shard: Shard, row: int) -> None:
        self._shard = shard
        self._row = row

    @property
    def shard_name(self) -> str:
        """The shard's file name without its ending."""
        return self._shard.name

    @property
    def jpeg(self) -> bytes | memoryview:
        """The stored crop as the bytes of a JPEG.

        Raises:
            ShardError: the index points outside the tar.
            StorageError: the tar cannot be read.
        """
        return self._shard.jpeg(self._row)

    @property
    def own(self) -> tuple[Field, ...]:
        """The columns of the dataset that are own labels."""
        return own_fields(self._shard.fields.values())

    def __getitem__(self, name: str) -> Any:
        if self._shard.fields[name].dtype == STRING:
            return self._shard.column(name)[self._row].as_py()
        return self._shard.view(name)[self._row]

    def check(self) -> None:
        """Check the labels against their CRC.

        Raises:
            ShardError: the labels are damaged.
        """
        self.record()

    def record(self) -> NDArray[np.void]:
        """The labels as a numpy structured scalar, equal to the record in the tar. The CRC is
        checked.

        Raises:
            ShardError: the labels are damaged.
        """
        record = np.zeros((), npy_dtype(self._shard.fields.values()))
        for name in record.dtype.names or ():
            value = self[name]
            record[name] = value.encode() if isinstance(value, str) else value
        if not is_whole_record(record.tobytes()):
            raise ShardError(
                f"{self._shard.where}.arrow: row {self._row}: the labels are damaged (crc32c); run "
                "refit-shard verify"
            )
        return record

    @property
    def labels(self) -> dict[str, Any]:
        """The values of all columns of the row, by name."""
        return {name: self[name] for name in self._shard.fields}


class ShardSet:
    """A finished dataset as a sequence of samples, in the order of its shards; see :meth:`open`.

    Args:
        folder: The dataset's folder.
        manifest: The content of its ``manifest.json``.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._starts = [0, *itertools.accumulate(entry.rows for entry in manifest.shards)]
        self._shards: dict[int, Shard] = {}

    @classmethod
    def open(cls, path_or_url: AnyPath) -> "ShardSet":
        """The dataset in a folder. Its shards are opened when they are first read.

        Args:
            path_or_url: The dataset's folder, such as ``data/shards/bedlam`` or
                ``s3://bucket/bedlam``.

        Raises:
            ShardError: the folder has no finished dataset, or the manifest is damaged.
            FormatError: the shards have another format version.
        """
        folder = open_folder(path_or_url)
        return cls(folder, read_manifest(folder))

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def own(self) -> tuple[Field, ...]:
        """The columns of the dataset that are own labels, for :func:`webdataset_item`."""
        return self.manifest.own

    def shard(self, index: int) -> Shard:
        """The shard with the number ``index``, opened on first use.

        If two threads ask for a shard at the same time, both may open it; one of the two is kept.
        """
        shard = self._shards.get(index)
        if shard is None:
            entry = self.manifest.shards[index]
            shard = Shard(self.folder, entry, self.manifest.fields)
            self._shards[index] = shard
        return shard

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the shard that contains sample ``index``, and the sample's row in it.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def __getitem__(self, index: int) -> Sample:
        shard, row = self.locate(index)
        return self.shard(shard).sample(row)


def find_data_sets(path_or_url: AnyPath) -> list[str]:
    """Paths or URLs of the datasets at a path, finished or not: the path itself if it contains
    shards, else those of its folders that do.

    Raises:
        ShardError: there is no dataset.
    """
    folder = open_folder(path_or_url)
    if _holds_shards(folder):
        return [folder.url]
    found = []
    for url in folder.folders():
        try:
            if _holds_shards(open_folder(url)):
                found.append(url)
        except StorageError as error:  # a folder of another user, such as lost+found
            warn_once(url, f"ignored: {error}")
    if not found:
        raise ShardError(
            f"{folder.url}: no shards there (no {MANIFEST}); build them with: refit-shard build"
        )
    return found


def _holds_shards(folder: Folder) -> bool:
    return any(map(is_of_a_build, folder.names()))
