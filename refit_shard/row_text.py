"""Rows as text: lines of JSON, CSV, and the cells of a table."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from refit_shard.console import plain
from refit_shard.shards_spec.json_rows import json_rows

Shapes = Mapping[str, tuple[int, ...]]
_CELL_NUMBERS = 6
_LONGEST = 200


def json_lines(batch: pa.RecordBatch, shapes: Shapes) -> str:
    """Rows as JSON objects, one per line.

    Arrays are nested by their ``shapes``; missing and non-finite values are null. A float32 is
    printed with just enough digits to tell it from every other float32.
    """
    return "".join(f"{line}\n" for line in json_rows(batch, shapes))


def csv_lines(batch: pa.RecordBatch, shapes: Shapes, *, header: bool = False) -> str:
    """Rows as lines of CSV.

    An array is one cell of JSON, a joint is three columns. Control characters and line breaks are
    escaped.
    """
    columns: dict[str, pa.Array] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_struct(column.type):
            parts = zip(column.type, column.flatten(), strict=True)
            columns |= {f"{name}.{field.name}": part for field, part in parts}
        elif pa.types.is_fixed_size_list(column.type):
            values = _values(column, shapes.get(name, ()))
            texts = [None if value is None else json.dumps(value) for value in values]
            columns[name] = pa.array(texts, pa.string())
        elif pa.types.is_string(column.type):
            columns[name] = pa.array([_escaped(one) for one in column.to_pylist()], pa.string())
        else:
            is_half = pa.types.is_float16(column.type)
            columns[name] = column.cast(pa.float32()) if is_half else column
    sink = pa.BufferOutputStream()
    options = csv.WriteOptions(include_header=header, quoting_style="needed")
    csv.write_csv(pa.table(columns), sink, options)
    return bytes(sink.getvalue()).decode()


def cells(batch: pa.RecordBatch) -> list[list[str]]:
    """Rows as cells of a printed table: long arrays are cut, numbers rounded."""
    columns = [[cell(value) for value in _values(column, ())] for column in batch.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def cell(value: Any) -> str:
    """A value as a table's cell: long arrays and texts are cut, numbers rounded."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(map(cell, value.values()))
    if isinstance(value, list):
        more = f" … {len(value)} numbers" if len(value) > _CELL_NUMBERS else ""
        return " ".join(map(cell, value[:_CELL_NUMBERS])) + more
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.0f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _escaped(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _values(column: pa.Array, shape: tuple[int, ...]) -> list[Any]:
    """A column as values that JSON can hold."""
    if pa.types.is_struct(column.type):
        parts = [_values(part, ()) for part in column.flatten()]
        names = [field.name for field in column.type]
        return [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]
    if pa.types.is_fixed_size_list(column.type):
        if column.null_count:  # a dataset has a label in all of its rows or in none
            return [None] * len(column)
        numbers = np.array(_numbers(column.flatten()), object)
        nested: list[Any] = numbers.reshape(
            len(column), *(shape or (column.type.list_size,))
        ).tolist()
        return nested
    return _numbers(column)


def _numbers(column: pa.Array) -> list[Any]:
    if not pa.types.is_floating(column.type):
        return list(column.to_pylist())
    if not pa.types.is_float64(column.type):
        column = pc.cast(pc.cast(column.cast(pa.float32()), pa.string()), pa.float64())
    return [one if one is not None and math.isfinite(one) else None for one in column.to_pylist()]
