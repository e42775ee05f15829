"""Shards from a store through a node's cache: the local stream's bytes, in bounded room."""

import errno
import fcntl
import hashlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest

from refit_shard import ShardSet, StreamingLoader, StreamOptions
from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.remote import locks
from refit_shard.loaders.remote.cache import Cache, Fetched, Slot
from refit_shard.loaders.stream import ahead
from refit_shard.shards_spec.errors import RefitShardError, ShardError, StorageError, UsageError
from tests.loaders.streams import all_items, items
from tests.small import Own, own
from tests.storage.conftest import Store
from tests.storage.proxy import Answer, Held, cut, error, shortened

PROJECT = Path(__file__).resolve().parents[2]
SHARDS = 12
MIXED = 3
PARENTS = "in the process that created it"
TAR = r"^GET .*/own-0000\d\d\.tar"
RUN = """
import sys
from tests.storage.test_cache import stream
from tests.loaders.streams import all_items

url, cache, limit = sys.argv[1:4]
print("\\n".join(all_items(stream(url, cache=cache, cache_bytes=int(limit), num_workers=2))))
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Twelve shards of four rows."""
    tree = own(tmp_path_factory.mktemp("far"), rows=48)
    result = tree.build("--samples-per-shard", 4, "--box-px", 64)
    assert result.code == 0, result.err
    assert len(list(tree.out.glob("*.tar"))) == SHARDS
    return tree


@dataclass(frozen=True)
class Far:
    """The shards in a bucket, and a cache."""

    store: Store
    url: str
    cache: Path
    here: str

    @property
    def set(self) -> ShardSet:
        """The shards."""
        return ShardSet.open(self.url)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each shard."""
        return [one.tar_bytes + one.arrow_bytes for one in self.set.manifest.shards]

    def stream(self, limit: int, **options: Any) -> StreamingLoader:
        """A stream through the cache."""
        return stream(self.url, cache=str(self.cache), cache_bytes=limit, **options)

    def slots(self, cache: Cache) -> list[Slot]:
        """The places of all shards in a cache."""
        shards = self.set
        folder = Path(cache.folder(shards.manifest).path)
        return [Slot(shards.folder, folder, entry) for entry in shards.manifest.shards]

    def files(self, ending: str = "") -> list[Path]:
        """Files in the cache but for locks."""
        found = self.cache.rglob(f"*{ending}")
        return [path for path in found if path.is_file() and not path.name.endswith(".lock")]


@pytest.fixture
def far(store: Store, local: Own, tmp_path: Path) -> Far:
    """Nothing in the cache yet."""
    url = store.put_tree("shards", local.out)
    store.proxy.clear()
    return Far(store, url, tmp_path / "cache", str(local.out))


def stream(url: str, **options: Any) -> StreamingLoader:
    """Three shards mixed at a time, batches of four."""
    given: dict[str, Any] = {"rank": 0, "world_size": 1, "num_workers": 0, "window": MIXED}
    given |= {"batch_size": 4, "res": 16, "prefetch": 1, **options}
    return StreamingLoader({"own": (url, 1.0)}, StreamOptions(**given))


def needed(far: Far, **options: Any) -> int:
    """The bytes that a cache of one byte is told to have."""
    with pytest.raises(UsageError, match=r"cache_bytes: 1 is too small: \d+ bytes") as caught:
        far.stream(1, **options)
    return int(str(caught.value).split(": ")[2].split()[0])


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Bytes in a folder, again and again, and at the end. A renamed file is counted once."""
    found: list[int] = []
    ended = threading.Event()

    def measure() -> int:
        sizes = {}
        for path in folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                sizes[status.st_ino] = status.st_size
        return sum(sizes.values())

    def run() -> None:
        while not ended.wait(0.001):
            found.append(measure())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found.append(measure())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("room", ["working set", "everything"])
