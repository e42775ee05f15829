"""The field table: every column of a shard, declared once.

The Arrow schema, the dtype of the ``.npy`` members, the checks of a reader and the table in
``docs/how/format.md`` are all made from :data:`FIELDS`, so writer and reader always agree.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from crc32c import crc32c
from numpy.typing import NDArray

from refit_shard.shards_spec.own import HAS, RESERVED, STILL, Motion

STRING = "string"
RECORD_CRC = "record_crc32c"
CRC_BYTES = 4
# The dtypes that own labels may have.
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", STRING),
)
MAX_COLUMNS = 256
MAX_RECORD_BYTES = 1 << 20
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column.

    Args:
        name: The column's name.
        dtype: A numpy scalar type's name, or ``"string"``.
        shape: The shape of one row; Arrow stores it flattened.
        doc: What the column holds, with its unit.
        width: Bytes of a string in the ``.npy`` member, which depends on the dataset.
        extrinsic: True if the column exists only if the npz has all camera extrinsics.
        in_npy: True if the column is in the ``.npy`` member beside the image too.
        motion: How an own label moves with its image.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    doc: str = ""
    width: int = 0
    extrinsic: bool = False
    in_npy: bool = True
    motion: Motion = STILL

    def __str__(self) -> str:
        shape = f"{list(self.shape)}" if self.shape else ""
        return f"{self.name} {self.dtype}{shape} ({self.motion.kind})"

    @property
    def size(self) -> int:
        """Number of scalars in one row."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's Arrow type; vectors are fixed-size lists."""
        if self.dtype == STRING:
            return pa.string()
        scalar = pa.from_numpy_dtype(np.dtype(self.dtype))
        return pa.list_(scalar, self.size) if self.shape else scalar


FIELDS: tuple[Field, ...] = (
    Field(name="key", dtype=STRING, doc="`{dataset}-{source_row:08d}`, the stem in the tar"),
    Field(name="imgname", dtype=STRING, doc="the frame's name, as the npz has it"),
    Field(name="source_row", dtype="int64", doc="row of the source npz, from 0"),
    Field(name="jpg_offset", dtype="uint64", in_npy=False, doc="first byte of the JPEG in the tar"),
    Field(name="jpg_length", dtype="uint32", in_npy=False, doc="bytes of the JPEG"),
    Field(name="jpg_crc32c", dtype="uint32", doc="CRC-32C (Castagnoli) of the JPEG's bytes"),
    Field(name="width", dtype="int32", doc="of the stored crop, px"),
    Field(name="height", dtype="int32", doc="of the stored crop, px"),
    Field(
        name="window",
        dtype="int32",
        shape=(4,),
        doc="x0, y0, x1, y1 of the stored crop in source pixels; x1 and y1 are exclusive",
    ),
    Field(
        name="k",
        dtype="float64",
        shape=(2,),
        doc="kx, ky: stored = (source + 0.5 - x0) * k - 0.5, pixel centres at whole numbers",
    ),
    Field(
        name="orig_shape",
        dtype="int32",
        shape=(2,),
        doc="H, W of the frame, px, after any orientation fix",
    ),
    Field(name="center", dtype="float64", shape=(2,), doc="box centre x, y, source px"),
    Field(name="scale", dtype="float64", doc="side of the square box = 200 * scale source px"),
    Field(name="img_focal", dtype="float32", doc="focal length, px; sqrt(H^2 + W^2) if unknown"),
    Field(
        name="img_center",
        dtype="float32",
        shape=(2,),
        doc="principal point x, y, px; (W/2, H/2) if unknown",
    ),
    Field(name="has_camcalib", dtype="bool", doc="img_focal and img_center come from the source"),
    Field(
        name="keypoints",
        dtype="float32",
        shape=(49, 3),
        doc="OpenPose's 25 then SPIN's 24 joints; x, y in source px, confidence",
    ),
    Field(
        name="pose",
        dtype="float32",
        shape=(72,),
        doc="SMPL pose: 24 axis-angle rotations, rad, root in the camera frame; zeros if unknown",
    ),
    Field(name="betas", dtype="float32", shape=(10,), doc="SMPL shape; zeros if unknown"),
    Field(name="has_smpl", dtype="bool", doc="pose and betas are known"),
    Field(
        name="pose_3d",
        dtype="float32",
        shape=(24, 4),
        doc="SPIN's 24 joints; x, y, z in metres from the pelvis, camera frame; confidence",
    ),
    Field(name="has_pose_3d", dtype="bool", doc="pose_3d is known"),
    Field(name="gender", dtype="int8", doc="0 male, 1 female, -1 unknown"),
    Field(name="cam_R", dtype="float32", shape=(3, 3), extrinsic=True, doc="world to camera"),
    Field(name="cam_t", dtype="float32", shape=(3,), extrinsic=True, doc="world to camera, mm"),
    Field(name="trans", dtype="float32", shape=(3,), extrinsic=True, doc="SMPL translation, m"),
    Field(
        name=RECORD_CRC,
        dtype="uint32",
        doc="CRC-32C of the bytes of the `.npy`'s record before it; always the last column",
    ),
)

