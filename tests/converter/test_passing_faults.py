"""Errors that say nothing of a frame lose no row: tried again, then the shard fails, then go on."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refit_shard.converter import reading
from refit_shard.converter.build import work
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.reading import read_frame
from refit_shard.shards_spec.errors import FrameError, PassingError
from refit_shard.shards_spec.storage.folder import open_folder
from tests.small import Own, error_line, hashes, own, quarantine, refit, refit_process

SHARDED = ("--samples-per-shard", 2)
PASSING = [
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EAGAIN, errno.EBUSY, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO),
    *(errno.ECONNRESET, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.EKEYEXPIRED),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of tries without the pauses."""
    monkeypatch.setattr(reading, "PAUSES", (0.0,) * len(reading.PAUSES))


@pytest.fixture
def tree(tmp_path: Path) -> Own:
    """Four shards' worth of rows; nothing built."""
    return own(tmp_path, rows=8)


class Failing:
    """Makes a call on one file fail ``times`` times with an error."""

    def __init__(self, name: str, call: str, error: BaseException, times: float) -> None:
        self.name, self.call, self.error, self.times = name, call, error, times
        self.done = 0
        self._files: set[int] = set()
        self._real: dict[str, Callable[..., Any]] = {
            one: getattr(os, one) for one in ("open", "fstat", "read", "preadv", "close")
        }

    def _fail(self, call: str) -> None:
        if call == self.call and self.done < self.times:
            self.done += 1
            raise self.error

    def open(self, path: Any, *args: Any, **options: Any) -> int:
        """``os.open``."""
        mine = os.fsdecode(path).endswith(self.name)
        if mine:
            self._fail("open")
        file: int = self._real["open"](path, *args, **options)
        if mine:
            self._files.add(file)
        return file

    def close(self, file: int) -> None:
        """``os.close``."""
        self._files.discard(file)
        self._real["close"](file)

    def wrapped(self, call: str) -> Callable[..., Any]:
        """A call on a descriptor."""

        def replaced(file: int, *args: Any) -> Any:
            if file in self._files:
                self._fail("read" if call == "preadv" else call)
            return self._real[call](file, *args)

        return replaced


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Failing]]:
    """Plant a fault."""

    def plant(name: str, call: str, error: BaseException, times: float = 1) -> Failing:
        fault = Failing(name, call, error, times)
        monkeypatch.setattr(os, "open", fault.open)
        monkeypatch.setattr(os, "close", fault.close)
        for one in ("fstat", "read", "preadv"):
            monkeypatch.setattr(os, one, fault.wrapped(one))
        return fault

    yield plant
    monkeypatch.undo()


def undisturbed(tree: Own) -> dict[str, str]:
    """The hashes of a build that nothing disturbs; it is removed again."""
    assert tree.build(*SHARDED).code == 0
    found = hashes(tree.out)
    for path in tree.out.iterdir():
        path.unlink()
    return found


@pytest.mark.parametrize("number", PASSING, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("call", ["open", "fstat", "read"])
def test_a_passing_error_is_tried_again_and_does_not_show(
    tree: Own, fail: Callable[..., Failing], call: str, number: int
) -> None:
    wanted = undisturbed(tree)
    fault = fail("a/001.jpg", call, OSError(number, os.strerror(number)), len(reading.PAUSES))
    result = tree.build(*SHARDED)
    assert result.code == 0, result.err
    assert fault.done == len(reading.PAUSES)
    assert hashes(tree.out) == wanted


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "fstat", "read"])
def test_one_that_stays_fails_its_shard_and_loses_no_row(
    tree: Own, fail: Callable[..., Failing], call: str, number: int
) -> None:
    wanted = undisturbed(tree)
    fault = fail("a/001.jpg", call, OSError(number, os.strerror(number)), float("inf"))
    result = tree.build(*SHARDED)
    assert result.code == 1
    line = error_line(result)
    assert "1 of 4 shards failed" in line
    assert f"{tree.root}/a/001.jpg: {os.strerror(number)}, also when tried again" in line
    assert "run the same command again" in line
    assert fault.done == 2 * (len(reading.PAUSES) + 1)  # by the first look, then by the build
    found = hashes(tree.out)
    assert len(found) == 6
    assert found.items() <= wanted.items()
    fault.times = 0
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == wanted