def test_the_stream_is_the_local_one(far: Far, num_workers: int, room: str) -> None:
    """Byte for byte, over three passes, with every limit that is not refused; it is kept to."""
    here = stream(far.here)
    expected = [all_items(here) for _ in range(3)]
    how = {"num_workers": num_workers}
    limit = needed(far, **how) if room == "working set" else sum(far.sizes)
    assert limit < sum(far.sizes) or room == "everything"
    loader = far.stream(limit, **how)
    with watched(far.cache) as sizes:
        assert [all_items(loader) for _ in range(3)] == expected
    assert 0 < max(sizes) <= limit
    assert not [one for one in threading.enumerate() if "refit" in one.name]
    fetched = far.store.proxy.count(TAR)
    if room == "everything":
        assert fetched == SHARDS
        assert all_items(far.stream(limit, **how)) == expected[0]
        assert far.store.proxy.count(TAR) == SHARDS
    else:
        assert SHARDS < fetched <= 4 * SHARDS


def windows(loader: StreamingLoader) -> list[int | None]:
    """The window of each source, which is part of the state."""
    return [source["window"] for source in loader.state_dict()["sources"]]


def test_a_default_window_mixes_shards_from_afar(far: Far) -> None:
    """As from_config and get_dataloaders pass it on; it is in the state."""
    loader = far.stream(sum(far.sizes), window=None)
    assert windows(loader) == [None]  # twelve shards are fewer than sixteen
    assert windows(far.stream(sum(far.sizes))) == [MIXED]


def test_an_epoch_may_be_left_and_resumed(far: Far) -> None:
    limit = needed(far)
    loader = far.stream(limit)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    del iterator
    resumed = far.stream(limit)
    resumed.load_state_dict(state)
    assert all_items(resumed) == all_items(stream(far.here))[4:]


def test_an_evaluation_comes_through_the_cache(far: Far) -> None:
    """Which must hold all of it, for it reads in the npz's order."""
    options: dict[str, Any] = {"rank": 0, "world_size": 1, "num_workers": 2, "batch_size": 5}
    here = EvaluationLoader("own", far.here, StreamOptions(res=16, **options))
    options |= {"cache": str(far.cache), "cache_bytes": sum(far.sizes)}
    there = EvaluationLoader("own", far.url, StreamOptions(res=16, **options))
    assert all_items(there) == all_items(here)
    options["cache_bytes"] -= 1
    with pytest.raises(UsageError, match="cache_bytes: "):
        EvaluationLoader("own", far.url, StreamOptions(res=16, **options))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_without_a_cache_samples_are_read_from_the_store(far: Far, num_workers: int) -> None:
    """One by one, by any number of workers."""
    assert all_items(stream(far.url, num_workers=num_workers)) == all_items(stream(far.here))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cache": "c"}, "cache and cache_bytes must be given together"),
        ({"cache_bytes": 5}, "cache and cache_bytes must be given together"),
        ({"cache": "s3://b/c", "cache_bytes": 5}, "cache: must be on this machine, got 's3://b/c'"),
        ({"cache": "c", "cache_bytes": "lots"}, "cache_bytes: must be a number of bytes such as"),
        ({"cache": "c", "cache_bytes": 0}, "cache_bytes: must be a number of bytes such as"),
    ],
)
def test_wrong_options(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        StreamOptions(**options)


def test_processes_share_a_cache(far: Far) -> None:
    """Three at once: each shard comes once, and each has the stream."""
    command = [sys.executable, "-c", RUN, far.url, str(far.cache), str(sum(far.sizes))]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    assert printed == [all_items(stream(far.here))] * 3
    for shard in range(SHARDS):
        assert far.store.proxy.count(f"^GET .*own-{shard:06d}.tar") == 1


def protected(far: Far) -> set[str]:
    """Shards in the cache that nobody may delete."""
    cache = Cache(str(far.cache), 1 << 30)
    found = set()
    for slot in far.slots(cache):
        lock = locks.take(cache.lock_of(slot.name), locks.EXCLUSIVE)
        if lock is None:
            found.add(slot.name)
        else:
            locks.give_back(lock)
    return found


def begin_anew(loader: StreamingLoader, iterator: Iterator[Any]) -> int:
    """How many batches a child's own iterator gives."""
    del iterator
    return len(list(loader))


def go_on(loader: StreamingLoader, iterator: Iterator[Any]) -> int:
    """How many batches of a parent's iterator a child gets."""
    del loader
    return len(list(iterator))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("use", "expected"), [(begin_anew, "12"), (go_on, PARENTS)])
