"""Labels added to a hostile dataset: one clean error line, and the existing shards are unharmed."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard.shards_spec.manifest import plan_hash
from tests.hostile.test_commands import is_clean
from tests.searches import examples
from tests.small import Own, Result, hashes, own, refit

ROWS = 6
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A dataset of six rows in two shards with a label; ``labels.npz`` is beside it."""
    tree = own(tmp_path_factory.mktemp("hostile"))
    tree.save(first=np.arange(ROWS))
    assert tree.build("--samples-per-shard", 3, "--keep", "first").code == 0
    np.savez(tree.folder / "labels.npz", mine=np.arange(ROWS))
    return tree


def add(folder: Path, npz: Path) -> Result:
    """Add the label; if this is refused, the dataset must be unchanged."""
    before = hashes(folder)
    result = refit("add-labels", folder, npz, "--keep", "mine", "--workers", 1)
    assert result.code in (0, 1, 2), result
    assert is_clean(result), result
    assert "internal error" not in result.err
    assert result.err.count("\n") <= 1
    if result.code:
        after = hashes(folder)
        assert {name: after.get(name) for name in before} == before
    return result


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_spoilt_set_is_refused_or_whole(built: Own, data: st.DataObject) -> None:
    names = sorted(path.name for path in built.out.iterdir())
    name = data.draw(st.sampled_from(names))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(built.out, Path(place) / "own"))
        path = folder / name
        spoilt = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(spoilt) - 1))
            spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(spoilt[: data.draw(st.integers(1, len(spoilt)) | st.just(len(spoilt)))])
        result = add(folder, built.folder / "labels.npz")
        if result.code == 0 and "quarantine" not in name:  # the damage was not copied
            assert refit("verify", folder).code == 0


@settings(max_examples=examples(60))
@given(data=st.data())
def test_a_manifest_of_anyone_s_is_refused_or_taken(built: Own, data: st.DataObject) -> None:
    content: Any = json.loads((built.out / "manifest.json").read_bytes())
    holder = content
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [key for key in _keys(holder) if isinstance(holder[key], (dict, list))]
        if not inner:
            break
        holder = holder[data.draw(st.sampled_from(inner))]
    if _keys(holder):
        holder[data.draw(st.sampled_from(_keys(holder)))] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(built.out, Path(place) / "own"))
        (folder / "manifest.json").write_text(json.dumps(content))
        add(folder, built.folder / "labels.npz")


def _keys(holder: Any) -> list[Any]:
    return sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))


@pytest.mark.parametrize("labels", [5, None, "x", {"a": 1}, [[]], [{}], True])
def test_a_plan_whose_labels_are_no_list_is_damage(built: Own, tmp_path: Path, labels: Any) -> None:
    folder = Path(shutil.copytree(built.out, tmp_path / "own"))
    content = json.loads((folder / "manifest.json").read_bytes())
    content["plan"]["labels"] = labels
    content["plan_hash"] = plan_hash(content["plan"])
    (folder / "manifest.json").write_text(json.dumps(content))
    result = add(folder, built.folder / "labels.npz")
    assert result.code == (0 if isinstance(labels, list) else 1)