def test_a_frame_that_cannot_be_decoded_for_want_of_memory_fails_its_shard(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed(tree)
    wrong = [1, 1, 1, 0, 0]

    def short(data: bytes) -> Any:
        if wrong and wrong.pop(0):
            raise MemoryError
        return decode_frame(data)

    monkeypatch.setattr(work, "decode_frame", short)
    result = tree.build(*SHARDED)
    assert result.code == 1
    assert ".jpg: not enough memory, also when tried again" in error_line(result)
    wrong[:] = [1, 1, 0]
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == wanted


@pytest.mark.slow  # the same errors are planted without Ray
def test_a_real_error_of_the_kernel_in_a_worker_of_ray_fails_its_shard_alone(tree: Own) -> None:
    """A process's own memory cannot be read at its begin: EIO."""
    wanted = undisturbed(tree)
    frame = tree.root / "a/001.jpg"
    data = frame.read_bytes()
    frame.unlink()
    frame.symlink_to("/proc/self/mem")
    result = refit_process(*tree.command(*SHARDED, workers=1))
    assert result.code == 1
    line = error_line(result)
    assert "1 of 4 shards failed" in line
    assert "a/001.jpg: Input/output error, also when tried again" in line
    assert len(hashes(tree.out)) == 6
    frame.unlink()
    frame.write_bytes(data)
    assert refit_process(*tree.command(*SHARDED, workers=1)).code == 0
    assert hashes(tree.out) == wanted


def test_storage_that_fails_throughout_is_not_waited_for_shard_by_shard(tmp_path: Path) -> None:
    tree = own(tmp_path, rows=40)
    for path in (tree.root / "a").iterdir():
        path.unlink()
        path.symlink_to("/proc/self/mem")
    result = tree.build(*SHARDED)
    assert result.code == 1
    assert "8 of 20 shards failed" in error_line(result)


def test_a_root_that_goes_away_is_not_a_set_of_missing_frames(tmp_path: Path) -> None:
    with pytest.raises(PassingError, match="frames does not exist, also when tried again"):
        read_frame(open_folder(str(tmp_path / "frames")), "a/000.jpg")
    (tmp_path / "frames").mkdir()
    with pytest.raises(FrameError, match="no such file"):
        read_frame(open_folder(str(tmp_path / "frames")), "a/000.jpg")


def spoil(kind: str, frame: Path) -> None:
    """Put something in a frame's place that is no readable file."""
    frame.unlink()
    if kind == "a folder":
        frame.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(frame)
    elif kind == "a loop":
        frame.symlink_to(frame)
    elif kind == "a file in a folder's place":
        for other in frame.parent.iterdir():
            other.unlink()
        frame.parent.rmdir()
        frame.parent.write_bytes(b"")
    elif kind == "a device":
        frame.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("kind", "reason"),
    {
        "nothing": "missing",
        "a file in a folder's place": "missing",
        "a folder": "unreadable",
        "a FIFO": "unreadable",
        "a loop": "unreadable",
        "a device": "unreadable",
    }.items(),
)
def test_what_is_true_of_the_file_itself_is_quarantined(
    tmp_path: Path, kind: str, reason: str
) -> None:
    tree = Own(tmp_path, ["a/000.jpg", "b/000.jpg"])
    spoil(kind, tree.root / "a/000.jpg")
    assert tree.build().code == 0
    assert quarantine(tree.out) == {0: reason}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG])
def test_no_permission_is_true_of_the_file_and_not_tried_again(
    tree: Own, fail: Callable[..., Failing], number: int
) -> None:
    fault = fail("a/001.jpg", "open", OSError(number, os.strerror(number)), float("inf"))
    assert tree.build(*SHARDED, "--skip-checks").code == 0
    assert quarantine(tree.out) == {2: "unreadable", 3: "unreadable"}
    assert fault.done == 1


def test_reads_that_give_little_at_a_time_are_read_to_the_end(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed(tree)
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, count: read(file, min(count, 100)))
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == wanted


def test_a_file_that_gives_fewer_bytes_than_it_has_is_no_frame_cut_short(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed(tree)
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda *_: b"")
        result = tree.build(*SHARDED)
    assert result.code == 1
    assert "gave 0 of " in error_line(result)
    assert tree.build(*SHARDED).code == 0
    assert hashes(tree.out) == wanted


def test_a_frame_may_grow_while_it_is_read_but_not_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "frame").write_bytes(bytes(1000))
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 3000)
    monkeypatch.setattr(os, "read", lambda _, count: bytes(min(count, 1000)))
    with pytest.raises(FrameError, match="the limit is 3000"):
        read_frame(open_folder(str(tmp_path)), "frame")


@pytest.mark.parametrize("call", ["open", "read"])
def test_a_passing_error_of_the_npz_is_tried_again_and_never_called_damage(
    tree: Own, fail: Callable[..., Failing], call: str
) -> None:
    wanted = undisturbed(tree)
    fault = fail("own.npz", call, OSError(errno.ESTALE, "Stale file handle"), 2)
    assert tree.build(*SHARDED).code == 0
    assert fault.done == 2
    assert hashes(tree.out) == wanted
    fault.times = float("inf")
    result = tree.build(*SHARDED)
    assert result.code == 1
    assert "own.npz: Stale file handle, also when tried again" in error_line(result)
    assert hashes(tree.out) == wanted


@pytest.mark.parametrize("suffix", [".tar", ".arrow"])
def test_a_standing_shard_that_cannot_be_read_now_is_not_built_again(
    tree: Own, fail: Callable[..., Failing], suffix: str
) -> None:
    wanted = undisturbed(tree)
    assert tree.build(*SHARDED).code == 0
    fault = fail(f"own-000002{suffix}", "read", OSError(errno.EIO, "Input/output error"), 2)
    times = {path: path.stat().st_mtime_ns for path in tree.out.iterdir()}
    assert tree.build(*SHARDED).code == 0
    fault.times = float("inf")
    result = tree.build(*SHARDED)
    assert result.code == 1
    assert f"own-000002{suffix}: Input/output error, also when tried again" in error_line(result)
    assert {path: path.stat().st_mtime_ns for path in tree.out.iterdir()} == times
    assert hashes(tree.out) == wanted


def test_names_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    tree = Own(tmp_path, ["кадр/人 1.jpg"])
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = refit_process(*tree.command(), env=environment)
    assert result.code == 0, result.err
    assert quarantine(tree.out) == {}
    assert refit("verify", tree.out).code == 0


def test_an_npz_that_is_read_in_pieces_is_the_same(
    tree: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda file, into, at: preadv(file, [memoryview(into[0])[:777]], at)
    )
    file = reading.open_source(str(tree.npz))
    with file:
        data = file.read()
        assert data == tree.npz.read_bytes()
        file.seek(-100, io.SEEK_END)
        assert file.read() == data[-100:]
    loaded = np.load(reading.open_source(str(tree.npz)))
    assert np.array_equal(loaded["center"], tree.columns["center"])
    loaded.close()
