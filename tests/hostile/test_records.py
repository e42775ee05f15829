"""Hostile labels in tars: records with numbers that no build writes, damaged ``.npy`` members."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from refit_shard import ShardSet, StreamingLoader, StreamOptions, webdataset_item
from refit_shard.shards_spec.errors import RefitShardError, ShardError
from refit_shard.shards_spec.records import NpyLayout
from tests.searches import examples
from tests.small import Own, own, sealed

INT32 = 2**31 - 1
WILD: list[tuple[str, Any]] = [
    *(("scale", value) for value in (0.0, -1.0, 1e-300, 1e300, np.nan, np.inf)),
    *(("center", value) for value in (1e300, -1e300, np.nan, np.inf)),
    *(("k", value) for value in (0.0, 1e300, 1e-300, np.nan, -np.inf)),
    *((name, value) for name in ("height", "width") for value in (0, -1, INT32, 65535, -INT32)),
    *(("window", value) for value in (INT32, -INT32)),
    *(("orig_shape", value) for value in (0, INT32)),
    *((name, np.nan) for name in ("keypoints", "pose", "pose_3d", "betas", "img_focal")),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Six rows in one shard."""
    tree = own(tmp_path_factory.mktemp("records"))
    assert tree.build().code == 0
    return tree


def spoilt(built: Own, place: Path, name: str, value: object) -> Path:
    """A copy whose records all hold the value; index and JPEGs are unchanged."""
    folder = Path(shutil.copytree(built.out, place / "own"))
    found = ShardSet.open(str(folder))
    npy = NpyLayout.of(found.manifest)
    (tar,) = folder.glob("*.tar")
    data = bytearray(tar.read_bytes())
    at = data.find(npy.header)
    while at >= 0:
        record: NDArray[np.void] = np.frombuffer(data, npy.dtype, 1, at + len(npy.header))
        record[name] = value
        sealed(record)
        at = data.find(npy.header, at + 1)
    tar.write_bytes(data)
    return folder


def loader(folder: Path, **options: Any) -> StreamingLoader:
    """A small stream of one dataset."""
    chosen = {"batch_size": 6, "res": 32, "num_workers": 0, "rank": 0, "world_size": 1, **options}
    return StreamingLoader({"own": (str(folder), 1.0)}, StreamOptions(**chosen))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy remarks on NaN
@pytest.mark.parametrize(("name", "value"), WILD)
@pytest.mark.parametrize("compat", [None, "refit"])
def test_wild_numbers_are_an_item_or_our_error(
    built: Own, tmp_path: Path, name: str, value: object, compat: Any
) -> None:
    folder = spoilt(built, tmp_path, name, value)
    refused = name in ("scale", "center", "k", "height", "width", "window")
    for augment in (True, False):
        batches = iter(loader(folder, augment=augment, compat=compat))
        if refused:
            with pytest.raises(ShardError, match="own: shard own-000000, row"):
                next(batches)
        else:
            assert next(batches)["img"].shape == (6, 3, 32, 32)


def test_a_box_that_is_none_is_replaced_like_any_damage(built: Own, tmp_path: Path) -> None:
    """One row of six has a box of size 0; the next draw takes its place."""
    folder = Path(shutil.copytree(built.out, tmp_path / "own"))
    npy = NpyLayout.of(ShardSet.open(str(folder)).manifest)
    (tar,) = folder.glob("*.tar")
    data = bytearray(tar.read_bytes())
    at = data.find(npy.header) + len(npy.header)
    record: NDArray[np.void] = np.frombuffer(data, npy.dtype, 1, at)
    record["scale"] = 0.0
    sealed(record)
    bad = int(record["source_row"][0])
    tar.write_bytes(data)
    stream = loader(folder, on_error="replace")
    rows = next(iter(stream))["sample_index"].tolist()
    assert bad not in rows
    assert stream.stats()["replaced"] == 1


@pytest.fixture(scope="module")
def member(built: Own) -> dict[str, bytes]:
    """The members of one sample."""
    found = ShardSet.open(str(built.out))
    npy = NpyLayout.of(found.manifest)
    (tar,) = built.out.glob("*.tar")
    data = tar.read_bytes()
    at = data.index(npy.header)
    return {"jpg": bytes(found[0].jpeg), "npy": data[at : at + npy.size]}


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 12), st.binary(max_size=12))
@example(0, 10**6, b"")
def test_any_damage_to_a_record_s_header_is_an_item_or_our_error(
    member: dict[str, bytes], at: int, length: int, new: bytes
) -> None:
    npy = bytearray(member["npy"])
    at %= npy.index(b"\n")
    npy[at : at + length] = new
    with np.errstate(all="ignore"), contextlib.suppress(RefitShardError):
        item = webdataset_item()({"__key__": "own-0", **member, "npy": bytes(npy)})
        assert item["img"].shape == (3, 256, 256)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(10**9, 10**9)", "(-1,)", "(1,)", "(0,)"])
@pytest.mark.parametrize("kind", ["<f8", "|O", "|V0", "<U500000000"])
def test_a_record_that_states_an_array_takes_no_memory(
    member: dict[str, bytes], shape: str, kind: str
) -> None:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"
    npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)
    with pytest.raises(ShardError, match="npy is damaged"):
        webdataset_item()({"__key__": "own-0", **member, "npy": npy})


def test_a_pickled_record_is_not_loaded(member: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array({"a": 1}, object), allow_pickle=True)
    with pytest.raises(ShardError, match="npy is damaged"):
        webdataset_item()({"__key__": "own-0", **member, "npy": stream.getvalue()})
