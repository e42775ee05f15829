"""What a command meets on other people's machines: one line each, and the exit code as said."""

import contextlib
import io
import os
import pty
import re
import resource
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import refit_shard.commands.info
from refit_shard import __main__ as program
from refit_shard.cli import main
from refit_shard.console import Meter, print_table
from tests.loaders.manifests import make_config, make_manifest
from tests.small import Own, error_line, own, refit, refit_command, refit_process

NO_TEXT = os.fsdecode(b"caf\xe9")
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Six rows in one shard."""
    tree = own(tmp_path_factory.mktemp("contact"))
    assert tree.build().code == 0
    return tree


# ------------------------------------------------------------------------------ standard streams


def printing(built: Own, folder: Path) -> list[list[object]]:
    """A call of each command that prints; all end with 0."""
    make_manifest(folder, "little", [10] * 4)
    config = make_config(folder, {"little": 1.0}, batch_size=4)
    return [
        ["info", built.out],
        ["info", built.out, "--json"],
        ["verify", built.out],
        ["verify", built.out, "--json"],
        ["preview", built.out, "--out", folder / "sheet.png"],
        ["query", built.out],
        ["query", built.out, "--format", "csv"],
        ["show", built.out, "own-00000000", "--out", folder / "row.png"],
        ["simulate", config, "--shards", folder, "--cache", "1GB"],
        built.command("--dry-run"),
        built.command(),
        ["--help"],
    ]


def test_a_full_disk_behind_stdout_is_said_and_ends_with_1(built: Own, tmp_path: Path) -> None:
    for command in printing(built, tmp_path):
        assert refit(*command).code == 0
        said = io.StringIO()
        with (
            Path("/dev/full").open("w") as full,
            contextlib.redirect_stdout(full),
            contextlib.redirect_stderr(said),
        ):
            try:
                code: Any = main([str(word) for word in command])
            except SystemExit as ended:
                code = ended.code
        assert code == 1, command
        lines = [line for line in said.getvalue().splitlines() if line.startswith("refit-shard")]
        assert lines == [
            "refit-shard: standard output: no space left; free some and run the same command again"
        ]


def run_with(
    command: Sequence[object], redirections: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A command in a shell, with what the shell does to its streams."""
    script = f'exec "$@" {redirections}'
    words = ["sh", "-c", script, "sh", *refit_command(*command)]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, env=BUFFERED, **options
    )


def test_a_program_with_a_full_stdout_ends_with_1_and_no_traceback(built: Own) -> None:
    """Also where Python would write the rest at its end."""
    for command in (["info", built.out], ["--help"]):
        done = run_with(command, ">/dev/full")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "no space left" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code_and_no_file(
    built: Own, tmp_path: Path, closed: str
) -> None:
    """No file that is opened takes the place of a closed stream."""
    sheet = tmp_path / "sheet.png"
    assert run_with(["preview", built.out, "--out", sheet], closed).returncode == 0
    assert refit("preview", built.out, "--out", tmp_path / "again.png").code == 0
    assert sheet.read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_reader_who_left_does_not_change_the_exit_code(built: Own, tmp_path: Path) -> None:
    """``verify … | head`` still says that a set is broken."""
    done = run_with(["verify", built.out], "| true")
    assert (done.returncode, done.stderr) == (0, "")
    broken = own(tmp_path)
    assert broken.build().code == 0
    tar = next(broken.out.glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1])
    for more in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as left:
            command = refit_command("verify", broken.out, *more)
            code = subprocess.run(
                command, stdout=left, stderr=subprocess.DEVNULL, check=False, env=BUFFERED
            )
        assert code.returncode == 1


# ----------------------------------------------------------------------------- names and encodings


ONE_AFTER_ANOTHER = """
import sys
from refit_shard.cli import main
words = sys.argv[1:]
while words:
    end = words.index("THEN")
    print("ENDED", main(words[:end]))
    words = words[end + 1:]
"""


