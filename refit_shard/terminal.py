"""Tables, progress bars and findings on a terminal, drawn by rich.

Imported only if a command writes to a terminal and rich is installed; otherwise
:mod:`~refit_shard.console` prints plain lines.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def draw_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]
) -> None:
    """Print a table on stdout; columns that do not fit the terminal follow in a table below.

    ``widths``: the width of each column, in character cells.
    """
    console = Console()
    for index, chosen in enumerate(_beside(widths, console.width)):
        table = Table(title="" if index else Text(title), title_justify="left")
        for column in chosen:
            table.add_column(
                columns[column], justify="right" if column else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(row[column]) for column in chosen))
        console.print(table)


def _beside(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each table: the first column, and as many others as fit into ``room``."""
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


def draw_finding(status: str, mark: str, what: str, fix: str) -> None:
    """Print one of doctor's findings on stdout, its fix on a separate line to copy."""
    console = Console(highlight=False)
    text = Text(f"{mark:4}  ", style=COLOURS[status])
    console.print(text.append(what, style="default"), soft_wrap=True)
    if fix:
        console.print(Text(f"      -> {fix}", style="bold"), soft_wrap=True)


class Bar:
    """A progress bar on stderr, of ``total`` samples."""

    def __init__(self, title: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # takes the remaining width
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            expand=True,
        )
        self._task: TaskID = self._progress.add_task(title, total=total, rates="")

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def stop(self) -> None:
        """Stop updating the bar; its last state stays on the screen."""
        self._progress.stop()

    def update(self, done: int, rates: str) -> None:
        """Set the samples done and the text of rates."""
        self._progress.update(self._task, completed=done, rates=rates)
