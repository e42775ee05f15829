"""Labels of samples as JSON, a table at a time: Arrow's kernels write the numbers."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refit_shard.shards_spec.fields import RECORD_CRC, STRING, Field

# A row has at most a megabyte of labels, and a text of Arrow's strings 2 GB.
_ROWS_AT_ONCE = 128


def label_fields(fields: Sequence[Field]) -> tuple[Field, ...]:
    """The columns that a sample's JSON holds: those of its record but the record's checksum."""
    return tuple(field for field in fields if field.in_npy and field.name != RECORD_CRC)


def json_labels(index: pa.RecordBatch, fields: Sequence[Field]) -> Iterator[str]:
    """Each row as a JSON object: arrays nested by their shape, float32 with as many digits as tell
    it from its neighbours, ``null`` for NaN and infinity.

    ``index``: rows of a shard's index, with columns that are the ``fields`` among others.
    """
    for begin in range(0, index.num_rows, _ROWS_AT_ONCE):
        some = index.slice(begin, _ROWS_AT_ONCE)
        parts = []
        for field in label_fields(fields):
            parts += [f'"{field.name}": ', _column(some.column(field.name), field), ", "]
        rows = pc.binary_join_element_wise("{", *parts[:-1], "}", "")
        yield from rows.to_pylist()


def _column(column: pa.Array, field: Field) -> pa.Array:
    """A column as JSON texts, one a row."""
    if field.dtype == STRING:
        return pa.array([json.dumps(text) for text in column.to_pylist()], pa.string())
    if not field.shape:
        return _scalars(column)
    texts = _scalars(column.flatten())
    for size in reversed(field.shape):
        ends = np.arange(0, len(texts) + 1, size, dtype=np.int32)
        joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), texts), ", ")
        texts = pc.binary_join_element_wise("[", joined, "]", "")
    return texts


def _scalars(values: pa.Array) -> pa.Array:
    """Numbers and booleans as JSON texts. A float's text shows that it is one."""
    texts = values.cast(pa.string())
    if not pa.types.is_floating(values.type):
        return texts
    bare = pc.invert(pc.match_substring_regex(texts, r"[.en]"))
    texts = pc.if_else(bare, pc.binary_join_element_wise(texts, ".0", ""), texts)
    return pc.if_else(pc.match_substring(texts, "n"), "null", texts)  # nan, inf
