"""Values of options, checked and as Python's own types: numpy's numbers are taken too."""

import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, SupportsFloat

import numpy as np

from refit_shard.shards_spec.errors import UsageError


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, as an int.

    Raises:
        UsageError: another number, or none; True and False are none.
    """
    number = None if is_flag(value) else _as_index(value)
    if number is None or not low <= number <= high:
        raise UsageError(f"{name}: must be a whole number from {low} to {high}, got {value!r:.80}")
    return number


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, as a float.

    Raises:
        UsageError: another number, or none.
    """
    found = as_float(value)
    if not low <= found <= high:
        raise UsageError(f"{name}: must be a number from {low:g} to {high:g}, got {value!r:.80}")
    return found


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        UsageError: anything else.
    """
    if not is_flag(value):
        raise UsageError(f"{name}: must be one of True, False, got {value!r:.80}")
    return bool(value)


def as_float(value: object) -> float:
    """A real number as a float; NaN for what is none, or is too large for one."""
    if is_flag(value) or not isinstance(value, numbers.Real):
        return math.nan
    real: SupportsFloat = value
    try:
        return float(real)
    except OverflowError:
        return math.nan


def is_flag(value: object) -> bool:
    """Whether it is Python's or numpy's True or False."""
    return isinstance(value, (bool, np.bool_))


def hold(options: object, **values: object) -> None:
    """Set fields of a frozen dataclass; for its ``__post_init__`` alone."""
    for name, value in values.items():
        object.__setattr__(options, name, value)


def differing(options: Any) -> str:
    """A dataclass as Python would write it, with the fields that are not at their defaults."""
    said = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.repr and (field.default is MISSING or value != field.default):
            text = differing(value) if is_dataclass(value) else repr(value)
            said.append(f"{field.name}={text}")
    return f"{type(options).__name__}({', '.join(said)})"


def _as_index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that is none of those allowed.

    Raises:
        UsageError: it is none.
    """
    if value not in allowed:
        raise UsageError(f"{name}: must be one of {', '.join(map(repr, allowed))}, got {value!r}")
