"""Conditions on rows as text: ``scale > 0.5 and has_smpl and dataset == 'bedlam'``.

The text is one condition on a row in DuckDB's SQL; DuckDB parses and evaluates it. Only this module
imports DuckDB, which the extra ``query`` installs.
"""

import json
import re
import sys
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
# A condition can read only the rows registered for it: no files, no network, no extensions.
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
# Expressions allowed in a condition on one row: no subquery, window function, parameter or star.
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
    """DuckDB functions whose result changes from call to call, or that have side effects."""
    query = "SELECT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
    found = _database().cursor().execute(query).fetchall()
    return frozenset(_CLOCKS.union(name for (name,) in found))


class Where:
    """A condition on rows.

    Attributes:
        text: the condition as given.
        names: the columns that it mentions.
    """

    def __init__(self, text: str) -> None:
        """Parse the text.

        Raises:
            UsageError: it is not a valid condition on one row.
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
        """DuckDB's syntax tree of a query with this condition, or its parse error."""
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
            raise UsageError(f"where: {self.text:.200}: must be a single condition")
        return condition

    def _complaint(self, tree: Any) -> str:
        """The error line for a text that DuckDB cannot parse; it marks the place of the error."""
        at = int(tree.get("position") or 0) - len(_BEFORE)
        said = " ".join(str(tree["error_message"]).split())
        text = self.text.encode()
        if at >= len(text):
            return f"{self.text:.200}: is incomplete, or has a parenthesis too many"
        if at < 0:
            return f"{self.text:.200}: {said:.{_LONGEST}}"
        before, after = (part.decode(errors="replace") for part in (text[:at], text[at:]))
        word = re.split(r"\W", after)[0]
        fix = f'; {word} is a word of SQL: write "{word}"' if word in FIELD else ""
        return f"{said:.{_LONGEST}}, here: {before[-100:].rstrip()} >>> {after[:100]}{fix}"

    def _names(self, condition: Any) -> Iterator[str]:
        """The columns that the condition mentions; checks that all its expressions are allowed.

        Raises:
            UsageError: an expression is not allowed in a condition on one row.
        """
        for part in _parts(condition):
            kind = part["class"]
            if kind not in _PARTS:
                raise UsageError(
                    f"where: {self.text:.200}: {kind.lower()} is not allowed in a condition on one "
                    "row"
                )
            if kind == "COLUMN_REF":
                yield str(part["column_names"][0])
            if part["type"] == "ARRAY_EXTRACT":
                self._check_index(part)
            if kind == "COMPARISON" and part["type"] in _ORDERED and _is_chain(part):
                raise UsageError(
                    f"where: {self.text:.200}: a < b < c compares the truth value of a < b with c; "
                    "write a < b and b < c"
                )
            if kind == "FUNCTION" and part["function_name"] in _volatile():
                raise UsageError(
                    f"where: {part['function_name']}() gives a different result each time; to "
                    "choose a part of the rows write hash(key) % 10 == 0"
                )
            if kind == "FUNCTION" and part["function_name"] == "isnan":
                raise UsageError("where: isnan(x): a NaN is a missing value here; write x is null")

    def _check_index(self, part: Any) -> None:
        """Refuse a number that no entry of a list has, as SQL takes the entry for missing.

        Raises:
            UsageError: it is 0, or beyond the end of a column of the format.
        """
        listed, index = part["children"]
        name = str(listed.get("column_names", ["list"])[-1])
        stated = index.get("literal") or index.get("value") or {}  # by DuckDB's version
        text = str(stated.get("text", stated.get("value")))
        if re.fullmatch(r"-?\d{1,18}", text) and not 1 <= abs(int(text)) <= _length(name):
            last = f"; its last entry is {name}[{_length(name)}]" if name in FIELD else ""
            raise UsageError(f"where: {name}[{text}]: lists are counted from 1{last}")

    def places(self, table: pa.Table) -> NDArray[np.int64]:
        """The numbers of a table's rows that meet the condition, (n,) int64, ascending.

        The table has the columns ``names``. A NaN is a missing value and meets no comparison.

        Raises:
            UsageError: DuckDB cannot evaluate the condition on columns of these types.
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


def _length(name: str) -> int:
    """Entries of a row's list in a column of the format; of another one no number is too large."""
    return FIELD[name].size if name in FIELD else sys.maxsize


def _is_chain(comparison: Any) -> bool:
    sides = (comparison["left"], comparison["right"])
    return any(side["class"] == "COMPARISON" for side in sides)


def _line(error: Exception) -> str:
    """DuckDB's error message without the lines that show the query."""
    return " ".join(str(error).partition("\nLINE")[0].split())[:_LONGEST]


def _nan_to_null(column: Any) -> Any:
    """The column with nulls for NaN, and with float32 for float16, which DuckDB lacks."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array(map(_nan_to_null, column.chunks))
    kind = column.type
    if pa.types.is_struct(kind):
        parts = map(_nan_to_null, column.flatten())
        return pa.StructArray.from_arrays(list(parts), [field.name for field in kind])
    if pa.types.is_fixed_size_list(kind) and column.null_count:  # the dataset lacks this label
        return pa.nulls(len(column), pa.list_(pa.float32(), kind.list_size))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_nan_to_null(column.flatten()), kind.list_size)
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if not pa.types.is_floating(kind):
        return column
    return pc.if_else(pc.is_nan(column), None, column)