@pytest.mark.parametrize("environment", [ASCII, C_LOCALE, {"LC_ALL": "C.UTF-8"}])
def test_names_that_are_not_utf8_and_terminals_that_are_not(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Built, verified, drawn and printed, whatever the terminal can show."""
    names = [f"bär/größe_{row}.jpg" for row in range(2)]
    tree = Own(tmp_path / NO_TEXT, names)
    (tree.root / "bär" / f"{NO_TEXT}.jpg").write_bytes(b"")
    sheet = tmp_path / NO_TEXT / "sheet.png"
    commands: list[list[object]] = [
        tree.command("--dry-run", "--json"),
        tree.command("--on-error", "fail"),
        ["info", tree.folder / "shards"],
        ["verify", tree.out],
        ["preview", tree.out, "--out", sheet],
        ["info", tmp_path / "日本"],
    ]
    words = [str(word) for command in commands for word in (*command, "THEN")]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, *words],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    parts = done.stdout.decode("ascii" if environment is ASCII else "utf-8").split("ENDED ")
    assert [part.split("\n")[0] for part in parts[1:]] == ["0"] * 5 + ["1"], done.stderr
    assert '"missing": 0' in parts[0]
    assert all("caf" in part for part in parts[1:5])
    assert b"Traceback" not in done.stderr
    assert b"no shards there" in done.stderr
    assert sheet.is_file()


def test_a_home_folder_is_meant_by_every_path_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell leaves the ~ of --out=~/x alone."""
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    tree = own(home / "data")
    make_manifest(home / "sets", "little", [10] * 4)
    make_config(home, {"little": 1.0}, batch_size=4)
    (home / "data_config.py").write_text(
        "from pathlib import Path\nCOCO_ROOT = Path('~/data/frames')\n"
        "DATASET_FILES = [{'coco': Path('~/data/own.npz')}]\n"
    )
    (home / "coco.yaml").write_text("DATASET: {LIST: [coco], PARTITION: [1]}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("COCO_ROOT", raising=False)
    monkeypatch.chdir(here)
    where = ["--out=~/shards", "--workers=0"]
    named = ["--npz=~/data/own.npz", "--root=~/data/frames", "--name=own"]
    for command in (
        ["build", *named, *where],
        ["build", "--config=~/coco.yaml", "--data-config=~/data_config.py", *where],
        ["verify", "~/shards"],
        ["info", "~/shards"],
        ["preview", "~/shards/own", "--out=~/sheet.png"],
        ["query", "own", "--shards=~/shards", "--count"],
        ["show", "~/shards/own", "own-00000000", "--out=~/row.png"],
        ["simulate", "~/config.yaml", "--shards=~/sets", "--cache=1GB"],
    ):
        result = refit(*command)
        assert result.code == 0, result.err
    found = refit("doctor", "--config=~/coco.yaml", "--data-config=~/data_config.py").out
    assert f"COCO_ROOT is {home}/data/frames" in found
    for command in (
        ["import-occluders", "~/no.pkl"],
        ["import-occluders", "--voc=~/no"],
        ["subset-3dpw", "--data-config=~/no.py"],
        ["preview", "--stream=~/no.yaml", "--shards=~/sets", "--out=~/x.png"],
    ):
        result = refit(*command)
        assert result.code == 2
        assert "no.py" in error_line(result) or str(home) in error_line(result)
    assert {path.name for path in home.iterdir()} >= {"shards", "sheet.png"}
    assert tree.root.is_dir()
    assert list(here.iterdir()) == []


def test_without_a_home_folder_nothing_else_changes(
    built: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    for command in (["info", built.out], built.command()):
        assert refit(*command).code == 0
    result = refit("info", "~nobody-of-this-name/shards")
    assert result.code == 2
    assert "the home folder is not known; set HOME" in error_line(result)


# ------------------------------------------------------------------------------- folders and memory


def test_a_current_folder_that_was_deleted_is_one_line(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every command: some libraries would abort the process."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)  # the tests after this one are where they were
    gone.rmdir()
    for command in (["info", built.out], ["doctor"], built.command(), ["subset-3dpw"]):
        result = refit(*command)
        assert result.code == 2
        assert "the current folder was deleted; change to another one" in error_line(result)
    assert refit("--help").code == 0


def limited(size: int) -> Callable[[], None]:
    """Limits the addresses that a process may use."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def test_a_limit_on_addresses_is_one_line(built: Own, tmp_path: Path) -> None:
    """Below what is needed at once; from there on what cannot be loaded says so."""
    for size in (200_000_000, 600_000_000, program.LEAST_ADDRESSES - 1):
        result = refit_process("verify", built.out, preexec_fn=limited(size))
        assert result.code == 1
        assert "raise the limit (ulimit -v)" in error_line(result)
        assert result.err.count("\n") == 1
    make_manifest(tmp_path, "little", [10] * 4)
    config = make_config(tmp_path, {"little": 1.0}, batch_size=4)
    words = ["simulate", config, "--shards", tmp_path, "--cache", "1GB"]
    result = refit_process(*words, preexec_fn=limited(program.LEAST_ADDRESSES))
    assert result.code == 0 or "ulimit -v" in error_line(result)  # by the size of what it loads
    assert "Traceback" not in result.err
    assert refit_process("info", built.out, preexec_fn=limited(4 << 30)).code == 0


def test_an_error_of_ours_stays_recognisable(built: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that asks for a report, or the traceback; the system's own errors are explained."""

    def plant(error: Exception) -> None:
        def fail(_: str) -> None:
            raise error

        monkeypatch.setattr(refit_shard.commands.info, "describe", fail)

    plant(KeyError("k"))
    result = refit("info", built.out)
    assert result.code == 1
    assert "internal error: KeyError: 'k'; please report this" in error_line(result)
    assert "REFIT_SHARD_DEBUG=1" in error_line(result)
    for error, said in (
        (OSError(28, "full", "/data/x"), "/data/x: no space left"),
        (MemoryError(), "too large or too deep"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "no"), "not UTF-8"),
    ):
        plant(error)
        result = refit("info", built.out)
        assert result.code == 1
        assert said in error_line(result)
        assert "report" not in error_line(result)
    monkeypatch.setenv("REFIT_SHARD_DEBUG", "1")
    with pytest.raises(UnicodeEncodeError):
        refit("info", built.out)


# ------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"<!DOCTYPE html><title>Google Drive - Quota exceeded",
            "is a web page (a login, a quota or an error), not the file",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a Git LFS pointer, not the file; run `git",
        ),
        (b"", "is empty; download it again"),
        (b"PK\x03\x04 cut short", "not an npz file (File is not a zip file); is the download"),
    ],
)
def test_an_npz_that_is_something_else_says_what(tmp_path: Path, content: bytes, said: str) -> None:
    tree = own(tmp_path)
    tree.npz.write_bytes(content)
    result = tree.build()
    assert result.code == 1
    assert f"{tree.npz}: {said}" in error_line(result)


def test_what_a_mac_adds_to_an_npz_is_ignored(tmp_path: Path) -> None:
    tree = own(tmp_path)
    before = tree.build("--dry-run", "--json").out
    with zipfile.ZipFile(tree.npz, "a") as archive:
        for name in ("__MACOSX/._imgname.npy", "._pose.npy", "__MACOSX/._.npy"):
            archive.writestr(name, b"\x00\x05\x16\x07 Mac OS X")
    result = tree.build()
    assert result.code == 0, result.err
    assert "._" not in result.err
    assert "MACOSX" not in result.err
    assert before


def test_endings_in_capitals_are_frames_too(tmp_path: Path) -> None:
    tree = own(tmp_path, suffix=".JPG")
    result = tree.build()
    assert result.code == 0, result.err
    assert "6 of 6" in result.out


# ---------------------------------------------------------------------------------------- tables


def on_a_terminal(work: Callable[[], object]) -> str:
    """What is printed on a terminal, without its colours."""
    reader, writer = pty.openpty()
    heard: list[bytes] = []

    def listen() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(reader, 1 << 16):
                heard.append(data)

    listener = threading.Thread(target=listen)
    listener.start()
    with os.fdopen(writer, "w") as screen, contextlib.redirect_stdout(screen):
        work()
    listener.join()
    os.close(reader)
    said = b"".join(heard).decode().replace("\r\n", "\n")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)


ROWS = [
    ["mpi-inf-3dhp", "1000000", "999999", "1234", "123.4 GB", "31 / 149 / 1560", "100%", "55%"],
    ["3dpw", "22735", "22735", "12", "1.4 GB", "99 / 149 / 156", "100%", "100%"],
]
COLUMNS = ["dataset", "rows", "frames", "shards", "size", "box px", "SMPL", "gender"]


@pytest.fixture(params=[80])
def columns(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """How wide the terminal is."""
    for name in ("LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.mark.parametrize("columns", [80, 60, 200], indirect=True)
def test_a_table_fits_its_terminal_and_no_cell_is_cut(columns: int) -> None:
    said = on_a_terminal(lambda: print_table("info", COLUMNS, ROWS))
    lines = said.splitlines()
    assert max(map(len, lines)) <= columns
    for cell in (*COLUMNS, *ROWS[0], *ROWS[1]):
        assert cell in said
    tables = 1 + sum(line.startswith("┏") for line in lines[2:])
    assert tables == (1 if columns == 200 else 2)


@pytest.mark.usefixtures("columns")
def test_the_tables_of_the_commands_fit_80_columns(
    built: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(built.folder)
    make_manifest(tmp_path, "a-name-as-long-as-mpi-inf-3dhp", [10] * 4)
    config = make_config(tmp_path, {"a-name-as-long-as-mpi-inf-3dhp": 1.0}, batch_size=4)
    commands: list[list[object]] = [
        ["info", "shards"],
        ["build", *built.command()[1:-2], "--workers", 0],
        built.command("--dry-run"),
        ["simulate", config, "--shards", tmp_path, "--cache", "1GB"],
    ]
    for command in commands:
        words = [str(word) for word in command]
        with contextlib.redirect_stderr(io.StringIO()):
            said = on_a_terminal(lambda words=words: main(words))  # type: ignore[misc]
        boxes = [line for line in said.splitlines() if line[:1] in "┏┃┡│└"]
        assert boxes
        assert max(map(len, boxes)) <= 80, said


def test_in_a_pipe_a_row_is_one_line_of_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("info", COLUMNS, ROWS)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "info"
    assert said[1].split("  ")[0] == "dataset"
    assert said[2].split() == " ".join(ROWS[0]).split()
    assert len(said) == 4
    assert all(line.isascii() for line in said)


@pytest.mark.usefixtures("columns")
def test_a_bar_shows_its_rates_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        with Meter("mpi-inf-3dhp", 1_000_000) as meter:
            meter._began -= 1000
            meter.advance(999_999, 10**9, 324)

    said = on_a_terminal(work)
    assert "999999/1000000" in said
    assert "324 quarantined" in said