def test_a_child_leaves_its_parents_shards_alone(
    far: Far, num_workers: int, use: Callable[..., int], expected: str
) -> None:
    """It has copies of the locks; whether its parent was just choosing a shard does not matter."""
    loader = far.stream(1 << 30, num_workers=num_workers)
    iterator = iter(loader)
    found = items(next(iterator))
    while len(far.files(".tar")) < SHARDS:  # a client of the store is not made for forks
        time.sleep(0.01)
    prefetcher = iterator._batches.gi_frame.f_locals["ahead"]  # type: ignore[attr-defined]
    before = {prefetcher._slots[number].name for number in prefetcher._locks}
    assert bool(before) == (num_workers > 0)  # what is made in the loop itself is read by then
    context = multiprocessing.get_context("fork")
    said: Queue[str] = context.Queue()

    def work() -> None:
        try:
            said.put(str(use(loader, iterator)))
        except UsageError as error:
            said.put(str(error))

    with prefetcher._changed:
        child = context.Process(target=work)
        child.start()
    assert expected in said.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert before <= protected(far)
    assert found + all_items(iterator) == all_items(stream(far.here))


def test_a_killed_process_leaves_a_sane_cache(far: Far) -> None:
    """In the middle of a download; the next one deletes what it left, and finds the same stream."""
    held = Held()
    far.store.proxy.plant(TAR, held, times=1, after=5)
    command = [sys.executable, "-c", RUN, far.url, str(far.cache), str(sum(far.sizes))]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL)
    assert held.came.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    held.go.set()
    assert far.files(".tmp")
    cache = Cache(str(far.cache), sum(far.sizes))
    whole = [slot for slot in far.slots(cache) if slot.is_whole()]
    assert len(whole) < SHARDS
    with watched(far.cache) as sizes:
        assert all_items(far.stream(sum(far.sizes))) == all_items(stream(far.here))
    assert max(sizes) <= sum(far.sizes)
    assert far.files(".tmp") == []
    assert all(slot.is_whole() for slot in far.slots(cache))


def garbled(answer: Answer | None) -> Answer:
    """The right number of other bytes."""
    assert answer is not None
    answer.body = bytes(byte ^ 1 for byte in answer.body)
    return answer


@pytest.mark.parametrize("harm", [garbled, shortened, cut])
def test_a_damaged_download_is_asked_for_again(
    far: Far, harm: Callable[[Answer | None], Answer]
) -> None:
    fault = far.store.proxy.plant(TAR, harm, times=1, after=2, before=False)
    assert all_items(far.stream(sum(far.sizes))) == all_items(stream(far.here))
    assert fault.done == 1


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("how", ["garbled", "cut short"])
def test_an_object_that_is_not_the_manifests_is_refused(
    far: Far, local: Own, num_workers: int, how: str
) -> None:
    """In its place and after some tries, with both hashes; nothing of it is in the cache."""
    data = (local.out / "own-000004.tar").read_bytes()
    bad = data[:-1] + b"x" if how == "garbled" else data[:-512]
    far.store.put("shards/own-000004.tar", bad)
    found: list[str] = []

    def receive() -> None:
        for batch in far.stream(sum(far.sizes), num_workers=num_workers, window=1):
            found.extend(items(batch))

    with pytest.raises(ShardError) as caught:
        receive()
    expected = all_items(stream(far.here, window=1))
    assert 0 < len(found) < len(expected)
    assert found == expected[: len(found)]
    message = str(caught.value)
    assert f"{far.url}/own-000004.tar: {len(bad)} bytes" in message
    for content in (bad, data):
        assert hashlib.sha256(content).hexdigest() in message
    assert far.store.proxy.count(r"^GET .*own-000004\.tar") >= 3
    assert far.files("own-000004.tar") == far.files(".tmp") == []


