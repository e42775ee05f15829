"""What a person sees: tables, and progress as a bar or, off a terminal and without rich, as plain
lines.

Everything that a command prints goes through here. A reader who left (``… | head``) is no error:
the command goes on to its own exit code. A full disk is one.
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
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """A duration to two units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def plain(text: str) -> str:
    """The text with everything escaped that could steer a terminal or end the line."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def cell_width(text: str) -> int:
    """The columns of a terminal that a printable text takes: two for a wide character."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def terminal_of(stream: TextIO | None) -> ModuleType | None:
    """The module that draws on terminals, if the stream is one and rich is installed."""
    if stream is None or not stream.isatty():
        return None
    try:
        from refit_shard import terminal
    except ModuleNotFoundError:
        return None
    return terminal


class OutputError(StorageError):
    """What the command printed could not be written."""


@contextmanager
def _written() -> Iterator[None]:
    """Translate failures to write to stdout; what is printed after one goes nowhere.

    Raises:
        OutputError: anything but a reader who left.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # or Python writes it again at its end
        if not isinstance(error, BrokenPipeError):
            raise OutputError(str(explain(error, "standard output"))) from error


def flush() -> None:
    """Write what was printed.

    Raises:
        OutputError: it cannot be written.
    """
    with _written():
        if sys.stdout is not None:
            sys.stdout.flush()


def say(line: str, *, error: bool = False) -> None:
    """Print one line, which may quote data that nobody vouches for.

    Raises:
        OutputError: standard output cannot be written.
    """
    if error:
        with suppress(OSError):  # nobody is left to hear of it
            print(plain(line), file=sys.stderr, flush=True)
        return
    with _written():
        print(plain(line))


def write(text: str) -> bool:
    """Print lines that are safe for a terminal as they are; False once their reader has left.

    Raises:
        OutputError: standard output cannot be written.
    """
    with _written():
        print(text, end="", flush=True)
        return True
    return False


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; numbers to the right.

    On a terminal the columns that do not fit beside the others follow in a table below. Off a
    terminal a row is one line of plain text.

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
    """One of doctor's findings on stdout: ``line``, or on a terminal in colour with its fix apart.

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
    """Progress of long work, on stderr; a context manager. ``total`` is counted in ``unit``."""

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
        """Time since the start."""
        return time.monotonic() - self._began

    def advance(self, samples: int, size: int = 0, bad: int = 0) -> None:
        """Count units done, bytes handled and rows quarantined."""
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
    """Progress that is shown once the work has taken a second: takes how many more are done."""
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
    """Progress through the archives of a data set: takes the bytes that are done, and all bytes.

    Nothing is shown before it is first called.
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
        OutputError: it cannot be written.
    """
    import json

    with _written():
        print(json.dumps(content, indent=1))
