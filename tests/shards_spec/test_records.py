"""Samples by one read of the tar: equal to the index's, and named errors where files are not so."""

import gc
import io
import os
import random
import resource
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from refit_shard import ShardSet
from refit_shard.shards_spec.errors import RefitShardError, ShardError, StorageError
from refit_shard.shards_spec.records import OpenTars, RecordReader, Stored
from tests.small import Own, own, read_arrow

ROWS = 24


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Twelve shards of two rows."""
    tree = own(tmp_path_factory.mktemp("records"), rows=ROWS)
    assert tree.build("--samples-per-shard", 2).code == 0
    return tree


@pytest.fixture
def copy(built: Own, tmp_path: Path) -> Path:
    """Shards to spoil."""
    for path in built.out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def reader(folder: Path | str) -> RecordReader:
    """A reader of a dataset with tars of its own."""
    return RecordReader(ShardSet.open(str(folder)), OpenTars())


def test_every_column_of_every_row_is_the_indexs(built: Own) -> None:
    """Against plain pyarrow for the labels and plain tarfile for the JPEG."""
    records = reader(built.out)
    number = 0
    for path in sorted(built.out.glob("own-??????.arrow")):
        with tarfile.open(path.with_suffix(".tar")) as tar:
            for row in read_arrow(path).to_pylist():
                stored = records.read(number)
                member = tar.extractfile(f"{row['key']}.jpg")
                assert member is not None
                assert stored.jpeg == member.read()
                (record,) = np.frombuffer(stored.record, records.dtype)
                assert set(records.dtype.names or ()) == set(row) - {"jpg_offset", "jpg_length"}
                for name in records.dtype.names or ():
                    value = record[name]
                    found = value.decode() if isinstance(value, bytes) else value.ravel().tolist()
                    expected = row[name]
                    if not isinstance(expected, (list, str)):
                        expected = [expected]
                    assert found == expected, name
                number += 1
    assert number == ROWS


def test_a_url_gives_the_same(built: Own) -> None:
    local, remote = reader(built.out), reader(f"file://{built.out}")
    assert [local.read(row) for row in range(ROWS)] == [remote.read(row) for row in range(ROWS)]


@pytest.mark.parametrize("index", [-1, ROWS, 10**12])
def test_there_is_no_sample_outside(built: Own, index: int) -> None:
    with pytest.raises(IndexError, match=f"of {ROWS}"):
        reader(built.out).read(index)


def make_fifo(path: Path) -> None:
    """In the file's place."""
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    """In the file's place."""
    path.unlink()
    path.mkdir()


def shift(path: Path) -> None:
    """Every member comes a block later than the index says."""
    path.write_bytes(bytes(512) + path.read_bytes())


def fill(path: Path) -> None:
    """As long as it was, but of zeros."""
    path.write_bytes(bytes(path.stat().st_size))


TARS: list[tuple[Callable[[Path], Any], type[RefitShardError], str]] = [
    (Path.unlink, ShardError, "missing"),
    (make_fifo, ShardError, "cut short"),
    (make_folder, RefitShardError, "own-000000.tar"),
    (lambda path: path.write_bytes(b""), ShardError, "cut short"),
    (lambda path: path.write_bytes(path.read_bytes()[:900]), ShardError, "cut short"),
    (shift, ShardError, "no labels after the JPEG; run refit-shard verify"),
    (fill, ShardError, "no labels after the JPEG; run refit-shard verify"),
]


@pytest.mark.parametrize(("spoil", "kind", "said"), TARS)
def test_a_tar_that_is_not_what_was_built(
    built: Own, copy: Path, spoil: Callable[[Path], Any], kind: type[RefitShardError], said: str
) -> None:
    """One line that names the tar; the other shards are read as before."""
    spoil(copy / "own-000000.tar")
    records = reader(copy)
    with pytest.raises(kind, match=said) as caught:
        records.read(0)
    assert "own-000000.tar" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert records.read(2) == reader(built.out).read(2)


def test_a_tar_that_may_not_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading that fails on the way is no damage of the shards."""

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    records = reader(copy)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError, match=r"own-000000\.tar: row 0: Input/output error"):
        records.read(0)


def rewrite(folder: Path, column: str, value: int) -> None:
    """Give row 0 of the first index another place in the tar."""
    path = folder / "own-000000.arrow"
    table = read_arrow(path)
    at = table.schema.get_field_index(column)
    values = table.column(at).to_pylist()
    values[0] = value
    table = table.set_column(
        at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table.combine_chunks().to_batches()[0])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("jpg_offset", 2**64 - 1, "cut short"),
        ("jpg_offset", 2**64 - 700, "cut short"),
        ("jpg_offset", 2**63, "cut short"),
        ("jpg_length", 2**32 - 1, "cut short"),
        ("jpg_offset", 0, "no labels"),
        ("jpg_offset", 1024, "no labels"),
        ("jpg_length", 0, "no labels"),
        ("jpg_length", 1, "no labels"),
    ],
)
def test_an_index_that_points_elsewhere(copy: Path, column: str, value: int, said: str) -> None:
    rewrite(copy, column, value)
    records = reader(copy)
    with pytest.raises(ShardError, match=said):
        records.read(0)
    assert records.describe(0).startswith("shard own-000000, row 0, key own-")
    assert len(records.read(1).jpeg) > 0


def test_an_index_that_is_gone_is_named(copy: Path) -> None:
    (copy / "own-000003.arrow").unlink()
    records = reader(copy)
    with pytest.raises(ShardError, match=r"own-000003\.arrow: missing"):
        records.read(7)
    assert records.describe(7) == "shard own-000003, row 1"


def test_many_threads_with_few_tars_open(built: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar that is dropped while another thread reads it stays open for that one."""
    expected = [reader(built.out).read(row) for row in range(ROWS)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    gc.collect()  # errors of other tests hold their readers
    before = len(os.listdir("/proc/self/fd"))
    records = reader(built.out)
    rows = [row for seed in range(100) for row in random.Random(seed).sample(range(ROWS), ROWS)]
    with ThreadPoolExecutor(8) as pool:
        found: list[Stored] = list(pool.map(records.read, rows))
    assert found == [expected[row] for row in rows]
    assert len(os.listdir("/proc/self/fd")) - before == 4
    del records
    assert len(os.listdir("/proc/self/fd")) == before


def test_records_are_plain_npy(built: Own) -> None:
    """What is behind the JPEG is a file that numpy reads by itself, without pickle."""
    records = reader(built.out)
    with tarfile.open(built.out / "own-000000.tar") as tar:
        member = tar.extractfile(tar.getnames()[1])
        assert member is not None
        loaded = np.load(io.BytesIO(member.read()), allow_pickle=False)
    assert loaded.tobytes() == records.read(0).record
