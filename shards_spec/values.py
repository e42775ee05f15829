"""Checks values of options and converts them to Python's types; numpy's numbers are
accepted too.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, SupportsFloat

import numpy as np

from refit_shard.shards_spec.errors import UsageError


def whole(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int; it must be a whole number from ``low`` to ``high``. ``name``: of
    the option, for errors.

    Raises:
        UsageError: the value is anything else, also True or False.
    """
    number = None if is_flag(value) else _as_index(value)
    if number is None or not low <= number <= high:
        raise UsageError(f"{name}: must be a whole number from {low} to {high}, got {value!r:.80}")
    return number


def number(name: str, value: Any, low: float, high: float) -> float:
    """The value as a float; it must be a number from ``low`` to ``high``. ``name``: of the
    option, for errors.

    Raises:
        UsageError: the value is anything else.
    """
    found = as_float(value)
    if not low <= found <= high:
        raise UsageError(f"{name}: must be a number from {low:g} to {high:g}, got {value!r:.80}")
    return found


def flag(name: str, value: Any) -> bool:
    """The value as a bool; it must be True or False. ``name``: of the option, for errors.

    Raises:
        UsageError: the value is anything else.
    """
    if not is_flag(value):
        raise UsageError(f"{name}: must be one of True, False, got {value!r:.80}")
    return bool(value)


def as_float(value: object) -> float:
    """A real number as a float; NaN if the value is not a real number or too large for a float."""
    if is_flag(value) or not isinstance(value, numbers.Real):
        return math.nan
    real: SupportsFloat = value
    try:
        return float(real)
    except OverflowError:
        return math.nan


def is_flag(value: object) -> bool:
    """True if the value is Python's or numpy's True or False."""
    return isinstance(value, (bool, np.bool_))


def hold(options: object, **values: object) -> None:
    """Set fields of a frozen dataclass; only for its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(options, name, value)


def differing(options: Any) -> str:
    """The ``repr`` of a dataclass with only the fields that differ from their defaults."""
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
    """Check that a value is one of those allowed. ``name``: of the option, for errors.

    Raises:
        UsageError: the value is not allowed.
    """
    if value not in allowed:
        raise UsageError(f"{name}: must be one of {', '.join(map(repr, allowed))}, got {value!r}")
