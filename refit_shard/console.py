"""What a person sees: tables, and progress as a bar or, off a terminal, as plain lines.

Everything that a command prints goes through here. A reader who left (``… | head``) is no error:
the command goes on to its own exit code. A full disk is one.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from refit_shard.shards_spec.errors import StorageError, explain

_LINE_SECONDS = 10.0


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


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; numbers to the right.

    On a terminal the columns that do not fit beside the others follow in a table below. Off a
    terminal a row is one line of plain text.

    Raises:
        OutputError: standard output cannot be written.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    with _written():
        console = Console()
        if not console.is_terminal:
            print(plain(title))
            for row in (columns, *cells):
                padded = [_padded(*one) for one in zip(row, widths, range(len(row)), strict=True)]
                print("  ".join(padded).rstrip())
            return
        for index, chosen in enumerate(_beside(widths, console.width)):
            table = Table(title="" if index else Text(plain(title)), title_justify="left")
            for column in chosen:
                table.add_column(
                    columns[column], justify="right" if column else "left", overflow="fold"
                )
            for row in cells:
                table.add_row(*(Text(row[column]) for column in chosen))
            console.print(table)


def _padded(cell: str, width: int, column: int) -> str:
    spaces = " " * (width - cell_len(cell))
    return spaces + cell if column else cell + spaces


def _beside(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each table: the first one, and as many others as there is room for."""
    tables: list[list[int]] = []
    border = 3  # a line and a space on either side
    left = 0
    for column in range(1, len(widths)):
        if not tables or widths[column] + border > left:
            tables.append([0])
            left = room - (widths[0] + border) - 1
        tables[-1].append(column)
        left -= widths[column] + border
    return tables


class Meter:
    """Progress of long work, on stderr; a context manager. ``total`` and ``done`` are samples."""

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self._title = plain(title)
        self._total = total
        self._done = 0
        self._bytes = 0
        self._bad = 0
        self._began = time.monotonic()
        self._spoke = self._began
        console = Console(stderr=True)
        self._bar: Progress | None = None
        self._lines = not quiet and not console.is_terminal
        if not quiet and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),  # what is left
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
                console=console,
                expand=True,
            )
            self._task = self._bar.add_task(self._title, total=total, rates="")

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
        """Count samples done, bytes handled and rows quarantined."""
        self._done += samples
        self._bytes += size
        self._bad += bad
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rates=self._rates("/s"))
        elif self._lines and time.monotonic() - self._spoke >= _LINE_SECONDS:
            self._spoke = time.monotonic()
            left = self.seconds / max(1, self._done) * (self._total - self._done)
            line = f"{self._title}: {self._done}/{self._total} {self._rates(' samples/s')}, "
            say(line + f"{human_seconds(left)} left", error=True)

    def _rates(self, unit: str) -> str:
        seconds = max(self.seconds, 1e-9)
        text = f"{self._done / seconds:.0f}{unit}"
        if self._bytes:
            text += f", {self._bytes / seconds / 1e6:.1f} MB/s"
        return text + (f", {self._bad} quarantined" if self._bad else "")


def as_json(content: Any) -> None:
    """Print one JSON document on stdout.

    Raises:
        OutputError: it cannot be written.
    """
    import json

    with _written():
        print(json.dumps(content, indent=1))
