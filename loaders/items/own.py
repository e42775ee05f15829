"""The labels of a data set's own in a batch: each moved as its column says."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.items import labels as label_math
from refit_shard.loaders.items.draws import Draws
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.fields import STRING, Field
from refit_shard.shards_spec.own import HAS, Motion

Columns = Mapping[str, NDArray[Any]]

# torch has had these since 2.3 only. uint64 keeps its bits.
_TENSOR_DTYPES = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def common_labels(sets: Mapping[str, Iterable[Field]]) -> tuple[Field, ...]:
    """The own labels of several data sets, by their names: each once, the first set's first.

    Raises:
        UsageError: two have one of the same name, which are not of one kind.
    """
    found: dict[str, tuple[str, Field]] = {}
    for name, fields in sets.items():
        for field in fields:
            first, other = found.setdefault(field.name, (name, field))
            found[field.name] = first, max(other, field, key=lambda one: one.width)
            if _kind(field) != _kind(other):
                raise UsageError(
                    f"{name} and {first} both have the label {field.name!r}, of other kinds: "
                    f"{field} and {other}{'' if str(field) != str(other) else ', other tables'}; "
                    "build one of them with another --keep"
                )
    return tuple(field for _, field in found.values())


def _kind(field: Field) -> tuple[str, tuple[int, ...], Motion]:
    return field.dtype, field.shape, field.motion


def empty_labels(fields: Iterable[Field], count: int) -> dict[str, NDArray[Any]]:
    """Zeros of ``count`` rows for each label."""
    return {
        field.name: np.zeros(
            (count, *field.shape), f"S{field.width}" if field.dtype == STRING else field.dtype
        )
        for field in fields
    }


def presence(
    fields: Iterable[Field], sets: Sequence[Iterable[Field]], which: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """For each label whether the data set has it that a row is of: ``which`` (n,) of ``sets``."""
    known = [{field.name for field in one} for one in sets]
    return {field.name: np.array([field.name in one for one in known])[which] for field in fields}


def move_labels(
    options: RenderOptions, fields: Iterable[Field], columns: Columns, has: Columns, draws: Draws
) -> dict[str, Any]:
    """The labels as a batch has them: arrays, of strings a list; after each ``has_…`` (n,) bool.

    ``columns``: the labels, ``center`` and ``scale``; ``has``: by the label, whether a row's data
    set has it. Where not, it is zeros.
    """
    made: dict[str, Any] = {}
    for field in fields:
        values, there = columns[field.name], has[field.name]
        if field.dtype == STRING:
            made[field.name] = [value.decode(errors="replace") for value in values.tolist()]
        else:
            with np.errstate(invalid="ignore", over="ignore"):  # NaN is theirs to have
                moved = _moved(options, field.motion, values, columns, draws)
            moved[~there] = 0
            dtype = _TENSOR_DTYPES.get(field.dtype, field.dtype)
            made[field.name] = np.ascontiguousarray(moved, dtype)
        made[HAS + field.name] = there
    return made


def _moved(
    options: RenderOptions, motion: Motion, values: NDArray[Any], columns: Columns, draws: Draws
) -> NDArray[Any]:
    """A copy of rows (n, …) as their images were turned, scaled and mirrored."""
    if motion.kind == "none":
        return values.copy()
    order = np.array(motion.flip)
    if motion.kind == "permute":
        result = values.copy()
        result[draws.flip] = values[draws.flip][:, order]
        return result
    size = math.prod(values.shape[1:])
    rows = values.reshape(len(values), len(order), size // len(order))
    if motion.kind == "points2d":
        place = label_math.placing(options.compat)
        rows = place(rows, columns["center"], columns["scale"], draws, options.res, order)
    elif motion.kind == "points3d":
        rows = label_math.points_3d(rows, draws, order)
    else:
        rows = label_math.rotations(rows, draws, order, motion.roots)
    return rows.reshape(values.shape)


def declared(fields: Sequence[Field], record: NDArray[np.void], where: str) -> None:
    """Refuse a record whose labels are not of the kinds that ``fields`` say.

    Raises:
        UsageError: with the label.
    """
    for field in fields:
        found = record.dtype[field.name] if field.name in (record.dtype.names or ()) else None
        if found is None:
            continue
        base, shape = found.base, found.shape
        dtype = STRING if base.kind == "S" else base.name
        if (dtype, shape) != (field.dtype, field.shape):
            raise UsageError(f"{where}: {field.name!r} is {dtype}{list(shape)}, not {field}")
