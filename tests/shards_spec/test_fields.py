"""The field table: the columns that the format promises, and that every form of them agrees."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from refit_shard.shards_spec.fields import (
    FIELDS,
    Field,
    arrow_column,
    arrow_schema,
    is_whole_record,
    markdown_table,
    npy_dtype,
    npy_header,
    numpy_view,
    record_crc,
    standard_fields,
)


def vector(kind: pa.DataType, size: int) -> pa.DataType:
    """A fixed-size list."""
    return pa.list_(kind, size)


PROMISED: dict[str, pa.DataType] = {
    "key": pa.string(),
    "imgname": pa.string(),
    "source_row": pa.int64(),
    "jpg_offset": pa.uint64(),
    "jpg_length": pa.uint32(),
    "jpg_crc32c": pa.uint32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "window": vector(pa.int32(), 4),
    "k": vector(pa.float64(), 2),
    "orig_shape": vector(pa.int32(), 2),
    "center": vector(pa.float64(), 2),
    "scale": pa.float64(),
    "img_focal": pa.float32(),
    "img_center": vector(pa.float32(), 2),
    "has_camcalib": pa.bool_(),
    "keypoints": vector(pa.float32(), 147),
    "pose": vector(pa.float32(), 72),
    "betas": vector(pa.float32(), 10),
    "has_smpl": pa.bool_(),
    "pose_3d": vector(pa.float32(), 96),
    "has_pose_3d": pa.bool_(),
    "gender": pa.int8(),
    "record_crc32c": pa.uint32(),
}
EXTRINSICS = {
    "cam_R": vector(pa.float32(), 9),
    "cam_t": vector(pa.float32(), 3),
    "trans": vector(pa.float32(), 3),
}


def of_a_set(extrinsics: bool) -> tuple[Field, ...]:
    """The columns of a dataset."""
    return standard_fields(extrinsics=extrinsics, key_bytes=13, imgname_bytes=40)


@pytest.mark.parametrize("extrinsics", [False, True])
def test_the_index_has_the_promised_columns(extrinsics: bool) -> None:
    promised = {**PROMISED, **(EXTRINSICS if extrinsics else {})}
    schema = arrow_schema(of_a_set(extrinsics))
    assert {field.name: field.type for field in schema} == promised
    assert not any(field.nullable for field in schema)


@pytest.mark.parametrize("extrinsics", [False, True])
def test_the_npy_holds_the_same_columns_but_the_offsets(extrinsics: bool) -> None:
    dtype = npy_dtype(of_a_set(extrinsics))
    schema = arrow_schema(of_a_set(extrinsics))
    assert set(dtype.names or ()) == set(schema.names) - {"jpg_offset", "jpg_length"}
    for name in dtype.names or ():
        kind = schema.field(name).type
        scalar = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
        if pa.types.is_string(scalar):
            assert dtype[name].kind == "S"
            continue
        assert dtype[name].base == np.dtype(scalar.to_pandas_dtype())
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
        assert int(np.prod(dtype[name].shape, dtype=int)) == size


def test_the_npy_header_is_that_of_numpy() -> None:
    dtype = npy_dtype(of_a_set(True))
    record = np.zeros((), dtype)
    record["key"] = b"own-00000001"
    record["pose"] = np.arange(72)
    stream = io.BytesIO()
    np.save(stream, record, allow_pickle=False)
    assert npy_header(dtype) + record.tobytes() == stream.getvalue()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: str(field.name))
def test_values_survive_the_way_into_arrow_and_back(field: Field) -> None:
    rng = np.random.default_rng(0)
    values: Any = ["a", "", "人"]
    if field.dtype != "string":
        values = rng.integers(0, 2 if field.dtype == "bool" else 100, (3, *field.shape))
        values = values.astype(field.dtype)
    back = numpy_view(field, arrow_column(field, values))
    assert back.shape == (3, *field.shape)
    assert np.array_equal(back, np.asarray(values))
    assert field.dtype == "string" or back.dtype == values.dtype


def test_a_vector_column_is_viewed_without_a_copy_and_cannot_be_written() -> None:
    field = next(field for field in FIELDS if field.name == "pose_3d")
    column = arrow_column(field, np.ones((5, 24, 4)))
    view = numpy_view(field, column.slice(2, 2))
    assert view.shape == (2, 24, 4)
    begin = column.values.buffers()[1].address
    assert view.ctypes.data == begin + 2 * 96 * 4
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1.0


def test_the_checksum_is_last_and_covers_every_byte_before_it() -> None:
    for extrinsics in (False, True):
        assert (npy_dtype(of_a_set(extrinsics)).names or ())[-1] == "record_crc32c"
        assert [field.name for field in of_a_set(extrinsics)][-1] == "record_crc32c"
    record = np.zeros((), npy_dtype(of_a_set(True)))
    record["pose"] = np.arange(72)
    record["record_crc32c"] = record_crc(record.tobytes())
    data = record.tobytes()
    assert is_whole_record(data)
    for at in range(len(data)):
        assert not is_whole_record(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])


def test_the_table_names_every_column_once() -> None:
    lines = markdown_table().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [field.name for field in FIELDS]
    assert all("index only" in line for line in lines[3:5])
