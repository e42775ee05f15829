"""Allows ``torch.load`` to read the numpy numbers in ReFit's checkpoints."""

from typing import Any

import numpy as np
import torch

_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def admit_numbers() -> None:
    """Allow ``torch.load(weights_only=True)`` to read numpy scalars in this process.

    ReFit's trainer saves its validation error as a numpy scalar, and since torch 2.6 ``torch.load``
    refuses types that it does not know. Allowed are numpy's function that makes a scalar from a
    dtype and bytes, under its names in numpy 1 and 2, and the dtypes of numbers: none of them can
    run code of a file or hold an object. Older versions of torch need nothing.
    """
    if torch.__version__ < "2.6":  # torch compares versions, not strings
        return
    reduced: Any = np.float64(0).__reduce__()
    admitted: list[Any] = [(reduced[0], name) for name in _SCALARS]
    admitted += [np.dtype, *(type(np.dtype(code)) for code in _NUMBERS)]
    torch.serialization.add_safe_globals(admitted)
