"""Places the 17 joints that MPI-INF-3DHP and Human3.6M have in common among SPIN's 24."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPIN_JOINTS = 24
MM_PER_M = 1000.0
# Each joint's index among SPIN's 24 (global_idx of SPIN's h36m_train.py, joints_idx of its
# mpi_inf_3dhp.py). The first joint is the pelvis.
PLACES = (14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6)


def part_of(points: Array) -> Array:
    """``part`` (n, 24, 3) from joints (n, 17, 2), px: x, y and confidence 1; other joints are 0."""
    part = np.zeros((len(points), SPIN_JOINTS, 3))
    part[:, PLACES, :2] = points
    part[:, PLACES, 2] = 1.0
    return part


def pose_3d_of(points_mm: Array) -> Array:
    """``S`` (n, 24, 4) from joints (n, 17, 3), mm: metres from the first joint, and
    confidence 1.
    """
    found = np.zeros((len(points_mm), SPIN_JOINTS, 4))
    metres = points_mm / MM_PER_M
    found[:, PLACES, :3] = metres - metres[:, :1]
    found[:, PLACES, 3] = 1.0
    return found
