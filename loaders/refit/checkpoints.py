"""What ``torch.load`` must know of ReFit's checkpoints."""

from typing import Any

import numpy as np
import torch

_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def admit_numbers() -> None:
    """Let ``torch.load(weights_only=True)`` read numpy's plain numbers, from now on.

    ReFit's trainer saves its validation error as one, and since torch 2.6 ``torch.load`` refuses
    whatever it does not know. Admitted are numpy's function that makes a number of a type and its
    bytes, by its name in numpy 1 and in numpy 2, and the types of plain numbers: none of them runs
    what a file says, and none can hold an object. An older torch has nothing to be told.
    """
    if torch.__version__ < "2.6":  # compares numbers, not letters
        return
    reduced: Any = np.float64(0).__reduce__()
    admitted: list[Any] = [(reduced[0], name) for name in _SCALARS]
    admitted += [np.dtype, *(type(np.dtype(code)) for code in _NUMBERS)]
    torch.serialization.add_safe_globals(admitted)
