"""Hostile cut-outs: an Arrow file whose heights and widths must agree with its bytes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from refit_shard import Occluders
from refit_shard.loaders.items.draws import Occlusion
from refit_shard.loaders.items.occluders import SCHEMA, occluder_bytes
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.writer import arrow_bytes
from tests.hostile.batch import mutated, outcomes
from tests.loaders.pasting import pasted


def parse(path: Path) -> None:
    """Read every pixel of every object, and resize each object."""
    found = Occluders(str(path))
    for index in range(len(found)):
        found[index].sum()
        one = Occlusion(index=index, x=9.0, y=5.0, size=0.5)
        pasted(np.zeros((16, 16, 3), np.uint8), found, [one])


def make_whole(_place: Path) -> bytes:
    """Three objects."""
    rng = np.random.default_rng(0)
    sizes = ((20, 30), (7, 9), (1, 1))
    return occluder_bytes([rng.integers(0, 256, (*one, 4)).astype(np.uint8) for one in sizes])


@pytest.fixture(scope="module")
def whole() -> bytes:
    """Three objects."""
    return make_whole(Path())


def test_any_damage_is_read_or_our_error(whole: bytes, tmp_path: Path) -> None:
    cases = [*mutated(whole, 1500, head=900), *mutated(whole, 500, seed=10**6)]
    assert set(outcomes(__name__, whole, cases, tmp_path)) == {"read", "UsageError"}


@pytest.mark.parametrize(
    ("height", "width", "data"),
    [
        (2**31 - 1, 2**31 - 1, b""),
        (65536, 65536, b""),
        (0, 5, b""),
        (-1, -1, bytes(4)),
        (2, 2, bytes(15)),
        (None, 1, bytes(4)),
        (1, 1, None),
    ],
)
def test_sizes_that_are_not_those_of_the_bytes_are_refused(
    tmp_path: Path, height: int | None, width: int, data: bytes | None
) -> None:
    path = tmp_path / "x.arrow"
    values = zip((height, width, data), SCHEMA.types, strict=True)
    columns = [pa.array([value], kind) for value, kind in values]
    path.write_bytes(arrow_bytes(pa.RecordBatch.from_arrays(columns, schema=SCHEMA)))
    with pytest.raises(UsageError, match="occluders"):
        Occluders(str(path))