def test_a_store_that_goes_down_is_one_error(far: Far) -> None:
    """Raised where its shard is needed, not before; the loader goes on when it is back."""
    loader = far.stream(sum(far.sizes))
    fault = far.store.proxy.plant(TAR, error(403, "AccessDenied"), before=True)
    with pytest.raises(StorageError, match="the store refuses"):
        all_items(loader)
    fault.times = 0
    loader.set_epoch(0)
    assert all_items(loader) == all_items(stream(far.here))


def test_damaged_samples_are_replaced_as_locally(far: Far, local: Own, tmp_path: Path) -> None:
    """By the next draw of the source, whose shard is near too."""
    folder = tmp_path / "spoilt" / "own"
    folder.mkdir(parents=True)
    for path in local.out.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tar = folder / "own-000003.tar"
    data = bytearray(tar.read_bytes())
    shard = ShardSet.open(str(folder)).shard(3)
    offset, length = int(shard.view("jpg_offset")[1]), int(shard.view("jpg_length")[1])
    data[offset : offset + length] = bytes(length)
    tar.write_bytes(data)
    manifest = (folder / "manifest.json").read_text()
    old = hashlib.sha256((local.out / tar.name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(manifest.replace(old, hashlib.sha256(data).hexdigest()))
    here = stream(str(folder), on_error="replace")
    expected = all_items(here)
    assert here.stats()["replaced"] == 1
    there = stream(
        far.store.put_tree("spoilt", folder),
        on_error="replace",
        cache=str(far.cache),
        cache_bytes=sum(far.sizes) + 1000,
        num_workers=2,
    )
    assert all_items(there) == expected


def test_what_is_needed_last_goes_first(far: Far) -> None:
    """Never one in use, nor one that is needed before the one that comes."""
    sizes = far.sizes
    cache = Cache(str(far.cache), sum(sizes[:4]) + max(sizes) // 2)
    slots = far.slots(cache)
    when = {slot.name: float(number) for number, slot in enumerate(slots)}
    when[slots[1].name], when[slots[3].name] = 50.0, 40.0

    def fetch(number: int, need: float) -> Fetched:
        return cache.fetch(slots[number], need, when.__getitem__, lambda: False)

    def there() -> list[int]:
        return [number for number, slot in enumerate(slots) if slot.is_whole()]

    assert [fetch(number, 0) for number in range(4)] == [Fetched.THERE] * 4
    assert fetch(5, 45.0) is Fetched.THERE
    assert there() == [0, 2, 3, 5]
    held = cache.hold(slots[3])
    assert held is not None
    assert cache.hold(slots[1]) is None
    assert fetch(6, 10.0) is Fetched.FULL  # only 3 is needed later, and it is in use
    assert there() == [0, 2, 3, 5]
    cache.release(held)
    assert fetch(6, 10.0) is Fetched.THERE
    assert there() == [0, 2, 5, 6]
    assert fetch(7, -1.0) is Fetched.THERE
    assert there() == [0, 2, 5, 7]


def test_what_a_killed_process_left_makes_room(far: Far) -> None:
    """Of the shard that comes and of others; what is still being downloaded stays."""
    cache = Cache(str(far.cache), far.sizes[0])
    slots = far.slots(cache)
    left = [slot.folder / f".{slot.entry.name}.tar.0123abcd.tmp" for slot in slots[:3]]
    for path, slot in zip(left, slots, strict=False):
        assert cache.hold(slot) is None  # which makes its lock
        path.write_bytes(bytes(100))
    lock = (slots[2].folder / f".{slots[2].entry.name}.lock").open()
    fcntl.flock(lock, fcntl.LOCK_EX)
    fetch = (slots[0], 0.0, lambda _: 9.0, lambda: False)
    assert cache.fetch(*fetch) is Fetched.FULL
    assert [path.exists() for path in left] == [False, False, True]
    lock.close()
    assert cache.fetch(*fetch) is Fetched.THERE
    assert not left[2].exists()


def test_a_cache_beside_local_shards_is_not_used(far: Far) -> None:
    """No thread, no file."""
    loader = stream(far.here, cache=str(far.cache), cache_bytes=1, num_workers=2)
    assert all_items(loader) == all_items(stream(far.here))
    assert far.files() == []


def test_a_shard_that_another_loader_brings_is_waited_for(far: Far) -> None:
    """It is busy for as long, and then there."""
    cache = Cache(str(far.cache), sum(far.sizes))
    slot = far.slots(cache)[0]
    held = Held()
    far.store.proxy.plant(TAR, held, times=1)
    found: list[Fetched] = []

    def fetch() -> None:
        found.append(cache.fetch(slot, 0.0, lambda _: 0.0, lambda: False))

    other = threading.Thread(target=fetch)
    other.start()
    assert held.came.wait(60)
    assert cache.hold(slot) is None
    fetch()
    assert found == [Fetched.BUSY]
    held.go.set()
    other.join()
    fetch()
    assert found == [Fetched.BUSY, Fetched.THERE, Fetched.THERE]


def test_a_cache_that_others_fill_is_said(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader does not wait for ever for shards that others hold."""
    monkeypatch.setattr(ahead, "_STARVED_SECONDS", 0.0)
    limit = needed(far)
    cache = Cache(str(far.cache), limit)
    taken, held = 0, []
    for slot, size in zip(far.slots(cache), far.sizes, strict=True):
        if taken + size > limit:
            break
        assert cache.fetch(slot, -1.0, lambda _: -1.0, lambda: False) is Fetched.THERE
        held.append(cache.hold(slot))
        taken += size
    loader = far.stream(limit)
    with pytest.raises(StorageError, match=r"no room for own-.*raise cache_bytes \(now \d+\)"):
        all_items(loader)
    for lock in held:
        assert lock is not None
        cache.release(lock)
    loader.set_epoch(0)
    assert all_items(loader) == all_items(stream(far.here))


@contextmanager
def a_process_holds(lock: Path) -> Iterator[int]:
    """Another process has taken the lock and does nothing; its id."""
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print(flush=True)"
    )
    command = [sys.executable, "-c", f"{hold}; sys.stdin.read()", str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_download_that_hangs_elsewhere_is_one_error(
    far: Far, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning, then an error; both name the lock and who holds it. Without it, on it goes."""
    monkeypatch.setattr(locks, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(locks, "_HUNG_SECONDS", 1.0)
    loader = far.stream(sum(far.sizes), window=1)
    cache = Cache(str(far.cache), sum(far.sizes))
    slots = far.slots(cache)
    lock = cache.lock_of(slots[5].name)
    with a_process_holds(lock) as pid:
        with pytest.raises(StorageError, match=rf"{lock}: process {pid} holds .* without progress"):
            all_items(loader)
        assert f"{lock}: process {pid} holds this lock" in caplog.text
        assert not [one for one in threading.enumerate() if "refit" in one.name]
    loader.set_epoch(0)
    assert all_items(loader) == all_items(stream(far.here, window=1))


def test_a_process_that_hangs_while_it_makes_room_is_one_error(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not keep the loader from being closed before."""
    loader = far.stream(sum(far.sizes))
    with a_process_holds(far.cache / ".lock") as pid:
        iterator = iter(loader)
        monkeypatch.setattr(locks, "_HUNG_SECONDS", 0.5)
        with pytest.raises(StorageError, match=f"process {pid} holds this lock"):
            next(iterator)
    loader.set_epoch(0)
    assert all_items(loader) == all_items(stream(far.here))


def test_a_download_that_grows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; the time counts from the last sign of work."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = locks.Watch(Path("lock"))
    for size in range(100):
        now[0] += 0.9 * locks._HUNG_SECONDS
        watch.check([size])
    now[0] += 1.1 * locks._HUNG_SECONDS
    with pytest.raises(StorageError, match="another process holds this lock"):
        watch.check([size])


def test_signs_of_work_change_with_each_byte(far: Far) -> None:
    cache = Cache(str(far.cache), sum(far.sizes))
    slot = far.slots(cache)[0]
    signs = [cache.signs_of(slot)]
    with (slot.folder / f".{slot.entry.name}.tar.0123abcd.tmp").open("wb", buffering=0) as file:
        file.truncate(100_000)
        signs.append(cache.signs_of(slot))
        file.write(bytes(10))
        signs.append(cache.signs_of(slot))
    assert all(before != after for before, after in itertools.pairwise(signs))


@pytest.fixture
def no_locks(far: Far, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache's file system has no locks; where they go instead."""
    flock = fcntl.flock

    def refusing(descriptor: int, how: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(far.cache)):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", refusing)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    return elsewhere


def test_a_cache_on_a_file_system_without_locks(
    far: Far, no_locks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its locks are local, and so is who shares it; one warning says so."""
    limit = needed(far, num_workers=2)
    for _ in range(2):
        assert all_items(far.stream(limit, num_workers=2)) == all_items(stream(far.here))
    (mine,) = far.cache.glob("node-*")
    assert set(far.files()) <= set(mine.rglob("*"))
    assert len([line for line in caplog.messages if "has no locks (flock)" in line]) == 1
    assert list(no_locks.rglob(".own-000000.lock"))
    cache = Cache(str(far.cache), sum(far.sizes))
    assert cache.path == mine
    slot = far.slots(cache)[0]
    with a_process_holds(cache.lock_of(slot.name)):
        assert cache.fetch(slot, 0.0, lambda _: 0.0, lambda: False) is Fetched.BUSY
        assert cache.hold(slot) is None


def test_machines_without_common_locks_share_no_shard(far: Far, no_locks: Path) -> None:
    """Another machine has another folder for its locks, and so another part of the cache."""
    paths = set()
    for machine in ("one", "two"):
        (no_locks / machine).mkdir()
        tempfile.tempdir = str(no_locks / machine)
        paths |= {Cache(str(far.cache), 1).path for _ in range(2)}
    assert len(paths) == 2


def test_files_of_others_are_left_alone(far: Far, local: Own) -> None:
    """A cache in a folder that holds shards already deletes none of them, however full it is."""
    limit = needed(far)
    mine = far.cache / "own"
    mine.mkdir(parents=True)
    for path in local.out.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    before = {path: path.read_bytes() for path in mine.iterdir()}
    loader = far.stream(limit)
    assert all_items(loader) == all_items(stream(far.here))
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


def test_a_cache_that_cannot_be_made_is_one_line(far: Far) -> None:
    far.cache.write_text("a file")
    with pytest.raises(RefitShardError, match=str(far.cache)):
        far.stream(sum(far.sizes))


def test_three_passes_ask_four_times_a_small_shard(far: Far) -> None:
    """The cache fetches each file once, whole."""
    loader = far.stream(sum(far.sizes), num_workers=2, epoch_samples=48 * 3)
    far.store.proxy.clear()
    assert len(all_items(loader)) == 48 * 3
    for shard in range(SHARDS):
        for ending in ("tar", "arrow"):
            assert far.store.asked(f"own-{shard:06d}.{ending}") == {"HEAD": 1, "GET": 1}
