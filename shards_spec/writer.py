"""Writes one shard: a tar of KEY.jpg and KEY.npy pairs, and its Arrow index.

The tar is USTAR, uncompressed, with fixed times and owners, so the same samples give the same
bytes. The index is published after the tar and contains the tar's hash, so an index proves that its
shard is complete.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.shards_spec.fields import (
    RECORD_CRC,
    STRING,
    Field,
    arrow_column,
    arrow_schema,
    npy_dtype,
    npy_header,
    record_crc,
)
from refit_shard.shards_spec.manifest import ShardEntry
from refit_shard.shards_spec.names import attempt_name
from refit_shard.shards_spec.storage.folder import Folder

METADATA_KEY = b"refit-shard"
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A source row that could not be made into a sample, and why."""

    source_row: int
    imgname: str
    reason: str
    detail: str


QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("imgname", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


class TarStream:
    """Writes a tar to a stream and computes its SHA-256 and size."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.size = 0

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sha256.update(data)
        self.size += len(data)

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return offset

    def finish(self) -> str:
        """Write the end-of-archive mark; returns the tar's SHA-256."""
        self._write(bytes(2 * _BLOCK))
        return self._sha256.hexdigest()


class ShardWriter:
    """Writes the samples of one shard to a tar in ``stream``, and collects its index; see
    :func:`write_shard`.

    ``dtype``: of a record, which is :func:`npy_dtype` of the ``fields``.
    """

    def __init__(self, stream: BinaryIO, fields: Sequence[Field]) -> None:
        self._tar = TarStream(stream)
        self._fields = fields
        self.dtype = npy_dtype(fields)
        self._header = npy_header(self.dtype)
        self._records: list[bytes] = []
        self._offsets: list[int] = []
        self._lengths: list[int] = []

    def add(self, record: NDArray[np.void], jpeg: bytes) -> None:
        """Append one sample. ``record``: 0-d; its two checksums are set here."""
        record["jpg_crc32c"] = crc32c(jpeg)
        record[RECORD_CRC] = record_crc(record.tobytes())
        data = record.tobytes()
        key = bytes(record["key"][()]).decode()
        self._offsets.append(self._tar.add(f"{key}.jpg", jpeg))
        self._lengths.append(len(jpeg))
        self._tar.add(f"{key}.npy", self._header + data)
        self._records.append(data)

    def finish(self) -> tuple[str, int, pa.RecordBatch]:
        """End the tar; returns its SHA-256, its size in bytes, and the index."""
        sha256 = self._tar.finish()
        records = np.frombuffer(b"".join(self._records), self.dtype)
        extra: dict[str, Any] = {"jpg_offset": self._offsets, "jpg_length": self._lengths}
        columns = []
        for field in self._fields:
            values = extra[field.name] if field.name in extra else records[field.name]
            if field.dtype == STRING:
                values = [bytes(value).decode() for value in values]
            columns.append(arrow_column(field, values))
        batch = pa.RecordBatch.from_arrays(columns, schema=arrow_schema(self._fields))
        return sha256, self._tar.size, batch


def arrow_bytes(batch: pa.RecordBatch) -> bytes:
    """The bytes of an uncompressed Arrow IPC file with one record batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def shard_content(
    *,
    plan_hash: str,
    tar_sha256: str,
    tar_bytes: int,
    frames: int,
    quarantined: Sequence[Quarantined],
    warned: Mapping[str, int],
) -> dict[str, Any]:
    """What an index states besides its columns, so that a killed build can be continued."""
    return {
        "plan_hash": plan_hash,
        "tar_sha256": tar_sha256,
        "tar_bytes": tar_bytes,
        "frames": frames,
        "quarantined": [asdict(row) for row in quarantined],
        "warned": dict(sorted(warned.items())),
    }


def content_sha256(batch: pa.RecordBatch, content: Mapping[str, Any]) -> str:
    """SHA-256 of an index: of ``content`` as JSON, then of the values of its columns."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for values in batch.columns:
        if pa.types.is_string(values.type):
            digest.update("\0".join(values.to_pylist()).encode())
            continue
        flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
        digest.update(flat.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def shard_metadata(batch: pa.RecordBatch, content: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The metadata of an index's schema: ``content``, and the hash of ``content`` and columns."""
    sealed = {**content, "sha256": content_sha256(batch, content)}
    return {METADATA_KEY: json.dumps(sealed, sort_keys=True).encode()}


def write_shard(
    folder: Folder,
    stem: str,
    attempt: str,
    fields: Sequence[Field],
    samples: Iterable[tuple[NDArray[np.void], bytes]],
    seal: Callable[[str, int], dict[str, Any]],
) -> tuple[ShardEntry, pa.RecordBatch]:
    """Write a shard's tar and index under temporary names, which :func:`publish` replaces. Returns
    the shard's entry and its index.

    Args:
        folder: the dataset's folder.
        stem: the shard's name.
        attempt: hexadecimal part of the temporary names.
        fields: the columns.
        samples: records and JPEGs.
        seal: called after the last sample with the tar's SHA-256 and size; returns the index's
            :func:`shard_content`.

    Raises:
        StorageError: writing failed.
    """
    with folder.stage(attempt_name(f"{stem}.tar", attempt)) as stream:
        writer = ShardWriter(stream, fields)
        for record, jpeg in samples:
            writer.add(record, jpeg)
        sha256, size, batch = writer.finish()
    metadata = shard_metadata(batch, seal(sha256, size))
    data = arrow_bytes(batch.replace_schema_metadata(metadata))
    with folder.stage(attempt_name(f"{stem}.arrow", attempt)) as stream:
        stream.write(data)
    entry = ShardEntry(
        name=stem,
        rows=batch.num_rows,
        tar_bytes=size,
        tar_sha256=sha256,
        arrow_bytes=len(data),
        arrow_sha256=hashlib.sha256(data).hexdigest(),
    )
    return entry, batch


def publish(folder: Folder, written: str, attempt: str, stem: str) -> None:
    """Rename the temporary files of the shard ``written`` to the final names of ``stem``.

    The tar is renamed first, so an index never exists without its tar.

    Raises:
        StorageError: renaming failed; neither file, or only the tar, has its final name.
    """
    for ending in (".tar", ".arrow"):
        folder.rename(attempt_name(written + ending, attempt), stem + ending)


def quarantine_bytes(rows: Sequence[Quarantined]) -> bytes:
    """The bytes of a quarantine's file, sorted by source row."""
    ordered = sorted(rows, key=lambda row: row.source_row)
    columns = [
        pa.array([getattr(row, field.name) for row in ordered], field.type)
        for field in QUARANTINE_SCHEMA
    ]
    return arrow_bytes(pa.RecordBatch.from_arrays(columns, schema=QUARANTINE_SCHEMA))
