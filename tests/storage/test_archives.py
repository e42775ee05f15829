"""Archives in a bucket: read by ranges, listed once, and never data where the store fails."""

from pathlib import Path

import pyarrow as pa
import pytest

from refit_shard.converter.archives.index import LISTS_FOLDER
from tests.converter.packing import deflated, files_below, tar_of
from tests.small import Own, Result, error_line, hashes, own, refit
from tests.storage.conftest import Store
from tests.storage.proxy import Harm, cut, error, shortened


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Two shards of six frames, built on disk."""
    made = own(tmp_path_factory.mktemp("local"), rows=12)
    assert made.build("--samples-per-shard", 6).code == 0
    return made


class Remote:
    """The same frames in a tar and a deflated zip of a bucket."""

    def __init__(self, store: Store, tree: Own) -> None:
        self.store, self.tree = store, tree
        files = files_below(tree.root)
        names = sorted(files)
        store.put("frames/one.tar", tar_of({name: files[name] for name in names[:3]}))
        store.put("frames/below/two.zip", deflated({name: files[name] for name in names[3:]}))
        store.put("own.npz", tree.npz.read_bytes())

    def build(self, *args: object) -> Result:
        """Build from the bucket into it."""
        url = self.store.url
        what = ["--npz", f"{url}/own.npz", "--root", f"{url}/frames", "--name", "own"]
        how = ["--out", f"{url}/shards", "--workers", 0, "--samples-per-shard", 6, *args]
        return refit("build", *what, *how)

    def assert_whole(self, result: Result) -> None:
        """It ended well, with the bytes of the local build."""
        assert result.code == 0, result.err
        found = self.store.hashes("shards/own")
        shards = {name: sha for name, sha in found.items() if LISTS_FOLDER not in name}
        assert shards == hashes(self.tree.out)


def quarantine_of(store: Store) -> list[object]:
    """The rows in quarantine."""
    (key,) = (key for key in store.keys("shards/own") if "quarantine" in key)
    rows: list[object] = pa.ipc.open_file(store.get(key)).read_all().to_pylist()
    return rows


@pytest.fixture
def remote(store: Store, tree: Own) -> Remote:
    """Everything in a bucket; nothing built."""
    return Remote(store, tree)


def test_a_build_from_archives_in_a_bucket_has_the_bytes_of_a_local_one(remote: Remote) -> None:
    remote.assert_whole(remote.build())
    store = remote.store
    assert len(store.keys(f"shards/own/{LISTS_FOLDER}")) == 2
    assert store.asked("a/00") == {}  # no frame is looked for as an object
    # Each shard opens the archive once and reads three frames of it or fewer; before that it is
    # listed, and the checks read each frame.
    assert store.asked("one.tar")["GET"] <= 2 + 3 + 3
    store.proxy.clear()
    remote.assert_whole(remote.build())
    assert store.asked("one.tar") == {}


def test_a_changed_archive_is_listed_again(remote: Remote) -> None:
    assert remote.build().code == 0
    files = files_below(remote.tree.root)
    three = sorted(files.items())[2::-1]
    remote.store.put("frames/one.tar", tar_of({**dict(three), "x": b"x"}))
    remote.store.proxy.clear()
    assert remote.build("--samples-per-shard", 12, "--overwrite").code == 0
    assert remote.store.asked("one.tar")["GET"] >= 4
    assert quarantine_of(remote.store) == []


@pytest.mark.parametrize("harm", [error(503, "SlowDown"), cut, shortened])
def test_a_store_that_fails_loses_no_row(remote: Remote, harm: Harm) -> None:
    """Wherever it begins to: the command ends with one line, and goes on when it is given again."""
    proxy = remote.store.proxy
    for after in (0, 3, 5, 7):
        line = r"^GET .*(one\.tar|two\.zip)"
        proxy.plant(line, harm, after=after, before=harm not in (cut, shortened))
        result = remote.build()
        if result.code:
            assert result.code == 1
            assert "quarantine" not in error_line(result)
        proxy.clear()
        remote.assert_whole(remote.build())
        for key in remote.store.keys("shards"):
            remote.store.ask("DELETE", f"/{key}")


def test_a_root_without_archives_is_asked_for_nothing_more(store: Store, tmp_path: Path) -> None:
    """Folders that hold frames themselves are not listed for archives."""
    tree = own(tmp_path, rows=4)
    root = store.put_tree("plain", tree.root)
    store.put("own.npz", tree.npz.read_bytes())
    what = ["--npz", f"{store.url}/own.npz", "--root", root, "--name", "own", "--workers", 0]
    assert refit("build", *what, "--out", tmp_path / "out", "--skip-checks").code == 0
    assert len([line for line in store.proxy.lines if "list-type" in line]) <= 2
