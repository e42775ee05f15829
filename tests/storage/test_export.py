"""Exports from a bucket into one: the bytes of exports on disk."""

from pathlib import Path

import pytest

from refit_shard.converter.export.plan import FORMATS
from tests.small import Own, hashes, own, refit
from tests.storage.conftest import Store


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Two shards."""
    tree = own(tmp_path_factory.mktemp("tree"), rows=8)
    assert tree.build("--samples-per-shard", 4).code == 0
    return tree


@pytest.mark.parametrize("form", FORMATS)
def test_a_bucket_s_exports_are_those_of_a_disk(
    store: Store, tree: Own, tmp_path: Path, form: str
) -> None:
    shards = store.put_tree("shards", tree.out.parent)
    for _ in range(2):  # the second finds everything there
        result = refit("export", f"{shards}/own", "--format", form, "--out", f"{store.url}/out")
        assert result.code == 0, result.err
        assert "8 of 8 rows" in result.out
    assert refit("export", tree.out, "--format", form, "--out", tmp_path / "out").code == 0
    assert store.hashes("out") == hashes(tmp_path / "out")
    assert not store.uploads()
