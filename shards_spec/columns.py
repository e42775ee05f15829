"""Writes the columns of a dataset to its manifest, and reads and checks them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from refit_shard.shards_spec.errors import FormatError, ShardError, UsageError
from refit_shard.shards_spec.fields import (
    DTYPES,
    EXTRINSICS,
    FIELD,
    FIELDS,
    MAX_COLUMNS,
    MAX_RECORD_BYTES,
    RECORD_CRC,
    STRING,
    Field,
    is_own_name,
    own_fields,
    too_large,
)
from refit_shard.shards_spec.own import STILL, Motion, parse_motion


def columns_of(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """The columns as JSON for a manifest: name, dtype and shape; for strings the length in bytes;
    for own labels that move with the image, the motion.
    """
    return [
        {"name": field.name, "dtype": field.dtype, "shape": list(field.shape)}
        | ({"bytes": field.width} if field.dtype == STRING else {})
        | ({} if field.motion == STILL else {"motion": field.motion.to_json()})
        for field in fields
    ]


def _is_length(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_RECORD_BYTES


def _parse_column(content: Any, where: str) -> Field:
    """One column of a manifest: a column of :data:`FIELDS`, or an own label."""
    keys = {"name", "dtype", "shape"}
    if not isinstance(content, dict) or content.keys() - {"bytes", "motion"} != keys:
        raise ShardError(f"{where}: a column has other keys than {sorted(keys)}; damaged")
    name, dtype, shape = content["name"], content["dtype"], content["shape"]
    known = FIELD.get(name) if isinstance(name, str) else None
    width = content.get("bytes", 0)
    good = (
        isinstance(name, str)
        and (known is not None or is_own_name(name))
        and dtype in DTYPES
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(map(_is_length, shape))
        and (_is_length(width) and not shape if dtype == STRING else width == 0)
    )
    if not good:
        raise ShardError(f"{where}: damaged: column {name!r:.40} is not one that a build writes")
    if known is None:
        motion = _parse_motion(content, where)
        return Field(
            name=name, dtype=dtype, shape=tuple(shape), width=width, doc="own label", motion=motion
        )
    if (known.dtype, known.shape) != (dtype, tuple(shape)):
        raise FormatError(
            f"{where}: column {name!r} must be {known.dtype}{list(known.shape)}, got "
            f"{dtype}{shape}; use the refit-shard version that built these shards"
        )
    return replace(known, width=width)


def _parse_motion(content: Mapping[str, Any], where: str) -> Motion:
    """The motion of an own label, which must fit the label's dtype and shape."""
    if "motion" not in content:
        return STILL
    where = f"{where}: column {content['name']!r:.40}"
    try:
        motion = parse_motion(content["motion"])
    except UsageError as error:
        raise ShardError(f"{where}: {error}; damaged") from error
    misfit = motion.misfit(content["dtype"], tuple(content["shape"]))
    if misfit:
        raise ShardError(f"{where}: {misfit}; damaged")
    return motion


def parse_columns(content: Sequence[Any], where: str) -> tuple[Field, ...]:
    """The columns that a manifest lists: columns of the field table, then own labels, then the
    record's checksum.

    Raises:
        FormatError: a column of the field table is missing, out of order or of another type.
        ShardError: a column is not one that a build writes.
    """
    if len(content) > MAX_COLUMNS:
        raise ShardError(f"{where}: more than {MAX_COLUMNS} columns; the file is damaged")
    fields = tuple(_parse_column(one, where) for one in content)
    names = [field.name for field in fields]
    own = [field.name for field in own_fields(fields)]
    extrinsics = EXTRINSICS[0] in names
    standard = [field.name for field in FIELDS if extrinsics or not field.extrinsic]
    if names != [*standard[:-1], *own, RECORD_CRC] or len(set(own)) != len(own):
        missing = [name for name in standard if name not in names]
        raise FormatError(
            f"{where}: these shards have other columns than this version of refit-shard reads "
            f"({', '.join(missing) or 'their order'}); use the version that built them, or build "
            "them again"
        )
    if too_large(fields):
        raise ShardError(f"{where}: {too_large(fields)}; damaged")
    return fields
