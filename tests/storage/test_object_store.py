"""Folders behind URLs: whole reads, whole uploads, retries, and errors of one line."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from refit_shard.shards_spec.errors import ShardError, StorageError, UsageError
from refit_shard.shards_spec.storage import object_store
from refit_shard.shards_spec.storage.files import is_file, open_file
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from tests.storage.conftest import Store
from tests.storage.proxy import Fault, Harm, Held, cut, error, hung_up, shortened

# pyarrow sends a larger object in parts of ten megabytes.
LARGE = os.urandom(1 << 20) * 11
PARTS = 2
BUSY = [error(503, "SlowDown"), hung_up]


def test_what_is_written_is_read_again(store: Store) -> None:
    folder = open_folder(f"{store.url}/a/b")
    folder.create()
    for name, data in {"small": b"abc", "empty": b"", "large": LARGE}.items():
        folder.write(name, data)
        assert store.get(f"a/b/{name}") == data
        assert folder.read(name, limit=len(LARGE)) == data
    assert folder.names() == {"small": 3, "empty": 0, "large": len(LARGE)}
    assert open_folder(f"{store.url}/a").folders() == [f"{store.url}/a/b"]
    assert open_folder(f"{store.url}/").folders() == [f"{store.url}/a"]
    with folder.open("large") as file:
        assert file.size() == len(LARGE)
        for count, offset in ((1000, 12345), (1, 0), (0, 5), (9, len(LARGE) - 3), (9, len(LARGE))):
            assert file.read_at(count, offset) == LARGE[offset : offset + count]
    folder.remove("small")
    folder.remove("small")
    assert store.keys() == ["a/b/empty", "a/b/large"]
    with pytest.raises(ShardError, match=f"{store.url}/a/b/small: missing"):
        folder.read("small", limit=10)


def test_large_objects_go_up_in_parts(store: Store) -> None:
    open_folder(store.url).write("large", LARGE)
    assert store.proxy.count(r"^PUT .*partNumber") == PARTS
    assert store.uploads() == []


@pytest.mark.parametrize("harm", BUSY)
def test_a_store_that_is_down_for_a_while_is_asked_again(store: Store, harm: Harm) -> None:
    folder = open_folder(store.url)
    faults = [
        store.proxy.plant(line, harm, times=1)
        for line in ("^PUT .*partNumber=2", r"^POST .*uploads", "^POST .*uploadId", "^HEAD", "^GET")
    ]
    folder.write("large", LARGE)
    assert folder.read("large", limit=len(LARGE)) == LARGE
    assert [fault.done for fault in faults] == [1] * len(faults)
    assert store.get("large") == LARGE
    assert store.uploads() == []


def test_an_upload_whose_last_answer_is_lost_is_whole(store: Store) -> None:
    store.proxy.plant("^POST .*uploadId", hung_up, times=1, before=False)
    open_folder(store.url).write("large", LARGE)
    assert store.get("large") == LARGE


@pytest.mark.parametrize("harm", [error(503, "SlowDown"), error(403, "AccessDenied"), hung_up])
def test_an_upload_that_fails_is_one_line_and_leaves_no_object(store: Store, harm: Harm) -> None:
    store.proxy.plant("^PUT .*partNumber=2", harm)
    with pytest.raises(StorageError, match=f"{store.url}/large: the store") as raised:
        open_folder(store.url).write("large", LARGE)
    assert "\n" not in str(raised.value)
    assert store.keys() == []


WRITE = """
import sys
from refit_shard.shards_spec.errors import StorageError
from refit_shard.shards_spec.storage.folder import open_folder
try:
    open_folder(sys.argv[1]).write("large", bytes(11 << 20))
except StorageError:
    sys.exit(1)
"""


@pytest.mark.parametrize(
    "line", ["^POST .*uploads", "^PUT .*partNumber=1", "^PUT .*partNumber=2", "^POST .*uploadId"]
)
def test_not_even_half_an_object_is_left_where_the_store_is_back_when_the_stream_is_destroyed(
    store: Store, line: str
) -> None:
    """pyarrow's streams complete an upload when they are destroyed; a process of its own, since
    they hold the interpreter's lock meanwhile, which the proxy needs."""
    fault = store.proxy.plant(line, error(503, "SlowDown"), times=2)
    done = subprocess.run([sys.executable, "-c", WRITE, store.url], check=False, timeout=60)
    assert (done.returncode, fault.done) == (1, 2)
    assert store.keys() == []


