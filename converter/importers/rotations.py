"""Converts rotations between vectors and matrices, with scipy."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

# How far R Rᵀ may be from the identity. Rounding to single precision is far below, a matrix that is
# not a rotation far above.
_TOLERANCE = 1e-2


def are_rotations(matrices: Array) -> NDArray[np.bool_]:
    """(...) bool: which of the matrices (..., 3, 3) are rotations: finite, orthonormal,
    right-handed.
    """
    with np.errstate(all="ignore"):
        squares = matrices @ np.swapaxes(matrices, -1, -2)
        straight = np.abs(squares - np.eye(3)).max(axis=(-1, -2)) <= _TOLERANCE
        return np.asarray(straight & (np.linalg.det(matrices) > 0))


def axis_angles(matrices: Array) -> Array:
    """Rotation vectors (..., 3), rad, of length at most pi, of rotation matrices (..., 3, 3)."""
    vectors = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec()
    return np.asarray(vectors).reshape(matrices.shape[:-1])


def matrices_of(vectors: Array) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), rad."""
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
    return np.asarray(matrices).reshape(*vectors.shape, 3)
