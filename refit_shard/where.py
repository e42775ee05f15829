"""Which rows, said as a text: ``scale > 0.5 and has_smpl and dataset == 'bedlam'``.

The text is one condition on a row, in the SQL of DuckDB, which parses and evaluates it. This module
alone knows DuckDB, of the extra ``query``.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.fields import FIELD

MAX_TEXT = 20_000
_LONGEST = 300
# Nothing but the rows that it is given, and nothing that the text could change.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "1GB",
    "threads": "1",
}
# A division by zero is a missing value too: DuckDB takes its NaN for larger than any number.
_NO_NAN = ("ieee_floating_point_ops", "error_on_division_by_zero")
# Functions that tell the time, which DuckDB takes for constant within a query.
_CLOCKS = {
    *("age", "current_date", "current_localtime", "current_localtimestamp", "get_current_time"),
    *("get_current_timestamp", "now", "today", "transaction_timestamp", "txid_current"),
}
# What a condition on one row is made of: no subquery, no window, no parameter, no star.
_PARTS = {
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION"),
    *("CONSTANT", "FUNCTION", "OPERATOR", "TYPE"),
}
_ORDERED = {
    *("COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO"),
    *("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO"),
}
_BEFORE = "SELECT 1 WHERE (\n"
_PLACE, _TABLE = '"#"', '"_"'


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database in memory, of which each condition has a connection of its own."""
    database = duckdb.connect(config=_CONFIG)
    for name in _NO_NAN:
        with suppress(duckdb.CatalogException):  # not every version has both
            database.execute(f"SET GLOBAL {name} = false")
    database.execute("SET lock_configuration = true")
    return database


@cache
def _volatile() -> frozenset[str]:
    """Functions that give another answer each time, or do something."""
    query = "SELECT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
    found = _database().cursor().execute(query).fetchall()
    return frozenset(_CLOCKS.union(name for (name,) in found))


class Where:
    """A condition on rows. ``text``: as it was given; ``names``: the columns that it mentions."""

    def __init__(self, text: str) -> None:
        """Parse the text.

        Raises:
            UsageError: it is no condition on one row.
        """
        if not isinstance(text, str):
            raise UsageError(
                f'where: must be a text such as "scale > 0.5 and has_smpl", got {text!r:.80}'
            )
        if not text.strip() or len(text) > MAX_TEXT:
            raise UsageError(f"where: must have 1 to {MAX_TEXT} characters, got {len(text)}")
        self.text = text
        self._duck = _database().cursor()
        self.names = tuple(dict.fromkeys(self._names(self._condition())))

    def _tree(self, text: str) -> Any:
        """How DuckDB understands a condition: its statements, or its error."""
        query = f"{_BEFORE}{text}\n)"
        (found,) = self._duck.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[
            0
        ]
        return json.loads(found)

    def _condition(self) -> Any:
        try:
            tree, plain = self._tree(self.text), self._tree("true")
        except (duckdb.Error, UnicodeError) as error:
            raise UsageError(f"where: {self.text:.80}: {_line(error)}") from error
        except RecursionError as error:
            raise UsageError(f"where: {self.text:.80}…: nested too deeply") from error
        if tree["error"]:
            raise UsageError(f"where: {self._complaint(tree)}")
        (condition,) = (one["node"].pop("where_clause", None) for one in tree["statements"][:1])
        plain["statements"][0]["node"].pop("where_clause")
        if condition is None or tree != plain:
            raise UsageError(f"where: {self.text:.200}: must be one condition and nothing after it")
        return condition

    def _complaint(self, tree: Any) -> str:
        """The line for a text that DuckDB cannot parse, up to the place where it fails."""
        at = int(tree.get("position") or 0) - len(_BEFORE)
        said = " ".join(str(tree["error_message"]).split())
        text = self.text.encode()
        if at >= len(text):
            return f"{self.text:.200}: breaks off, or has a parenthesis too many"
        if at < 0:
            return f"{self.text:.200}: {said:.{_LONGEST}}"
        before, after = (part.decode(errors="replace") for part in (text[:at], text[at:]))
        word = re.split(r"\W", after)[0]
        fix = f'; {word} is a word of SQL: write "{word}"' if word in FIELD else ""
        return f"{said:.{_LONGEST}}, here: {before[-100:].rstrip()} >>> {after[:100]}{fix}"

    def _names(self, condition: Any) -> Iterator[str]:
        """The columns that the condition mentions, once all its parts are allowed ones.

        Raises:
            UsageError: a part is none of a condition on one row.
        """
        for part in _parts(condition):
            kind = part["class"]
            if kind not in _PARTS:
                raise UsageError(
                    f"where: {self.text:.200}: {kind.lower()} is no part of a condition on one row"
                )
            if kind == "COLUMN_REF":
                yield str(part["column_names"][0])
            if kind == "COMPARISON" and part["type"] in _ORDERED and _is_chain(part):
                raise UsageError(
                    f"where: {self.text:.200}: a < b < c compares a truth with c; write a < b and "
                    "b < c"
                )
            if kind == "FUNCTION" and part["function_name"] in _volatile():
                raise UsageError(
                    f"where: {part['function_name']}() gives another answer each time; for a part "
                    "of the rows write hash(key) % 10 == 0"
                )
            if kind == "FUNCTION" and part["function_name"] == "isnan":
                raise UsageError("where: isnan(x): a NaN is a missing value here; write x is null")

    def places(self, table: pa.Table) -> NDArray[np.int64]:
        """The rows of a table, with the columns ``names``, that meet the condition; rising.

        A NaN is a missing value: what is compared with it is not met.

        Raises:
            UsageError: a column is of a kind that the condition cannot be asked of.
        """
        columns = {name: _nan_to_null(table[name]) for name in self.names}
        numbers = pa.array(np.arange(table.num_rows))
        asked = pa.table({**columns, _PLACE[1:-1]: numbers})
        self._duck.register(_TABLE[1:-1], asked.to_reader())
        try:
            query = f"SELECT {_PLACE} FROM {_TABLE} WHERE (\n{self.text}\n)"
            found = self._duck.execute(query).fetchnumpy()[_PLACE[1:-1]]
        except duckdb.Error as error:
            raise UsageError(f"where: {self.text:.200}: {_line(error)}") from error
        finally:
            self._duck.unregister(_TABLE[1:-1])
        return np.sort(np.asarray(found, np.int64))


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression within a condition."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "class" in one:
                yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is_chain(comparison: Any) -> bool:
    sides = (comparison["left"], comparison["right"])
    return any(side["class"] == "COMPARISON" for side in sides)


def _line(error: Exception) -> str:
    """What DuckDB says, without the lines that show the query."""
    return " ".join(str(error).partition("\nLINE")[0].split())[:_LONGEST]


def _nan_to_null(column: Any) -> Any:
    """The column with missing values for NaN, and with a kind that DuckDB has for float16."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array(map(_nan_to_null, column.chunks))
    kind = column.type
    if pa.types.is_struct(kind):
        parts = map(_nan_to_null, column.flatten())
        return pa.StructArray.from_arrays(list(parts), [field.name for field in kind])
    if pa.types.is_fixed_size_list(kind) and column.null_count:  # a set lacks a label in all rows
        return pa.nulls(len(column), pa.list_(pa.float32(), kind.list_size))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_nan_to_null(column.flatten()), kind.list_size)
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if not pa.types.is_floating(kind):
        return column
    return pc.if_else(pc.is_nan(column), None, column)