FIELD: Mapping[str, Field] = {field.name: field for field in FIELDS}
EXTRINSICS: tuple[str, ...] = tuple(field.name for field in FIELDS if field.extrinsic)


def standard_fields(*, extrinsics: bool, key_bytes: int, imgname_bytes: int) -> tuple[Field, ...]:
    """The columns of the field table, in order, with or without camera extrinsics.

    ``key_bytes``, ``imgname_bytes``: length of the longest key and name as UTF-8.
    """
    widths = {"key": key_bytes, "imgname": imgname_bytes}
    return tuple(
        replace(field, width=widths.get(field.name, 0))
        for field in FIELDS
        if extrinsics or not field.extrinsic
    )


def with_own(fields: Sequence[Field], own: Sequence[Field]) -> tuple[Field, ...]:
    """The columns with own labels inserted before the record's checksum."""
    return (*fields[:-1], *own, fields[-1])


def own_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Those of the columns that are own labels."""
    return tuple(field for field in fields if field.name not in FIELD)


def is_own_name(name: str) -> bool:
    """True if an own label may have this name. ``has_…`` is reserved: in a batch it is 1 for the
    rows whose dataset has the label.
    """
    taken = name in FIELD or name in RESERVED or name.startswith(HAS)
    return _OWN_NAME.fullmatch(name) is not None and not taken


def too_large(fields: Iterable[Field]) -> str:
    """A text that says which limit of the format a row with these columns exceeds; empty if
    none.
    """
    listed = tuple(fields)
    if len(listed) > MAX_COLUMNS:
        return f"more than {MAX_COLUMNS} columns"
    sizes = [np.prod(field.shape, dtype=object) * max(8, field.width) for field in listed]
    return f"a row has more than {MAX_RECORD_BYTES} bytes" if sum(sizes) > MAX_RECORD_BYTES else ""


def has_extrinsics(fields: Iterable[Field]) -> bool:
    """True if the camera extrinsics are among the columns."""
    return any(field.extrinsic for field in fields)


def arrow_schema(fields: Iterable[Field]) -> pa.Schema:
    """The Arrow schema of an index. No column is nullable."""
    return pa.schema(pa.field(field.name, field.arrow_type, nullable=False) for field in fields)


def npy_dtype(fields: Iterable[Field]) -> np.dtype[np.void]:
    """The dtype of a ``.npy`` member: a structured scalar; strings are fixed-length UTF-8 bytes."""
    return np.dtype(
        [
            (
                field.name,
                f"S{field.width}"
                if field.dtype == STRING
                else np.dtype(field.dtype).newbyteorder("<"),
                *((field.shape,) if field.shape else ()),
            )
            for field in fields
            if field.in_npy
        ]
    )


def record_crc(record: bytes | memoryview) -> int:
    """CRC-32C of a record without its last four bytes, where the CRC itself is stored."""
    return int(crc32c(memoryview(record)[:-CRC_BYTES]))


def is_whole_record(record: bytes | memoryview) -> bool:
    """True if a record's bytes have the CRC that is stored in the record."""
    return record_crc(record) == int.from_bytes(record[-CRC_BYTES:], "little")


def npy_header(dtype: np.dtype[np.void]) -> bytes:
    """The header of every ``.npy`` member of one dataset: the bytes before the record."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (),
        },
    )
    return stream.getvalue()


def arrow_column(field: Field, values: Any) -> pa.Array:
    """An Arrow column of ``field``. ``values``: strings, or an array-like (n, \\*field.shape)."""
    if field.dtype == STRING:
        return pa.array(values, pa.string())
    flat: NDArray[Any] = np.ascontiguousarray(values, dtype=field.dtype)
    if not field.shape:
        return pa.array(flat)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), field.size)


def numpy_view(field: Field, column: pa.Array) -> NDArray[Any]:
    """The values of an Arrow column as an array (n, \\*field.shape): a read-only view, except that
    booleans and strings, which Arrow stores in another form, are copied.

    ``to_numpy`` would import pandas, where it is installed: 0.2 s and 20 MB at every start.
    """
    flat, first, count = column, 0, len(column) * field.size
    if field.shape:
        flat, first = column.values, column.offset * field.size
    if field.dtype in (STRING, "bool"):
        found = np.asarray(flat.slice(first, count).to_numpy(zero_copy_only=False))
    else:
        dtype = np.dtype(field.dtype)
        begin = (flat.offset + first) * dtype.itemsize
        found = np.frombuffer(flat.buffers()[1] or b"", dtype, count, begin)
        found.flags.writeable = False  # memory that came from numpy would be written to
    return found.reshape(-1, *field.shape)


def markdown_table(fields: Iterable[Field] = FIELDS) -> str:
    """The table of columns for ``docs/how/format.md``."""
    rows = ["| column | type | meaning |", "|---|---|---|"]
    for field in fields:
        shape = f"[{field.size}]" if field.shape else ""
        notes = "" if field.in_npy else " (index only)"
        notes += " (only where the source has all three)" if field.extrinsic else ""
        rows.append(f"| {field.name} | {field.dtype}{shape} | {field.doc}{notes} |")
    return "\n".join(rows)
