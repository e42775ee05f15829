"""The command as the importers' tests run it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.small import Result, refit

Array = NDArray[Any]


def imported(out: Path, *sources: object, also: Sequence[object] = ()) -> dict[str, Array]:
    """The arrays of the npz that the command writes."""
    result = refit("import-annotations", *sources, "--out", out, *also)
    assert result.code == 0, result.err
    with np.load(out, allow_pickle=False) as file:
        return {key: file[key] for key in file}


def refused(out: Path, *sources: object, also: Sequence[object] = ()) -> Result:
    """How the command ends on what it does not take; it leaves nothing."""
    result = refit("import-annotations", *sources, "--out", out, *also)
    assert result.code in (1, 2), result
    assert not out.exists()
    assert not [one for one in out.parent.iterdir() if one.name.endswith(".tmp")]
    return result
