"""The commands and the loader on URLs: the bytes of a local build, whatever the store does."""

import json
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.trees import make_tree
from refit_shard import StreamingLoader, StreamOptions
from refit_shard.shards_spec.errors import ShardError, StorageError
from tests.small import (
    Own,
    Result,
    encoded,
    error_line,
    hashes,
    own,
    refit,
    refit_command,
    refit_process,
)
from tests.storage.conftest import Store
from tests.storage.proxy import Held, cut, error, hung_up, shortened

SHARDED = ("--samples-per-shard", 4)


@dataclass(frozen=True)
class Local:
    """Data on disk, and the hashes of their local build. ``options``: of every build."""

    tree: Own
    options: tuple[object, ...]
    undisturbed: dict[str, str]


def built(tree: Own, *options: object) -> Local:
    """Build on disk."""
    result = refit(*tree.command(*options))
    assert result.code == 0, result.err
    return Local(tree, options, hashes(tree.out))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """Two shards."""
    return built(own(tmp_path_factory.mktemp("local"), rows=8), *SHARDED)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """Two shards, one of which goes up in parts: noise does not compress."""
    tree = own(tmp_path_factory.mktemp("large"), rows=11, per_frame=1)
    side = 1400
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    for name in tree.names:
        tree.put(name, encoded(".jpg", noise))
    tree.save(center=np.full((11, 2), side / 2), scale=np.full(11, side / 200))
    how = ("--box-px", 2048, "--quality", 100, "--samples-per-shard", 10)
    local = built(tree, *how)
    assert max(path.stat().st_size for path in tree.out.iterdir()) > 10 << 20
    return local


class Remote:
    """The data in a bucket, and the build there."""

    def __init__(self, store: Store, local: Local) -> None:
        self.store = store
        self.local = local
        self.root = store.put_tree("frames", local.tree.root)
        store.put("own.npz", local.tree.npz.read_bytes())
        self.npz = f"{store.url}/own.npz"
        self.out = f"{store.url}/shards"

    def command(self, *args: object, workers: int = 0) -> list[object]:
        """The build's arguments."""
        what = ["build", "--npz", self.npz, "--root", self.root, "--name", "own"]
        return [*what, "--out", self.out, "--workers", workers, *self.local.options, *args]

    def build(self, *args: object) -> Result:
        """Build in this process."""
        return refit(*self.command(*args))

    def found(self) -> dict[str, str]:
        """What the build left."""
        return self.store.hashes("shards/own")

    def assert_whole(self, result: Result) -> None:
        """It ended well, with the local build's bytes."""
        assert result.code == 0, result.err
        assert self.found() == self.local.undisturbed

    def assert_stopped(self, result: Result) -> str:
        """It ended with one line, and what is published is whole; the manifest is not there."""
        assert result.code == 1, result.err
        found = {name: sha for name, sha in self.found().items() if not name.endswith(".tmp")}
        assert "manifest.json" not in found
        assert found.items() <= self.local.undisturbed.items()
        return error_line(result)


@pytest.fixture
def remote(store: Store, local: Local) -> Remote:
    """Everything in a bucket; nothing built."""
    return Remote(store, local)


def batches(url: str) -> list[dict[str, Any]]:
    """An epoch of the loader."""
    options = StreamOptions(batch_size=4, num_workers=0, occluders=None, epoch_samples=8)
    return list(StreamingLoader({"own": (url, 1.0)}, options))


def test_every_command_takes_urls(remote: Remote, tmp_path: Path) -> None:
    remote.assert_whole(remote.build())
    store, url = remote.store, f"{remote.out}/own"
    for path in (remote.out, url):
        result = refit("verify", path, "--json")
        assert (result.code, json.loads(result.out)[0]["problems"]) == (0, [])
        (said,) = json.loads(refit("info", path, "--json").out)
        assert (said["rows"], said["shards"], said["path"]) == (8, 2, url)
    assert refit("preview", url, "--out", tmp_path / "sheet.png").code == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    counted = refit("query", remote.out, "--where", "scale > 0", "--count")
    assert counted.out.startswith("8 of 8 rows"), counted
    assert refit("show", url, "own-00000003", "--out", tmp_path / "row.png").code == 0
    assert store.uploads() == []
    for here, there in zip(batches(str(remote.local.tree.out)), batches(url), strict=True):
        assert here.keys() == there.keys()
        for key, value in here.items():
            is_same = np.array_equal(value, there[key])  # tensors and lists of names
            assert is_same, key


