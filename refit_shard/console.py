"""Output of commands: lines, tables, JSON, and progress.

Everything that a command prints goes through this module. Progress is a bar on a terminal, and
plain lines elsewhere or without rich. A pipe that its reader closed (``… | head``) is no error: the
command goes on to its own exit code. A full disk is an error.
"""

import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from refit_shard.shards_spec.errors import StorageError, explain

if TYPE_CHECKING:
    from refit_shard.terminal import Bar

_LINE_SECONDS = 10.0
_LATE_SECONDS = 1.0


def human_bytes(count: float) -> str:
    """A number of bytes in decimal units, such as ``1.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """A duration in at most two units, such as ``3 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def plain(text: str) -> str:
    """The text with control characters and line breaks escaped."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def cell_width(text: str) -> int:
    """Width of a printable text in terminal columns: a wide character takes two."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def terminal_of(stream: TextIO | None) -> ModuleType | None:
    """The module :mod:`refit_shard.terminal` if the stream is a terminal and rich is installed,
    else None.
    """
    if stream is None or not stream.isatty():
        return None
    try:
        from refit_shard import terminal
    except ModuleNotFoundError:
        return None
    return terminal


class OutputError(StorageError):
    """Standard output cannot be written."""


@contextmanager
def _written() -> Iterator[None]:
    """Turn a failure to write to stdout into an OutputError; later output is discarded.

    Raises:
        OutputError: any failure except a closed pipe, which is ignored.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # else Python tries again when it exits
        if not isinstance(error, BrokenPipeError):
            raise OutputError(str(explain(error, "standard output"))) from error


def flush() -> None:
    """Flush standard output.

    Raises:
        OutputError: standard output cannot be written.
    """
    with _written():
        if sys.stdout is not None:
            sys.stdout.flush()


def say(line: str, *, error: bool = False) -> None:
    """Print one line on stdout, or on stderr with ``error``; control characters are escaped.

    Raises:
        OutputError: standard output cannot be written.
    """
    if error:
        with suppress(OSError):  # there is no other place to report a failure of stderr
            print(plain(line), file=sys.stderr, flush=True)
        return
    with _written():
        print(plain(line))


def write(text: str) -> bool:
    """Print text that is already escaped; returns False if the reader has closed the pipe.

    Raises:
        OutputError: standard output cannot be written.
    """
    with _written():
        print(text, end="", flush=True)
        return True
    return False


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; all columns but the first are aligned right.

    On a terminal, columns that do not fit its width follow in a second table below. Elsewhere each
    row is one line of plain text.

    Raises:
        OutputError: standard output cannot be written.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_width, column)) for column in zip(columns, *cells, strict=True)]
    with _written():
        terminal = terminal_of(sys.stdout)
        if terminal is not None:
            terminal.draw_table(plain(title), columns, cells, widths)
            return
        print(plain(title))
        for row in (columns, *cells):
            padded = [_padded(*one) for one in zip(row, widths, range(len(row)), strict=True)]
            print("  ".join(padded).rstrip())


def print_finding(status: str, mark: str, what: str, fix: str, line: str) -> None:
    """Print one of doctor's findings on stdout: ``line``, or on a terminal in colour, with the fix
    on a line below.

    Raises:
        OutputError: standard output cannot be written.
    """
    with _written():
        terminal = terminal_of(sys.stdout)
        if terminal is not None:
            terminal.draw_finding(status, mark, plain(what), plain(fix))
            return
    say(line)


def _padded(cell: str, width: int, column: int) -> str:
    spaces = " " * (width - cell_width(cell))
    return spaces + cell if column else cell + spaces


class Meter:
    """A context manager that shows progress of long work on stderr. ``total`` is in ``unit``."""

    def __init__(
        self, title: str, total: int, *, quiet: bool = False, unit: str = "samples"
    ) -> None:
        self._title = plain(title)
        self._unit = unit
        self._total = total
        self._done = 0
        self._bytes = 0
        self._bad = 0
        self._began = time.monotonic()
        self._spoke = self._began
        terminal = None if quiet else terminal_of(sys.stderr)
        self._bar: Bar | None = terminal.Bar(self._title, total) if terminal else None
        self._lines = not quiet and terminal is None

    def __enter__(self) -> "Meter":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def advance(self, samples: int, size: int = 0, bad: int = 0) -> None:
        """Add ``samples`` units, ``size`` bytes and ``bad`` quarantined rows to what is done."""
        self._done += samples
        self._bytes += size
        self._bad += bad
        if self._bar is not None:
            self._bar.update(self._done, self._rates("/s"))
        elif self._lines and time.monotonic() - self._spoke >= _LINE_SECONDS:
            self._spoke = time.monotonic()
            left = self.seconds / max(1, self._done) * (self._total - self._done)
            line = f"{self._title}: {self._done}/{self._total} {self._rates(f' {self._unit}/s')}, "
            say(line + f"{human_seconds(left)} left", error=True)

    def _rates(self, unit: str) -> str:
        seconds = max(self.seconds, 1e-9)
        text = f"{self._done / seconds:.0f}{unit}"
        if self._bytes:
            text += f", {self._bytes / seconds / 1e6:.1f} MB/s"
        return text + (f", {self._bad} quarantined" if self._bad else "")


@contextmanager
def late_meter(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Progress that is shown only if the work takes more than a second.

    Yields a function that takes how many more units are done.
    """
    meter, shown = Meter(title, total, quiet=quiet), False

    def advance(more: int) -> None:
        nonlocal shown
        meter.advance(more)
        if not shown and meter.seconds > _LATE_SECONDS:
            shown = True
            meter.__enter__()

    try:
        yield advance
    finally:
        if shown:
            meter.__exit__(None, None, None)


@contextmanager
def listing_meter(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress of listing a dataset's archives.

    Yields a function that takes the bytes done so far and all bytes; its first call shows the
    meter.
    """
    meters: list[Meter] = []
    shown = 0

    def reached(done: int, total: int) -> None:
        nonlocal shown
        if not meters:
            meters.append(Meter(f"{name}, archives", total >> 20, quiet=quiet, unit="MB"))
            meters[0].__enter__()
        if done == total or done - shown > total // 1000:
            meters[0].advance((done >> 20) - (shown >> 20))
            shown = done

    try:
        yield reached
    finally:
        for meter in meters:
            meter.__exit__(None, None, None)


def as_json(content: Any) -> None:
    """Print one JSON document on stdout.

    Raises:
        OutputError: standard output cannot be written.
    """
    import json

    with _written():
        print(json.dumps(content, indent=1))
