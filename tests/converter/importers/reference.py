"""Geometry written out with scalars, from the descriptions; it shares no table with the code."""

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Matrix = list[list[float]]


def matrix_of(vector: Sequence[float]) -> Matrix:
    """Rodrigues' formula, element by element."""
    angle = math.sqrt(sum(float(part) ** 2 for part in vector))
    if angle == 0:
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    x, y, z = (float(part) / angle for part in vector)
    c, s = math.cos(angle), math.sin(angle)
    return [
        [c + x * x * (1 - c), x * y * (1 - c) - z * s, x * z * (1 - c) + y * s],
        [y * x * (1 - c) + z * s, c + y * y * (1 - c), y * z * (1 - c) - x * s],
        [z * x * (1 - c) - y * s, z * y * (1 - c) + x * s, c + z * z * (1 - c)],
    ]


def vector_of(matrix: Sequence[Sequence[float]]) -> list[float]:
    """The inverse, for angles that are not near pi."""
    m = [[float(value) for value in row] for row in matrix]
    skew = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
    sine = math.sqrt(sum(part * part for part in skew)) / 2
    angle = math.atan2(sine, (m[0][0] + m[1][1] + m[2][2] - 1) / 2)
    if sine < 1e-12:
        return [0.0, 0.0, 0.0]
    return [part / (2 * sine) * angle for part in skew]


def times(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Matrix:
    """The product of two matrices."""
    return [
        [sum(float(one[i][k]) * float(other[k][j]) for k in range(3)) for j in range(3)]
        for i in range(3)
    ]


def box(points: Sequence[Sequence[float]], factor: float) -> tuple[list[float], float]:
    """SPIN's box around points (x, y)."""
    xs, ys = [float(p[0]) for p in points], [float(p[1]) for p in points]
    center = [(max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2]
    return center, factor * max(max(xs) - min(xs), max(ys) - min(ys)) / 200
