"""Writes rows of a table as JSON, many at a time, with Arrow's kernels."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A row has at most 1 MB of labels, and an Arrow column of strings at most 2 GB.
_ROWS_AT_ONCE = 128
_NULL = "null"


def json_rows(batch: pa.RecordBatch, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yields each row as a JSON object of its columns, in one line.

    Arrays are nested lists with the shape that ``shapes`` gives for their column, or flat lists;
    structs are objects. Missing values, NaN and infinities are ``null``. A float has a decimal
    point or an exponent, and enough digits to give the same value in its type when it is read.
    """
    for begin in range(0, batch.num_rows, _ROWS_AT_ONCE):
        some = batch.slice(begin, _ROWS_AT_ONCE)
        columns = {
            name: _texts(column, shapes.get(name, ()))
            for name, column in zip(some.schema.names, some.columns, strict=True)
        }
        yield from _objects(columns).to_pylist()


def _objects(columns: Mapping[str, pa.Array]) -> pa.Array:
    """A column of JSON objects, from columns of JSON texts by name."""
    parts = [part for name, texts in columns.items() for part in (f", {json.dumps(name)}: ", texts)]
    return pc.binary_join_element_wise("{" + parts[0][2:], *parts[1:], "}", "")


def _texts(column: pa.Array, shape: tuple[int, ...]) -> pa.Array:
    """A column as JSON texts, one for each row."""
    if pa.types.is_struct(column.type):
        parts = zip(column.type, column.flatten(), strict=True)
        return _objects({field.name: _texts(part, ()) for field, part in parts})
    if pa.types.is_fixed_size_list(column.type):
        return _lists(column, shape or (column.type.list_size,))
    if pa.types.is_string(column.type):
        return pa.array([json.dumps(text) for text in column.to_pylist()], pa.string())
    return _scalars(column)


def _lists(column: pa.Array, shape: tuple[int, ...]) -> pa.Array:
    if column.null_count:  # a dataset has a label in all of its rows or in none
        return pa.repeat(_NULL, len(column))
    texts = _scalars(column.flatten())
    for size in reversed(shape):
        ends = pa.array(np.arange(0, len(texts) + 1, size, dtype=np.int32))
        joined = pc.binary_join(pa.ListArray.from_arrays(ends, texts), ", ")
        texts = pc.binary_join_element_wise("[", joined, "]", "")
    return texts


def _scalars(values: pa.Array) -> pa.Array:
    """Numbers and booleans as JSON texts."""
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())  # Arrow writes float16 with more digits than needed
    texts = pc.fill_null(values.cast(pa.string()), _NULL)
    if not pa.types.is_floating(values.type):
        return texts
    bare = pc.invert(pc.match_substring_regex(texts, r"[.en]"))
    texts = pc.if_else(bare, pc.binary_join_element_wise(texts, ".0", ""), texts)
    return pc.if_else(pc.match_substring(texts, "n"), _NULL, texts)  # nan, inf, null
