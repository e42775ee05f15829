"""The field table: every column of a shard, declared once.

The Arrow schema, the dtype of the ``.npy`` members, the checks of a reader and the table in
``docs/format.md`` are all made from :data:`FIELDS`, so writer and reader cannot drift apart.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

STRING = "string"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column.

    ``dtype`` is a numpy scalar type name, or ``"string"``. ``shape`` is that of one row; Arrow
    stores it flattened. ``extrinsic`` columns exist only where the source has all of them.
    ``in_npy`` says whether the ``.npy`` member beside the image holds it too.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    doc: str
    extrinsic: bool = False
    in_npy: bool = True

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
)

FIELD: Mapping[str, Field] = {field.name: field for field in FIELDS}
EXTRINSICS: tuple[str, ...] = tuple(field.name for field in FIELDS if field.extrinsic)


def fields_of(*, extrinsics: bool) -> tuple[Field, ...]:
    """The columns of a data set with or without camera extrinsics, in their order."""
    return tuple(field for field in FIELDS if extrinsics or not field.extrinsic)


def arrow_schema(*, extrinsics: bool) -> pa.Schema:
    """Schema of an index table. No column is nullable."""
    return pa.schema(
        pa.field(field.name, field.arrow_type, nullable=False)
        for field in fields_of(extrinsics=extrinsics)
    )


def npy_dtype(*, extrinsics: bool, key_bytes: int, imgname_bytes: int) -> np.dtype[np.void]:
    """Dtype of a ``.npy`` member: a structured scalar; strings are fixed-length UTF-8 bytes."""
    widths = {"key": key_bytes, "imgname": imgname_bytes}
    return np.dtype(
        [
            (field.name, f"S{widths[field.name]}" if field.dtype == STRING else field.dtype)
            + ((field.shape,) if field.shape else ())
            for field in fields_of(extrinsics=extrinsics)
            if field.in_npy
        ]
    )


def npy_header(dtype: np.dtype[np.void]) -> bytes:
    """The bytes that stand before the record in every ``.npy`` member of one data set."""
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


def schema_hash(*, extrinsics: bool) -> str:
    """SHA-256 of the columns' names, types and row shapes; a reader refuses any other."""
    text = "\n".join(
        f"{field.name} {field.dtype} {field.shape}" for field in fields_of(extrinsics=extrinsics)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def arrow_column(field: Field, values: Any) -> pa.Array:
    """Column of ``field`` from row values: strings, or an array-like (n, \\*field.shape)."""
    if field.dtype == STRING:
        return pa.array(values, pa.string())
    flat: NDArray[Any] = np.ascontiguousarray(values, dtype=field.dtype)
    if not field.shape:
        return pa.array(flat)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), field.size)


def numpy_view(field: Field, column: pa.Array) -> NDArray[Any]:
    """Values of a column as an array (n, \\*field.shape): a read-only view.

    Booleans are bits in Arrow and strings are ragged, so these two kinds are unpacked.
    """
    if field.shape:
        return np.asarray(column.flatten().to_numpy()).reshape(-1, *field.shape)
    return np.asarray(column.to_numpy(zero_copy_only=field.dtype not in (STRING, "bool")))


def markdown_table(fields: Iterable[Field] = FIELDS) -> str:
    """The table of columns for ``docs/format.md``."""
    rows = ["| column | type | meaning |", "|---|---|---|"]
    for field in fields:
        shape = f"[{field.size}]" if field.shape else ""
        notes = "" if field.in_npy else " (index only)"
        notes += " (only where the source has all three)" if field.extrinsic else ""
        rows.append(f"| {field.name} | {field.dtype}{shape} | {field.doc}{notes} |")
    return "\n".join(rows)
