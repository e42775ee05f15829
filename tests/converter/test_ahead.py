"""Reading ahead: every file once, in order, several in flight, within bounds; no thread is left."""

import itertools
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.converter.archives import frames as archive_frames
from refit_shard.converter.archives import members
from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.build import ahead
from refit_shard.converter.build.ahead import ReadAhead
from refit_shard.converter.reading import Room, read_frame
from refit_shard.shards_spec.errors import FrameError, PassingError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.searches import examples
from tests.small import error_line, hashes, own, quarantine, refit

LONG = 30.0  # seconds that nothing here takes


class Files:
    """Made-up files: ``sizes`` in bytes, None for one that cannot be read; counts what is read.

    ``used``: files that the test has been given. ``taken``: numbers of those that took memory.
    """

    def __init__(self, sizes: list[int | None], tries: int = 1) -> None:
        self.sizes = sizes
        self.paths = [str(number) for number in range(len(sizes))]
        self.begun: list[int] = []
        self.taken: set[int] = set()
        self.used = 0
        self.most = 0
        self._tries = tries
        self._lock = threading.Lock()

    def read(self, path: str, room: Room) -> bytes:
        """The bytes of a file."""
        number = int(path)
        with self._lock:
            self.begun.append(number)
        size = self.sizes[number]
        if size is None:
            raise FrameError("missing", path)
        for _ in range(self._tries):
            room(size)
        with self._lock:
            self.taken.add(number)
            # The file after those that the test has may be in use already.
            ahead = sum(self.sizes[one] or 0 for one in self.taken if one > self.used)
            self.most = max(self.most, ahead)
        return path.encode().ljust(size, b".")


@pytest.fixture(autouse=True)
def no_thread_left() -> object:
    """Every test ends with the threads that it began with."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@settings(max_examples=examples(100), deadline=None)
@given(
    sizes=st.lists(st.none() | st.integers(1, 300), max_size=40),
    files=st.integers(1, 8),
    most_bytes=st.integers(1, 1000),
    tries=st.integers(1, 2),
)
def test_every_file_comes_once_in_order_within_bounds(
    sizes: list[int | None], files: int, most_bytes: int, tries: int
) -> None:
    made = Files(sizes, tries)
    with ReadAhead(made.read, made.paths, files=files, most_bytes=most_bytes) as frames:
        for number, bring in enumerate(frames):
            made.used += 1
            assert len(made.begun) <= made.used + files
            size = sizes[number]
            if size is None:
                with pytest.raises(FrameError, match=f"^{number}$"):
                    bring()
            else:
                assert bring() == str(number).encode().ljust(size, b".")
    assert made.most <= most_bytes
    assert made.used == len(sizes)
    assert sorted(made.begun) == list(range(len(sizes)))


def test_as_many_as_may_be_are_in_flight_at_once() -> None:
    """Four reads each wait for three others: fewer would wait for ever."""
    together = threading.Barrier(4)

    def read(_: str, room: Room) -> bytes:
        room(1)
        together.wait(LONG)
        return b"x"

    with ReadAhead(read, [str(number) for number in range(8)], files=4) as frames:
        assert [bring() for bring in frames] == [b"x"] * 8


def test_bytes_bound_what_is_in_flight() -> None:
    made = Files([100] * 30)
    with ReadAhead(made.read, made.paths, files=16, most_bytes=450) as frames:
        for number, _ in enumerate(frames):
            assert len(made.taken) <= number + 1 + 4
    made = Files([1, *[1000] * 5])  # a small one first, which says nothing of the others
    with ReadAhead(made.read, made.paths, files=16, most_bytes=450) as frames:
        for number, bring in enumerate(frames):  # each alone is too large, and comes all the same
            assert made.taken == set(range(number + 1))
            assert len(bring()) == made.sizes[number]


def test_a_size_is_told_before_the_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file of its own, and of members of archives, packed or not."""
    frame = bytes(5000)
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a/000.jpg").write_bytes(frame)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        archive.writestr("b/stored.jpg", frame, zipfile.ZIP_STORED)
        archive.writestr("b/packed.jpg", frame, zipfile.ZIP_DEFLATED)
    paths = ["a/000.jpg", "b/stored.jpg", "b/packed.jpg"]
    folder = open_folder(str(root))
    packed = find_packed(folder, paths, open_folder(str(tmp_path / "lists")))
    frames = archive_frames.Frames(folder, packed.members(paths))
    told = []

    def refuse(size: int) -> None:
        told.append(size)
        raise CancelledError

    monkeypatch.setattr(os, "read", None)
    monkeypatch.setattr(members, "read_range", None)
    for path in paths:
        with pytest.raises(CancelledError):
            frames.read(path, refuse)
    file, stored, deflated = told
    assert file == len(frame)
    assert stored >= 2 * len(frame)  # the bytes with their header, and without
    assert len(frame) < deflated < stored