def test_roots_and_npz_files_of_a_data_config_may_be_urls(remote: Remote, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        f"COCO_ROOT = {remote.root!r}\nDATASET_FILES = [{{}}, {{'coco': {remote.npz!r}}}]\n"
    )
    where = ["--data-config", config]
    result = refit("doctor", *where, "--json")
    found = {
        (one["subject"], one["check"]): one["status"] for one in json.loads(result.out)["findings"]
    }
    checks = ("root", "rows", "npz", "present", "frames")
    assert {found["coco", check] for check in checks} == {"ok"}, result.out
    dry = refit("build", "--dataset", "coco", *where, "--dry-run", "--json", "--workers", 0)
    assert json.loads(dry.out)[0]["missing"] == 0
    out = ["--out", f"{remote.out}/", "--workers", 0]
    assert refit("build", "--dataset", "coco", *where, *out).code == 0
    assert refit("verify", f"{remote.out}/coco").code == 0
    remote.store.proxy.plant("^(GET|HEAD) .*frames", error(503, "SlowDown"))
    result = refit("doctor", *where)
    assert result.code == 1
    assert "make the folder readable, or the store reachable" in result.out


def test_a_second_run_keeps_every_shard_and_makes_a_damaged_one_anew(remote: Remote) -> None:
    assert remote.build().code == 0
    store = remote.store
    store.proxy.clear()
    again = remote.build("--json")
    remote.assert_whole(again)
    assert json.loads(again.out)["built"][0]["kept_shards"] == 2
    assert store.proxy.count(r"^POST .*own-\d+\.(tar|arrow)") == 0
    tar = store.get("shards/own/own-000001.tar")
    for spoil in (
        lambda: store.put("shards/own/own-000001.tar", tar[: len(tar) // 2]),
        lambda: store.ask("DELETE", "/shards/own/own-000001.tar"),
    ):
        spoil()
        result = refit("verify", f"{remote.out}/own")
        assert result.code == 1
        assert "own-000001" in result.out
        with pytest.raises(ShardError):
            batches(f"{remote.out}/own")
        mended = remote.build("--json")
        remote.assert_whole(mended)
        assert json.loads(mended.out)["built"][0]["kept_shards"] == 1


def test_another_plan_is_refused_and_overwrite_replaces(remote: Remote) -> None:
    assert remote.build().code == 0
    refused = remote.build("--quality", 80)
    assert refused.code == 2
    assert "with quality 90, not 80" in error_line(refused)
    assert remote.found() == remote.local.undisturbed
    assert remote.build("--quality", 80, "--samples-per-shard", 8, "--overwrite").code == 0
    assert len(remote.found()) == 4
    assert refit("verify", remote.out).code == 0


ONCE = {
    "a listing of an overloaded store": ("^GET .*list-type", error(503, "SlowDown")),
    "the head of an object of a failing store": (
        r"^HEAD .*a/000\.jpg",
        error(500, "InternalError"),
    ),
    "a frame cut in mid-body": (r"^GET .*a/001\.jpg", cut),
    "a frame that comes short": (r"^GET .*a/002\.jpg", shortened),
    "an npz cut in mid-body": (r"^GET .*\.npz", cut),
    "the begin of an upload": (
        r"^POST .*own-000000\.tar\.\w+\.tmp\?uploads",
        error(503, "SlowDown"),
    ),
    "a part that is hung up on": (r"^PUT .*own-000000\.tar", hung_up),
    "the end of an upload": (
        r"^POST .*own-000001\.tar\.\w+\.tmp\?uploadId",
        error(500, "InternalError"),
    ),
    "the name of a shard": (r"^PUT .*/own-000001\.tar$", error(500, "InternalError")),
    "the manifest": (r"^PUT .*manifest\.json", error(503, "ServiceUnavailable")),
}


def test_what_fails_once_does_not_show(remote: Remote) -> None:
    proxy = remote.store.proxy
    faults = {
        name: proxy.plant(line, harm, times=1, before=harm not in (cut, shortened))
        for name, (line, harm) in ONCE.items()
    }
    remote.assert_whole(remote.build())
    assert {name: fault.done for name, fault in faults.items()} == dict.fromkeys(ONCE, 1)
    assert refit("verify", remote.out).code == 0


STAYS = {
    "the listing of the shards": ("^GET .*list-type", error(503, "SlowDown"), 0),
    "a frame": (r"^(GET|HEAD) .*a/002\.jpg", error(500, "InternalError"), 0),
    "a frame in mid-body": (r"^GET .*a/002\.jpg", cut, 0),
    "a frame that comes short": (r"^GET .*a/002\.jpg", shortened, 0),
    "a forbidden frame": (r"^(GET|HEAD) .*a/002\.jpg", error(403, "AccessDenied"), 0),
    "the npz": (r"^GET .*own\.npz", cut, 0),
    "the second tar's begin": (r"^POST .*own-000001\.tar\..*\?uploads", error(503, "SlowDown"), 0),
    "the second tar's name": (r"^PUT .*/own-000001\.tar$", error(503, "SlowDown"), 0),
    "the second index's name": (r"^PUT .*/own-000001\.arrow$", hung_up, 0),
    "the end of an attempt": (r"^DELETE .*own-000001\.arrow\.", error(503, "SlowDown"), 0),
    "the second tar": (r"^PUT .*own-000001\.tar", error(503, "SlowDown"), 0),
    "the second index": (r"^PUT .*own-000001\.arrow", hung_up, 0),
    "the manifest": (r"^PUT .*manifest\.json", error(500, "InternalError"), 0),
    "everything, after a while": (".", error(503, "SlowDown"), 20),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_keeps_failing_ends_in_one_line_and_the_same_command_goes_on(
    remote: Remote, name: str
) -> None:
    line, harm, after = STAYS[name]
    proxy = remote.store.proxy
    fault = proxy.plant(line, harm, after=after, before=harm not in (cut, shortened))
    stopped = remote.build()
    assert fault.done >= 1
    fault.times = 0
    assert "the store " in remote.assert_stopped(stopped)
    kept = sum(name.endswith(".arrow") for name in remote.found())
    again = remote.build("--json")
    remote.assert_whole(again)
    (said,) = json.loads(again.out)["built"]
    assert (said["kept_shards"], said["quarantined"]) == (kept, {})


@pytest.mark.parametrize("what", ["npz", "root", "out"])
@pytest.mark.parametrize("fault", ["keys", "bucket"])
def test_wrong_keys_or_a_missing_bucket_are_one_line_at_once(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, what: str, fault: str
) -> None:
    tree = remote.local.tree
    wrong = remote.out if fault == "keys" else "s3://nowhere/at/all"
    places = {"npz": tree.npz, "root": tree.root, "out": tree.folder / "unused"} | {
        what: f"{wrong}/own.npz" if what == "npz" else wrong
    }
    if fault == "keys":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    remote.store.proxy.clear()
    options = [part for place, value in places.items() for part in (f"--{place}", value)]
    result = refit("build", *options, "--name", "own", "--workers", 0)
    assert result.code == 1
    said = "refuses these credentials" if fault == "keys" else "no such bucket"
    assert said in error_line(result)
    assert len(remote.store.proxy.lines) <= 2
    assert remote.found() == {}


@pytest.mark.parametrize("command", ["verify", "info"])
def test_reading_commands_say_what_is_not_there(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert "no such bucket" in error_line(refit(command, "s3://nowhere/shards"))
    assert "no shards there" in error_line(refit(command, remote.out))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    result = refit(command, remote.out)
    assert result.code == 1
    assert "the store refuses these credentials" in error_line(result)


def test_a_frame_that_is_missing_is_quarantined_and_picked_up_later(remote: Remote) -> None:
    key, whole = "frames/a/003.jpg", remote.local.undisturbed
    data = remote.store.get(key)
    remote.store.ask("DELETE", f"/{key}")
    first = remote.build("--json", "--max-bad", 0.5)
    assert first.code == 0
    assert json.loads(first.out)["built"][0]["quarantined"] == {"missing": 2}
    remote.store.put(key, data)
    assert remote.build().code == 0
    assert refit("verify", remote.out).code == 0
    tars = [{h for n, h in one.items() if n.endswith(".tar")} for one in (remote.found(), whole)]
    assert tars[0] == tars[1]


@pytest.mark.parametrize("on_error", ["raise", "replace"])
def test_the_loader_takes_a_failing_store_for_an_error_and_never_for_a_bad_sample(
    remote: Remote, on_error: str
) -> None:
    assert remote.build().code == 0
    options = StreamOptions(batch_size=4, num_workers=0, on_error=on_error)  # type: ignore[arg-type]
    loader = StreamingLoader({"own": (f"{remote.out}/own", 1.0)}, options)
    fault = remote.store.proxy.plant(r"^GET .*\.tar", error(503, "SlowDown"))
    with pytest.raises(
        StorageError, match=r"own-\d+\.tar: the store failed, also when asked again"
    ):
        next(iter(loader))
    fault.times = 0
    fresh = StreamingLoader({"own": (f"{remote.out}/own", 1.0)}, options)
    remote.store.proxy.plant(r"^GET .*\.tar", cut, times=1, before=False)
    assert len(list(fresh)) == 2
    assert fresh.stats()["replaced"] == 0


def test_a_build_that_is_killed_in_mid_upload_leaves_no_object_and_goes_on(
    store: Store, large: Local
) -> None:
    remote = Remote(store, large)
    part = Held()
    fault = store.proxy.plant(r"^PUT .*own-000000\.tar\..*\?partNumber=1", part)
    process = subprocess.Popen(
        refit_command(*remote.command()), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert part.came.wait(60), process.communicate()
        process.kill()
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()
        part.go.set()
    fault.times = 0
    assert store.keys("shards/") == []
    (upload,) = store.uploads()  # what a lifecycle rule is for
    assert re.fullmatch(r"shards/own/\.own-000000\.tar\.[0-9a-f]+\.tmp", upload)
    result = refit("verify", remote.out)
    assert result.code == 1
    assert "no shards there" in error_line(result)
    remote.assert_whole(refit_process(*remote.command()))
    assert store.proxy.count(r"^PUT .*own-000000\.tar\..*\?partNumber=2") >= 1
    assert refit("verify", remote.out).code == 0


def test_a_worker_of_ray_writes_the_same_bytes(remote: Remote) -> None:
    remote.store.proxy.plant("^(PUT|GET|HEAD)", error(503, "SlowDown"), times=1, after=10)
    remote.assert_whole(refit_process(*remote.command(workers=1)))


def test_the_subset_of_3dpw_is_cut_in_the_store(store: Store, tmp_path: Path) -> None:
    tree = make_tree("3dpw_test", tmp_path / "tree", frames=3)
    target = tmp_path / "3dpw_test_sub.npz"
    root = store.put_tree("3dpw", tree.root)
    config = tmp_path / "config.py"
    files = {"3dpw_test": str(tree.npz), "3dpw_test_sub": str(target)}
    config.write_text(f"PW3D_ROOT = {root!r}\nDATASET_FILES = [{files!r}]\n")
    where = ["--data-config", config]
    result = refit("subset-3dpw", *where, "--rows", 3)
    assert result.code == 0, result.err
    crops = store.keys("3dpw/imageCrops/")
    assert len(crops) == 3
    out = ["--out", f"{store.url}/shards", "--workers", 0]
    assert refit("build", "--dataset", "3dpw_test_sub", *where, *out).code == 0
    assert refit("verify", f"{store.url}/shards").code == 0
    assert "0 crops written, 3 kept" in refit("subset-3dpw", *where, "--rows", 3).out
    config.write_text(config.read_text().replace(str(target), f"{store.url}/sub.npz"))
    refused = refit("subset-3dpw", *where, "--rows", 3)
    assert refused.code == 2
    assert "subset-3dpw cannot write its npz to a URL" in error_line(refused)


def test_a_build_asks_fourteen_times_a_small_shard_and_twice_a_frame(remote: Remote) -> None:
    """An upload is begun, its parts are sent, and it is put together; the tar, then the index.

    Then the store copies each to its name, and the attempt is looked for and deleted, after which
    pyarrow marks the folder.
    """
    remote.store.proxy.clear()
    assert remote.build("--skip-checks").code == 0  # they read some frames once more
    for ending in ("tar", "arrow"):
        asked = remote.store.asked(f"own-000001.{ending}")
        assert asked == {"POST": 2, "PUT": 2, "HEAD": 1, "DELETE": 1}
    assert remote.store.proxy.count("^PUT .*/shards/own/$") == 4
    assert remote.store.asked("a/002.jpg") == {"HEAD": 1, "GET": 1}


def test_a_second_build_asks_four_times_a_small_shard_that_it_keeps(remote: Remote) -> None:
    """It is read and hashed, and nothing is sent."""
    assert remote.build().code == 0
    remote.store.proxy.clear()
    assert remote.build().code == 0
    assert remote.store.asked("own-000001.tar") == {"HEAD": 1, "GET": 1}
    assert remote.store.asked("own-000001.arrow") == {"HEAD": 1, "GET": 1}
    assert remote.store.proxy.count("^(PUT|POST|DELETE)") == 0


def test_an_overwrite_is_built_beside_what_stands_and_goes_on(remote: Remote) -> None:
    assert remote.build().code == 0
    old, store = remote.found(), remote.store
    fault = store.proxy.plant(r"^POST .*own-000001\.tar\..*\?uploads", error(503, "SlowDown"))
    assert remote.build("--overwrite").code == 1
    assert remote.found().items() >= old.items()
    assert refit("verify", remote.out).code == 0
    fault.times = 0
    again = remote.build("--overwrite", "--json")
    assert json.loads(again.out)["built"][0]["kept_shards"] == 1
    assert len(remote.found()) == 6
    assert refit("verify", remote.out).code == 0


def test_a_worker_that_comes_late_leaves_an_attempt_which_the_next_build_removes(
    remote: Remote,
) -> None:
    assert remote.build().code == 0
    whole = remote.found()
    remote.store.put("shards/own/.own-000001.tar.0123456789abcdef.tmp", b"late")
    assert refit("verify", remote.out).code == 0
    assert remote.build().code == 0
    assert remote.found() == whole


def test_labels_are_added_in_the_store_as_on_disk(remote: Remote, tmp_path: Path) -> None:
    """From an npz in the store; what fails for good leaves the old set, and the command goes on."""
    remote.assert_whole(remote.build())
    np.savez(tmp_path / "labels.npz", mine=np.arange(8), word=np.array(list("abcdefgh")))
    here = tmp_path / "here"
    shutil.copytree(remote.local.tree.out, here)
    keep = ("--keep", "mine,word")
    assert refit("add-labels", here, tmp_path / "labels.npz", *keep).code == 0
    remote.store.put("labels.npz", (tmp_path / "labels.npz").read_bytes())
    command = ("add-labels", f"{remote.out}/own", f"{remote.store.url}/labels.npz", *keep)
    remote.store.proxy.plant("^(PUT|POST) .*-g1-000001", error(500, "InternalError"))
    failed = refit(*command)
    assert failed.code == 1
    assert "run the same command again" in error_line(failed)
    assert refit("verify", f"{remote.out}/own").code == 0
    remote.store.proxy.clear()
    done = refit(*command)
    assert done.code == 0, done.err
    assert remote.found() == hashes(here)
    assert refit("verify", f"{remote.out}/own").code == 0
