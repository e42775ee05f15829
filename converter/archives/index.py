"""The members of an archive as an Arrow table, saved in a file so that an archive is listed only
once.

Listing a tar needs a small read at each member, which takes minutes on a spinning disk or an object
store. The saved list is used until the archive's size or modification time changes. A list that is
damaged, or that belongs to another archive, is made again.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from refit_shard.converter.archives.members import Kind, Listing, Stamp
from refit_shard.converter.archives.names import member_name, stem
from refit_shard.shards_spec.errors import RefitShardError
from refit_shard.shards_spec.ipc import read_batch
from refit_shard.shards_spec.storage.folder import Folder

# Below the folder of a dataset's shards.
LISTS_FOLDER = ".archives"
_VERSION = 1
_MAX_BYTES = 2 << 30
_STATED = b"refit_shard_archive"
SCHEMA = pa.schema(
    [
        ("name", pa.large_string()),
        ("begin", pa.int64()),
        ("span", pa.int64()),
        ("size", pa.int64()),
        ("packed", pa.int64()),
        ("crc", pa.uint32()),
        ("kind", pa.int8()),
    ]
)


def as_table(listing: Listing) -> pa.RecordBatch:
    """A listing as a table with one row for each member."""
    columns = (
        *(listing.begins, listing.spans, listing.sizes, listing.packed),
        *(listing.crcs, listing.kinds),
    )
    arrays = [
        pa.array(np.frombuffer(values, values.typecode), kind)
        for values, kind in zip(columns, SCHEMA.types[1:], strict=True)
    ]
    names = pa.array(listing.names, pa.large_string())
    return pa.RecordBatch.from_arrays([names, *arrays], schema=SCHEMA)


def list_name(stamp: Stamp) -> str:
    """The name of the file that an archive's list is saved in."""
    return f"{stem(stamp.path)[:100]}-{hashlib.sha256(stamp.path.encode()).hexdigest()[:12]}.arrow"


def _stated(stamp: Stamp) -> bytes:
    content = {
        "version": _VERSION,
        "path": stamp.path,
        "size": stamp.size,
        "mtime_ns": stamp.mtime_ns,
    }
    return json.dumps(content, sort_keys=True).encode()


def save_list(folder: Folder, stamp: Stamp, table: pa.RecordBatch) -> None:
    """Save an archive's list.

    Raises:
        StorageError: the list cannot be written.
    """
    stated = table.replace_schema_metadata({_STATED: _stated(stamp)})
    with (
        folder.publish(list_name(stamp)) as stream,
        pa.ipc.new_file(stream, stated.schema) as writer,
    ):
        writer.write_batch(stated)


def load_list(folder: Folder, stamp: Stamp) -> pa.RecordBatch | None:
    """The saved list of this archive, checked; None if it is missing or not valid."""
    try:
        data = folder.read(list_name(stamp), limit=_MAX_BYTES)
        table = read_batch(pa.py_buffer(data))
    except (RefitShardError, ValueError, OSError, pa.ArrowException):
        return None
    said = (table.schema.metadata or {}).get(_STATED)
    plain = table.replace_schema_metadata(None)
    if said != _stated(stamp) or not plain.schema.equals(SCHEMA) or not _fits(plain, stamp):
        return None
    return plain


def _fits(table: pa.RecordBatch, stamp: Stamp) -> bool:
    """True if all members are within the archive and have names that a listing can give."""
    column: dict[str, Any] = {
        name: table.column(name).to_numpy(zero_copy_only=False) for name in SCHEMA.names[1:]
    }
    numbers = np.array([column[name] for name in ("begin", "span", "size", "packed")])
    return (
        bool((numbers >= 0).all())
        and bool((numbers[0] <= stamp.size - numbers[1]).all())
        and bool(np.isin(column["kind"], list(Kind)).all())
        and all(member_name(name) == name for name in table.column("name").to_pylist())
    )
