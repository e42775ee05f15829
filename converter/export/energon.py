"""Writes the files that Megatron-Energon needs beside the tars of a dataset, as its ``energon
prepare`` does.

They describe a *crude* dataset: a *cooker*, which the user writes, makes samples of the JPEG and
the labels.
"""

import json
import shutil
import sqlite3
import struct
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml

from refit_shard.converter.export.plan import SetExport
from refit_shard.shards_spec.errors import ShardError, StorageError
from refit_shard.shards_spec.storage.folder import Folder

META = ".nv-meta"
# Written last: without it, Energon does not take a folder for a dataset.
_INFO = ".info.json"
_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size
);
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One sample of a tar. ``begin``: offset of its first header. ``end``: offset after its last
    part. ``parts``: name, offset of the data and size in bytes of each part.
    """

    key: str
    begin: int
    end: int
    parts: tuple[tuple[str, int, int], ...]


def write_energon(chosen: SetExport, folder: Folder) -> None:
    """Write the files beside the finished tars of a dataset: ``.tar.idx`` for each tar, and the
    folder ``.nv-meta``. All shards are in the split ``train``.

    Raises:
        ShardError: a tar is damaged.
        StorageError: reading or writing failed.
    """
    meta = folder.child(META)
    meta.create()
    tars = [f"{chosen.stem(index)}.tar" for index in range(len(chosen.files))]
    counts = [chosen.rows_of(index) for index in range(len(chosen.files))]
    with tempfile.TemporaryDirectory(prefix="refit-shard-") as place:
        path = Path(place) / "index.sqlite"
        try:
            with closing(sqlite3.connect(path)) as base:
                _fill(base, folder, list(zip(tars, counts, strict=True)))
        except sqlite3.Error as error:  # usually a full disk
            raise StorageError(
                f"{place}: {error}; set TMPDIR to a folder with more free space"
            ) from error
        with meta.publish("index.sqlite") as target, path.open("rb") as source:
            shutil.copyfileobj(source, target)
    identity = json.dumps(chosen.identity(None), sort_keys=True)
    info = {"shard_counts": dict(zip(tars, counts, strict=True))}
    split = {"exclude": [], "split_parts": {"train": tars, "val": [], "test": []}}
    meta.write("index.uuid", str(uuid.uuid5(uuid.NAMESPACE_OID, identity)).encode())
    kind = {
        "__module__": "megatron.energon",
        "__class__": "CrudeWebdataset",
        "subflavors": {"dataset": chosen.dataset},
    }
    for name, content in (("split.yaml", split), ("dataset.yaml", kind)):
        meta.write(name, yaml.safe_dump(content, sort_keys=False).encode())
    meta.write(_INFO, (json.dumps(info, indent=2) + "\n").encode())


def _fill(base: sqlite3.Connection, folder: Folder, tars: list[tuple[str, int]]) -> None:
    """Write the ``.tar.idx`` of each tar, and the tables of all samples."""
    base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
    for number, (name, count) in enumerate(tars):
        found = list(members(folder, name))
        if len(found) != count:
            raise ShardError(
                f"{folder.url}/{name}: holds {len(found)} samples, must hold {count}; delete it "
                "and run the same command again"
            )
        places = [member.begin for member in found] + [found[-1].end]
        folder.write(f"{name}.idx", struct.pack(f"<{len(places)}Q", *places))
        base.executemany(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
            [
                (number, member.key, place, member.begin, member.end - member.begin)
                for place, member in enumerate(found)
            ],
        )
        base.executemany(
            "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
            [(number, place, *part) for place, member in enumerate(found) for part in member.parts],
        )
        base.commit()
    base.executescript(_INDEXES)


def members(folder: Folder, name: str) -> Iterator[Member]:
    """The samples of a tar, from its headers. Adjacent members whose names agree up to the first
    dot are one sample.

    Raises:
        ShardError: the tar is damaged.
        StorageError: the tar cannot be read.
    """
    try:
        with (
            folder.local_copy(name) as local,
            local.open(name) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for key, group in groupby(tar, lambda member: member.name.partition(".")[0]):
                some = list(group)
                yield Member(
                    key=key,
                    begin=some[0].offset,
                    end=some[-1].offset_data + some[-1].size + -some[-1].size % tarfile.BLOCKSIZE,
                    parts=tuple(
                        (one.name.partition(".")[2], one.offset_data, one.size) for one in some
                    ),
                )
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ShardError(f"{folder.url}/{name}: not a readable tar ({error})") from error
