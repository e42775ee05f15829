"""A small set to export, and what exports hold, read without the package."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.small import Own, own

ROWS = 24
BAD = (5, 16)


def make_set(folder: Path) -> Own:
    """A built set: 22 rows in four shards, two in quarantine, own labels of every kind."""
    tree = own(folder, rows=ROWS)
    rng = np.random.default_rng(2)
    extra = rng.normal(0, 1, (ROWS, 2, 3))
    extra[3, 1] = (np.nan, np.inf, -np.inf)
    tree.save(
        scale=np.where(np.arange(ROWS) == BAD[0], np.nan, tree.columns["scale"]),
        extra=extra,
        flags=rng.integers(0, 2, (ROWS, 4)).astype(bool),
        word=np.array([f'row {row} läuft "so"\n' for row in range(ROWS)]),
    )
    tree.columns["center"][BAD[1]] = -4000
    tree.save()
    result = tree.build("--samples-per-shard", 6, "--keep", "extra,flags,word")
    assert result.code == 0, result.err
    return tree


def members(tars: list[Path]) -> dict[str, bytes]:
    """What is in tars, by name."""
    found: dict[str, bytes] = {}
    for path in tars:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                assert member.name not in found
                found[member.name] = stream.read()
    return found


def records(tree: Own) -> dict[str, Any]:
    """The labels of the built set by key, as plain webdataset users decode its ``.npy``."""
    found = {}
    for name, data in members(sorted(tree.out.glob("*.tar"))).items():
        if name.endswith(".npy"):
            found[name.removesuffix(".npy")] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def assert_same_labels(record: Any, said: dict[str, Any]) -> None:
    """A sample's labels, as a reader gives them, are those of its record; missing ones NaN or
    infinite.
    """
    names = [name for name in record.dtype.names if name != "record_crc32c"]
    assert list(said) == names
    for name in names:
        stored = record[name]
        if stored.dtype.kind == "S":
            assert said[name] == bytes(stored[()]).decode(), name
            continue
        given = np.array(said[name], object)
        assert given.shape == stored.shape, name
        missing = np.array([value is None for value in given.ravel()]).reshape(given.shape)
        assert (missing == ~np.isfinite(stored)).all(), name
        values = np.where(missing, 0, given).astype(stored.dtype)
        assert (values == np.where(missing, 0, stored)).all(), name
        if stored.dtype.kind == "f":
            assert all(type(value) in (float, type(None)) for value in given.ravel()), name
