"""Rows as JSON, read back by Python's own reader."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from refit_shard.shards_spec.fields import Field, arrow_column, arrow_schema
from refit_shard.shards_spec.json_rows import json_rows


def read(batch: pa.RecordBatch, shapes: dict[str, tuple[int, ...]]) -> list[Any]:
    """The rows, read back; JSON has no NaN and no Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    texts = list(json_rows(batch, shapes))
    assert not any("\n" in text for text in texts)
    return [json.loads(text, parse_constant=refuse) for text in texts]


def test_structs_are_objects_and_what_is_missing_is_null() -> None:
    points = pa.StructArray.from_arrays(
        [pa.array([1.0, np.nan], pa.float32()), pa.array([2, None])], names=["x", 'y"']
    )
    lists = pa.array([None, None], pa.list_(pa.float32(), 3))
    batch = pa.record_batch({"p": points, "none": lists, "word": pa.array(["a", None])})
    assert read(batch, {}) == [
        {"p": {"x": 1.0, 'y"': 2}, "none": None, "word": "a"},
        {"p": {"x": None, 'y"': None}, "none": None, "word": None},
    ]


def test_many_rows_come_in_their_order() -> None:
    values = np.arange(300 * 6, dtype=np.float32).reshape(300, 2, 3) / 7
    points = pa.StructArray.from_arrays([pa.array(np.arange(300))], names=["x"])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
    batch = pa.record_batch({"value": lists, "flat": lists, "p": points})
    rows = read(batch, {"value": (2, 3)})
    assert np.array_equal(np.array([row["value"] for row in rows], np.float32), values)
    assert [row["flat"] for row in rows] == [[*row["value"][0], *row["value"][1]] for row in rows]
    assert [row["p"]["x"] for row in rows] == list(range(300))
    assert read(batch.slice(200, 5), {"value": (2, 3)}) == rows[200:205]
    assert read(batch.slice(0, 0), {}) == []


@given(
    dtype=st.sampled_from(["bool", "int8", "uint64", "int64", "float16", "float32", "float64"]),
    shape=st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2)]),
    rows=st.integers(1, 4),
    data=st.data(),
)
def test_labels_come_back_from_json(
    dtype: str, shape: tuple[int, ...], rows: int, data: st.DataObject
) -> None:
    """As Python's own reader has them: the same bits, but for NaN and infinity, which are null."""
    size = rows * int(np.prod(shape))
    raw = data.draw(st.binary(min_size=size * 8, max_size=size * 8))
    bits = np.frombuffer(raw, "u8")[:size]
    values = (
        (bits & 1).astype(bool)
        if dtype == "bool"
        else bits.view("u1")[: size * np.dtype(dtype).itemsize].view(dtype)
    ).reshape(rows, *shape)
    texts = data.draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=rows, max_size=rows)
    )
    fields = (Field(name="value", dtype=dtype, shape=shape), Field(name="text", dtype="string"))
    columns = [arrow_column(fields[0], values), arrow_column(fields[1], texts)]
    batch = pa.record_batch(columns, schema=arrow_schema(fields))
    said = read(batch, {"value": shape})
    assert [one["text"] for one in said] == texts
    for one, wanted in zip(said, values, strict=True):
        given_values = np.array(one["value"], object)
        assert given_values.shape == wanted.shape
        for found, value in zip(given_values.ravel().tolist(), wanted.ravel(), strict=True):
            if dtype.startswith("float"):
                assert type(found) is (float if np.isfinite(value) else type(None))
                assert found is None or np.array(found, dtype).tobytes() == value.tobytes()
            else:
                assert found == value.item()
                assert type(found) is type(value.item())
