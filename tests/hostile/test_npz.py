"""Hostile npz files: zip and array headers may each state wrong sizes and kinds."""

import io
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.source import read_annotations
from refit_shard.shards_spec.errors import SourceError
from tests.hostile.batch import mutated, outcomes
from tests.small import columns, own, quarantine


def parse(path: Path) -> None:
    """Read an npz as a build does."""
    read_annotations(str(path), "/frames", use_pose_3d=True)


def packed(arrays: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a zip with these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    """An array as an npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An npy file with the given header."""
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode() + data


WHOLE = {name: npy(values) for name, values in columns(["a.jpg", "b.jpg"]).items()}


def make_whole(_place: Path) -> bytes:
    """An undamaged npz."""
    return packed(WHOLE)


def hostile() -> Iterator[bytes]:
    """Npz files with wrong headers."""
    for shape in ("(10**12,)", "(1000000000000,)", "(2, -1)", "(-2,)", "(2,", "[2]", "2", "(2.0,)"):
        for kind in ("'<f8'", "'|O'", "'<U1000000000'", "'|V0'", "[('a', '|O')]", "x()", "None"):
            text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}"
            yield packed({**WHOLE, "scale": header(text, bytes(16))})
    deep = "(" * 5000
    for text in (deep, "{" * 3000, "", "__import__('os')", "9" * 9000, "{'descr': '<f8'}"):
        yield packed({**WHOLE, "scale": header(text)})
        yield packed({**WHOLE, "scale": header(text, version=b"\x09\x09")})
    for name in WHOLE:
        yield packed({**WHOLE, name: npy(np.array([None, {}], object))})
        yield packed({**WHOLE, name: npy(np.array(["x", "y"]))})
        yield packed({**WHOLE, name: npy(np.zeros((2, 0)))})
        yield packed({**WHOLE, name: npy(np.array(3.0))})
        yield packed({**WHOLE, name: npy(np.zeros(2, [("a", "f8")]))})
        yield packed({**WHOLE, name: npy(np.zeros(2, "M8[s]"))})
        yield packed({key: data for key, data in WHOLE.items() if key != name})
    yield packed({})
    yield b""
    yield b"PK\x05\x06" + bytes(18)


def test_members_that_lie_are_read_or_our_error(tmp_path: Path) -> None:
    found = outcomes(__name__, make_whole(tmp_path), hostile(), tmp_path)
    assert set(found) == {"read", "SourceError"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_damage_is_read_or_our_error(tmp_path: Path, compression: int) -> None:
    whole = packed(WHOLE, compression)
    cases = [*mutated(whole, 700), *mutated(whole[::-1], 700, seed=10**6, head=1200)]
    turned = [case[::-1] if number >= 700 else case for number, case in enumerate(cases)]
    assert set(outcomes(__name__, whole, turned, tmp_path)) == {"read", "SourceError"}


def test_an_array_twice_is_refused(tmp_path: Path) -> None:
    """Of two members of the same name some readers take the first, others the last."""
    path = tmp_path / "twice.npz"
    path.write_bytes(packed(WHOLE))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("scale.npy", npy(np.ones(2)))
    with pytest.raises(SourceError, match="holds 'scale' twice"):
        Npz(str(path))


@pytest.mark.parametrize("focal", [0.0, -5.0])
def test_a_focal_length_that_is_none_is_quarantined(tmp_path: Path, focal: float) -> None:
    tree = own(tmp_path)
    focals = np.full(6, 700.0)
    focals[2] = focal
    focals[3] = np.nan
    tree.save(img_focal=focals, img_center=np.full((6, 2), 30.0))
    assert tree.build().code == 0
    assert quarantine(tree.out) == {2: "bad_camera", 3: "nonfinite_label"}
