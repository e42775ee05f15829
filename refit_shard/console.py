"""What a person sees: tables, and progress as a bar or, off a terminal, as plain lines."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

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


def say(line: str, *, error: bool = False) -> None:
    """Print one line, which may quote data that nobody vouches for."""
    print(plain(line), file=sys.stderr if error else sys.stdout)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; numbers to the right."""
    table = Table(title=Text(plain(title)), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


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
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
                console=console,
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
            self._bar.update(self._task, completed=self._done, rates=self._rates())
        elif self._lines and time.monotonic() - self._spoke >= _LINE_SECONDS:
            self._spoke = time.monotonic()
            left = self.seconds / max(1, self._done) * (self._total - self._done)
            print(
                f"{self._title}: {self._done}/{self._total} {self._rates()}, "
                f"{human_seconds(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def _rates(self) -> str:
        seconds = max(self.seconds, 1e-9)
        text = f"{self._done / seconds:.0f} samples/s"
        if self._bytes:
            text += f", {self._bytes / seconds / 1e6:.1f} MB/s"
        return text + (f", {self._bad} quarantined" if self._bad else "")


def as_json(content: Any) -> None:
    """Print one JSON document on stdout."""
    import json

    print(json.dumps(content, indent=1))
