"""Hostile Arrow indexes: pyarrow trusts the offsets in a file, so they are checked before use."""

import struct
from pathlib import Path

import pyarrow as pa
import pytest

from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.fields import FIELD, arrow_schema, numpy_view, standard_fields
from refit_shard.shards_spec.manifest import ShardEntry
from refit_shard.shards_spec.reader import open_index, read_index, read_seal
from refit_shard.shards_spec.storage.folder import open_folder
from tests.hostile.batch import mutated, outcomes
from tests.small import own

ROWS = 6
FIELDS = standard_fields(extrinsics=False, key_bytes=12, imgname_bytes=20)


def entry(name: str) -> ShardEntry:
    """The index of a shard of six rows."""
    return ShardEntry(
        name=name, rows=ROWS, tar_bytes=0, tar_sha256="", arrow_bytes=0, arrow_sha256=""
    )


def parse(path: Path) -> None:
    """Read every value of an index, as the loader, ``verify`` and a continued build do."""
    batch = open_index(open_folder(str(path.parent)), entry(path.stem), FIELDS)
    for name in batch.schema.names:
        batch.column(name).to_pylist()
        numpy_view(FIELD[name], batch.column(name)).copy()
    if batch.schema.metadata:
        read_seal(batch, path.name)


def make_whole(place: Path) -> bytes:
    """The bytes of an undamaged index."""
    tree = own(place, rows=ROWS)
    assert tree.build().code == 0
    return (tree.out / "own-000000.arrow").read_bytes()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an undamaged index."""
    return make_whole(tmp_path_factory.mktemp("index"))


def test_any_damage_is_read_or_our_error(index: bytes, tmp_path: Path) -> None:
    found = outcomes(__name__, index, mutated(index, 4000, head=2600), tmp_path)
    assert {"ShardError", "FormatError"} == set(found) - {"read"}


def test_offsets_of_strings_that_lead_outside_are_our_error(index: bytes, tmp_path: Path) -> None:
    """The smallest such file has one wrong offset; without the check the interpreter crashes."""
    lengths = [len(f"own-{row:08d}") for row in range(ROWS)]
    offsets = [sum(lengths[:row]) for row in range(ROWS + 1)]
    at = index.index(struct.pack(f"<{ROWS + 1}i", *offsets))
    cases = []
    for place, value in ((1, 2**31 - 1), (ROWS, 2**31 - 1), (1, -(2**31)), (ROWS, -1), (3, 1)):
        begin = at + 4 * place
        cases.append(index[:begin] + struct.pack("<i", value) + index[begin + 4 :])
    assert outcomes(__name__, index, cases, tmp_path) == ["ShardError"] * len(cases)


def test_a_message_of_an_unknown_kind_is_not_read_as_a_schema(index: bytes, tmp_path: Path) -> None:
    """Arrow verifies a message's table by its kind; without the check this kind crashes it."""
    kinds = [at for at in range(16, 64) if index[at] == 1]  # MessageHeader.Schema, among others
    cases = []
    for at in kinds:
        spoilt = bytearray(index)
        spoilt[at] = 173
        spoilt[700:760] = b"\xfc" * 60  # the schema's tables, which are not verified then
        cases.append(bytes(spoilt))
    found = outcomes(__name__, index, cases, tmp_path)
    assert len(found) == len(cases) > 0
    assert set(found) == {"ShardError"}


def written(batch: pa.RecordBatch, **options: object) -> bytes:
    """The bytes of an Arrow file with this batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def test_missing_values_and_a_column_twice_are_our_errors(tmp_path: Path) -> None:
    schema = arrow_schema(FIELDS)
    twice = [*list(schema)[:-1], schema.field(0)]
    for fields in (list(schema), twice):
        kinds = [pa.nulls(ROWS, field.type) for field in fields]
        batch = pa.RecordBatch.from_arrays(kinds, schema=pa.schema(fields))
        (tmp_path / "x.arrow").write_bytes(written(batch))
        with pytest.raises(ShardError):
            open_index(open_folder(str(tmp_path)), entry("x"), FIELDS)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_table_of_few_bytes_does_not_unpack_to_many(tmp_path: Path, codec: str) -> None:
    """Indexes are never compressed, so a compressed one is not unpacked."""
    zeros = pa.array([0], pa.int64()).take(pa.array([0] * (1 << 20), pa.int32()))
    data = written(pa.RecordBatch.from_arrays([zeros], ["a"]), compression=codec)
    assert len(data) < 1 << 20
    (tmp_path / "x.arrow").write_bytes(data)
    with pytest.raises(ShardError, match="compressed"):
        read_index(open_folder(str(tmp_path)), "x.arrow")
