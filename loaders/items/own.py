"""A dataset's own labels in a batch, each augmented as its column declares."""

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

# torch has these types only since 2.3. uint64 becomes int64 with the same bits.
_TENSOR_DTYPES = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def common_labels(sets: Mapping[str, Iterable[Field]]) -> tuple[Field, ...]:
    """The own labels of several datasets, each name once, in the order of the datasets.

    Raises:
        UsageError: two datasets have a label of the same name but of different types.
    """
    found: dict[str, tuple[str, Field]] = {}
    for name, fields in sets.items():
        for field in fields:
            first, other = found.setdefault(field.name, (name, field))
            found[field.name] = first, max(other, field, key=lambda one: one.width)
            if _kind(field) != _kind(other):
                raise UsageError(
                    f"{name} and {first} both have the label {field.name!r}, of different types: "
                    f"{field} and {other}{'' if str(field) != str(other) else ', other tables'}; "
                    "build one of them with another --keep"
                )
    return tuple(field for _, field in found.values())


def _kind(field: Field) -> tuple[str, tuple[int, ...], Motion]:
    return field.dtype, field.shape, field.motion


def empty_labels(fields: Iterable[Field], count: int) -> dict[str, NDArray[Any]]:
    """Arrays of zeros with ``count`` rows, one for each label."""
    return {
        field.name: np.zeros(
            (count, *field.shape), f"S{field.width}" if field.dtype == STRING else field.dtype
        )
        for field in fields
    }


def presence(
    fields: Iterable[Field], sets: Sequence[Iterable[Field]], which: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """For each label, (n,) bool: True if the row's dataset has it.

    ``sets``: the labels of each dataset. ``which`` (n,): index of each row's dataset.
    """
    known = [{field.name for field in one} for one in sets]
    return {field.name: np.array([field.name in one for one in known])[which] for field in fields}


def move_labels(
    options: RenderOptions, fields: Iterable[Field], columns: Columns, has: Columns, draws: Draws
) -> dict[str, Any]:
    """The own labels of a batch: arrays (strings: lists), each followed by its ``has_…`` (n,) bool.

    ``columns``: the labels, ``center`` and ``scale``. ``has``: for each label, True where the row's
    dataset has it. Elsewhere its values are zeros.
    """
    made: dict[str, Any] = {}
    for field in fields:
        values, there = columns[field.name], has[field.name]
        if field.dtype == STRING:
            made[field.name] = [value.decode(errors="replace") for value in values.tolist()]
        else:
            with np.errstate(invalid="ignore", over="ignore"):  # own labels may contain NaN
                moved = _moved(options, field.motion, values, columns, draws)
            moved[~there] = 0
            dtype = _TENSOR_DTYPES.get(field.dtype, field.dtype)
            made[field.name] = np.ascontiguousarray(moved, dtype)
        made[HAS + field.name] = there
    return made


def _moved(
    options: RenderOptions, motion: Motion, values: NDArray[Any], columns: Columns, draws: Draws
) -> NDArray[Any]:
    """A copy of the values (n, …), rotated, scaled and mirrored as the images are."""
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
    """Check that the labels of a record have the types that ``fields`` declare.

    Raises:
        UsageError: a label has another type; the message names the label.
    """
    for field in fields:
        found = record.dtype[field.name] if field.name in (record.dtype.names or ()) else None
        if found is None:
            continue
        base, shape = found.base, found.shape
        dtype = STRING if base.kind == "S" else base.name
        if (dtype, shape) != (field.dtype, field.shape):
            raise UsageError(f"{where}: {field.name!r} is {dtype}{list(shape)}, not {field}")