def test_a_block_that_raises_stores_nothing_and_an_older_object_stays(store: Store) -> None:
    folder = open_folder(store.url)
    folder.write("name", b"old")

    def fail() -> None:
        with folder.publish("name") as stream:
            stream.write(LARGE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.get("name") == b"old"
    assert store.uploads() == []


def test_an_interrupt_in_mid_upload_waits_for_the_whole_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt reaches the main thread while a part is on its way."""
    part = Held()
    store.proxy.plant("^PUT .*partNumber=2", part, times=1)

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            super().submit(*args, **options)
            assert part.came.wait(30)
            threading.Timer(0, part.go.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(object_store, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_folder(store.url).write("large", LARGE)
    assert store.get("large") == LARGE


@pytest.mark.parametrize("harm", [cut, shortened])
def test_an_answer_that_breaks_off_once_is_asked_for_again(store: Store, harm: Harm) -> None:
    store.put("large", LARGE)
    fault = store.proxy.plant("^GET", harm, times=1, before=False)
    assert open_folder(store.url).read("large", limit=len(LARGE)) == LARGE
    assert fault.done == 1


def read_at(folder: Folder, count: int, offset: int) -> bytes:
    """Bytes from the middle."""
    with folder.open("large") as file:
        return bytes(file.read_at(count, offset))


@pytest.mark.parametrize("harm", [cut, shortened, error(500, "InternalError")])
def test_answers_that_stay_short_are_an_error_and_never_data(store: Store, harm: Harm) -> None:
    store.put("large", LARGE)
    folder = open_folder(store.url)
    store.proxy.plant("^GET", harm, before=False)
    for read in (
        lambda: folder.read("large", limit=len(LARGE)),
        lambda: folder.fingerprint("large"),
        lambda: read_at(folder, 1000, 5),
        lambda: open_file(f"{store.url}/large"),
    ):
        with pytest.raises(StorageError, match=f"{store.url}/large: the store ") as raised:
            read()
        assert "run the same command again" in str(raised.value).lower()


def test_every_last_byte_is_told_from_the_mark_of_a_short_read(store: Store) -> None:
    folder = open_folder(store.url)
    for byte in (0x00, 0x5A, 0xA5, 0xFF):
        store.put("one", bytes([byte]))
        assert folder.read("one", limit=1) == bytes([byte])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://nowhere/prefix", "s3://nowhere/prefix: no such bucket"),
        ("s3://nowhere", "s3://nowhere: no such bucket"),
    ],
)
def test_a_missing_bucket_is_one_line_at_once(store: Store, url: str, said: str) -> None:
    folder = open_folder(url)
    for use in (folder.create, folder.names, folder.folders, folder.reach):
        with pytest.raises(StorageError) as raised:
            use()
        assert str(raised.value) == said
    with pytest.raises(StorageError, match="no such bucket"):
        folder.write("name", b"abc")
    with pytest.raises(StorageError, match="no such bucket"):
        is_file("s3://nowhere/name")
    assert len(store.proxy.lines) < 20


def test_wrong_keys_are_one_line_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    folder = open_folder(f"{store.url}/a")
    uses = (
        folder.create,
        folder.names,
        lambda: folder.write("name", b"abc"),
        lambda: folder.write("name", LARGE),
        lambda: folder.read("name", limit=10),
        lambda: folder.remove("name"),
        lambda: is_file(f"{store.url}/name"),
    )
    for use in uses:
        store.proxy.clear()
        with pytest.raises(StorageError, match=r"the store refuses these credentials \(\w+\)$"):
            use()
        assert len(store.proxy.lines) == 1


def test_a_store_that_does_not_answer_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(StorageError, match="the store does not answer") as raised:
        open_folder(store.url).names()
    assert len(str(raised.value)) < 500


def test_google_s_client_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_GCS_SECONDS", 1)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:9")
    folder = open_folder("gs://anonymous@bucket/prefix")
    assert folder.path == "bucket/prefix"
    assert folder.filesystem.__reduce__()[1][0]["retry_time_limit"] == timedelta(seconds=1)
    for use in (folder.create, lambda: folder.write("name", b"abc")):
        with pytest.raises(StorageError, match=r"gs://.*the store does not answer"):
            use()


def test_the_environment_s_endpoint_region_and_attempts_hold(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    filesystem = open_folder(store.url).filesystem
    assert isinstance(filesystem, fs.S3FileSystem)
    assert filesystem.region == "eu-west-3"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store.proxy.plant("^GET", error(503, "SlowDown"))
    with pytest.raises(StorageError):
        open_folder(store.url).names()
    assert store.proxy.count("^GET") == 2
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.proxy.url)
    store.proxy.clear()
    open_folder(store.url).reach()
    assert store.proxy.lines


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/a?region=x", "must not have options"),
        ("http://host/a", "cannot open this URL"),
        ("s3://", "names no bucket"),
        ("mock://a/b", "cannot open this URL|not supported"),
    ],
)
def test_urls_that_mean_nothing_are_wrong_use(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_folder(url)


@pytest.mark.parametrize("attempts", ["0", "-1", "many"])
def test_attempts_that_are_no_number_are_wrong_use(
    store: Store, monkeypatch: pytest.MonkeyPatch, attempts: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    with pytest.raises(UsageError, match="AWS_MAX_ATTEMPTS must be a number of at least 1"):
        open_folder(store.url)


def test_single_files_by_url_and_by_path(store: Store, tmp_path: Path) -> None:
    store.put("a/b.npz", LARGE)
    (tmp_path / "c").write_bytes(b"local")
    assert is_file(f"{store.url}/a/b.npz")
    assert is_file(str(tmp_path / "c"))
    assert not is_file(f"{store.url}/a/c.npz")
    assert not is_file(f"{store.url}/a")
    assert not is_file(str(tmp_path))
    with open_file(f"{store.url}/a/b.npz") as file:
        assert file.read() == LARGE
    with open_file(str(tmp_path / "c")) as file:
        assert file.read() == b"local"
    with pytest.raises(ShardError, match=r"a/c\.npz: missing"):
        open_file(f"{store.url}/a/c.npz")
    with pytest.raises(UsageError, match="names no file"):
        is_file(store.url)


def test_a_fault_counts_its_requests() -> None:
    fault = Fault("^GET", hung_up, times=1, after=1)
    assert [fault.takes(line) for line in ("GET a", "PUT a", "GET a", "GET a")] == [
        *(False, False, True, False)
    ]