@pytest.mark.parametrize("error", [PassingError, KeyboardInterrupt])
def test_leaving_early_reads_no_more(error: type[BaseException]) -> None:
    made = Files([10] * 1000)

    def leave() -> None:
        with ReadAhead(made.read, made.paths, files=4) as frames:
            for number, _ in enumerate(frames):
                if number == 5:
                    raise error

    with pytest.raises(error):
        leave()
    assert len(made.begun) <= 10


def test_an_interrupt_does_not_wait_for_storage_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_PATIENCE_SECONDS", 0.05)
    answer = threading.Event()

    def read(path: str, _room: Room) -> bytes:
        if path != "0":
            answer.wait(LONG)
        return b"x"

    def leave(frames: ReadAhead) -> None:
        with frames:
            for _ in frames:
                raise KeyboardInterrupt

    frames = ReadAhead(read, ["0", "1", "2"], files=2)
    with pytest.raises(KeyboardInterrupt):
        leave(frames)
    left = [thread for thread in threading.enumerate() if thread.name == "read ahead"]
    assert left
    assert all(thread.daemon for thread in left)  # so that the process can end
    answer.set()
    for thread in left:
        thread.join(LONG)


def planted(
    monkeypatch: pytest.MonkeyPatch, around: Callable[[str, Callable[[], bytes]], bytes]
) -> None:
    """Have ``around`` make a build's reads."""
    monkeypatch.setattr(
        archive_frames,
        "read_frame",
        lambda root, path, room: around(path, lambda: read_frame(root, path, room)),
    )


def tars(folder: Path) -> list[str]:
    """Hashes of a set's tars, whatever their generation."""
    return sorted(one for name, one in hashes(folder).items() if name.endswith(".tar"))


def test_a_build_whose_files_come_last_first_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first are in flight at once, and each comes after the next; two are missing."""
    tree = own(tmp_path, rows=16, per_frame=1)
    for number in (4, 9):
        (tree.root / f"a/{number:03d}.jpg").unlink()
    assert tree.build("--max-bad", 0.9).code == 0
    wanted = tars(tree.out)
    numbers = itertools.count()
    came = [threading.Event() for _ in range(17)]
    came[16].set()

    def late(_: str, read: Callable[[], bytes]) -> bytes:
        number = next(numbers)
        assert number == 0 or came[number + 1].wait(LONG)
        try:
            return read()
        finally:
            came[number].set()

    planted(monkeypatch, late)
    assert tree.build("--max-bad", 0.9, "--skip-checks", "--overwrite").code == 0
    assert next(numbers) == 16
    assert quarantine(tree.out) == {4: "missing", 9: "missing"}
    assert tars(tree.out) == wanted


def test_storage_that_fails_fails_its_shard_alone_and_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = own(tmp_path, rows=12, per_frame=1)
    shards, again = ["--samples-per-shard", 4], tmp_path / "again"
    assert tree.build(*shards).code == 0

    def fail(path: str, read: Callable[[], bytes]) -> bytes:
        if path == "a/007.jpg":
            raise PassingError(f"{path}: failed")
        return read()

    with monkeypatch.context() as patched:
        planted(patched, fail)
        result = refit(*tree.command(*shards), "--out", again)
    assert result.code == 1
    assert "1 of 3 shards failed" in error_line(result)
    assert "a/007.jpg: failed" in error_line(result)
    assert refit(*tree.command(*shards), "--out", again).code == 0
    assert hashes(again / "own") == hashes(tree.out)
