"""Reading ahead: every file once, in order, several in flight, within bounds; no thread is left."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refit_shard.converter.archives import frames as archive_frames
from refit_shard.converter.build import ahead
from refit_shard.converter.build.ahead import ReadAhead
from refit_shard.converter.reading import read_frame
from refit_shard.shards_spec.errors import FrameError, PassingError
from tests.searches import examples
from tests.small import error_line, hashes, own, quarantine, refit

LONG = 30.0  # seconds that nothing here takes


class Files:
    """Made-up files: ``sizes`` in bytes, None for one that cannot be read; counts what is read."""

    def __init__(self, sizes: list[int | None]) -> None:
        self.sizes = sizes
        self.paths = [str(number) for number in range(len(sizes))]
        self.begun: list[int] = []
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        with self._lock:
            self.begun.append(int(path))
        size = self.sizes[int(path)]
        if size is None:
            raise FrameError("missing", path)
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
)
def test_every_file_comes_once_in_order_within_bounds(
    sizes: list[int | None], files: int, most_bytes: int
) -> None:
    made = Files(sizes)
    used = 0
    with ReadAhead(made.read, made.paths, files=files, most_bytes=most_bytes) as frames:
        for number, bring in enumerate(frames):
            used += 1
            beyond = sorted(made.begun)[used:]
            assert len(beyond) <= files
            largest = max((size or 0 for size in sizes[: used + files]), default=0)
            held = sum(sizes[one] or 0 for one in beyond)
            assert held <= most_bytes + files * largest
            if len({size for size in sizes if size}) == 1 and len(beyond) > 1:
                assert held <= most_bytes
            size = sizes[number]
            if size is None:
                with pytest.raises(FrameError, match=f"^{number}$"):
                    bring()
            else:
                assert bring() == str(number).encode().ljust(size, b".")
    assert used == len(sizes)
    assert sorted(made.begun) == list(range(len(sizes)))


def test_as_many_as_may_be_are_in_flight_at_once_once_a_size_is_known() -> None:
    """After the first, four reads each wait for three others: fewer would wait for ever."""
    together = threading.Barrier(4)
    alone = threading.Event()
    begun = []

    def read(path: str) -> bytes:
        begun.append(path)
        if path == "0":
            assert not alone.wait(0.05)
            assert begun == ["0"]
        else:
            together.wait(LONG)
        return b"x"

    with ReadAhead(read, [str(number) for number in range(9)], files=4) as frames:
        assert [bring() for bring in frames] == [b"x"] * 9


def test_bytes_bound_what_is_in_flight() -> None:
    made = Files([100] * 30)
    with ReadAhead(made.read, made.paths, files=16, most_bytes=450) as frames:
        for number, _ in enumerate(frames):
            assert len(made.begun) <= number + 1 + 4
    made = Files([1000] * 5)
    with ReadAhead(made.read, made.paths, files=16, most_bytes=450) as frames:
        for number, bring in enumerate(frames):  # each alone is too large, and comes all the same
            assert len(made.begun) <= number + 2
            assert len(bring()) == 1000


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

    def read(path: str) -> bytes:
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
        lambda root, path: around(path, lambda: read_frame(root, path)),
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
