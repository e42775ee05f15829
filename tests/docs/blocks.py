"""Runs the code blocks of a page from top to bottom and compares their output with the page.

- ``python`` blocks of a page share variables. The ``text`` block below one must be its output.
- ``console`` blocks hold ``$ command`` lines, each followed by its output; ``sh`` blocks hold only
  commands. ``refit-shard`` runs in this process, builds without Ray; other commands run in bash.
- In a page's output, ``…`` matches anything within a line, and a line with only ``…`` any lines.
  The current folder is ``/home/you/ReFit``.
- ``<!-- not run: why -->`` before a block: the block is checked, but not run.
  ``<!-- ends with: 1 -->``: exit code of its last command. ``<!-- hidden: … -->``: Python that is
  run before the block.
"""

import ast
import contextlib
import importlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from refit_shard.cli import main, make_parser
from tests.docs.pages import Block

PLAIN = {"text", "yaml", "json", "dockerfile", "make"}
_ANYTHING = "…"
_HERE = "/home/you/ReFit"


def pattern(shown: str) -> re.Pattern[str]:
    """A regular expression that matches the output that a page shows."""
    made = ""
    for line in shown.rstrip("\n").splitlines():
        if line.strip() == _ANYTHING:
            made += r"(?:[^\n]*\n)*?"
        else:
            made += ".*?".join(map(re.escape, line.rstrip().split(_ANYTHING))) + r"[ ]*\n"
    return re.compile(made + r"\n*")


def fits(shown: str, printed: str) -> bool:
    """True if a command's output matches what the page shows."""
    return (
        pattern(shown).fullmatch(printed.strip("\n") + "\n" if printed.strip() else "") is not None
    )


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a ``console`` or ``sh`` block, each with the output below it."""
    prompt = "$ " if block.language == "console" else ""
    found: list[tuple[str, str]] = []
    going_on = False
    for line in block.text.splitlines():
        if going_on:
            found[-1] = (found[-1][0] + "\n" + line, "")
        elif line.startswith(prompt) and (prompt or line.strip()):
            found.append((line.removeprefix(prompt), ""))
        elif found and prompt:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
        else:
            assert not line.strip(), f"{block.where}: begins without a command"
        going_on = line.endswith("\\")
    return found


def words(command: str) -> list[str]:
    """The words of a command without comments."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


@dataclass
class Runner:
    """Runs the blocks of one page in the current folder; ``names``: their Python variables."""

    names: dict[str, Any] = field(default_factory=dict)

    def run(self, block: Block, below: Block | None) -> None:
        """Run a block, or only check it. ``below``: the next block of the page."""
        if "hidden" in block.notes:
            self._python(block.notes["hidden"], f"{block.where} (hidden)")
        if "not run" in block.notes:
            assert block.notes["not run"], f"{block.where}: says not why"
            look_at(block)
        elif block.language == "python":
            printed = self._python(block.text, block.where)
            shown = below.text if below is not None and below.language == "text" else ""
            if printed:
                assert fits(shown, printed), said(block, shown, printed)
        elif block.language in ("console", "sh"):
            self._shell(block)
        else:
            look_at(block)

    def _python(self, text: str, where: str) -> str:
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(text, where, "exec"), self.names)
        except Exception:
            raise AssertionError(f"{where}:\n{text}\n{traceback.format_exc()}") from None
        return out.getvalue()

    def _shell(self, block: Block) -> None:
        every = commands(block)
        for number, (command, shown) in enumerate(every):
            code, printed = perform(command)
            printed = printed.replace(str(Path.cwd()), _HERE)
            last = number == len(every) - 1
            expected = int(block.notes.get("ends with", "0")) if last else 0
            assert code == expected, f"{block.where}: {command}: ended with {code}\n{printed}"
            if block.language == "console":
                assert fits(shown, printed), said(block, shown, printed)


def said(block: Block, shown: str, printed: str) -> str:
    """The message for a block whose output differs from what the page shows."""
    return f"{block.where} shows\n{shown}\nbut this is printed:\n{printed}"


def perform(command: str) -> tuple[int, str]:
    """Run a command; returns its exit code and output."""
    arguments = words(command)
    if arguments and arguments[0] == "export":
        for part in arguments[1:]:
            name, _, value = part.partition("=")
            os.environ[name] = value
        return 0, ""
    piped = any(mark in command for mark in "|&;<>")
    if arguments and arguments[0] == "refit-shard" and not piped:
        if arguments[1] in ("build", "extract-frames") and "--workers" not in arguments:
            arguments += ["--workers", "0"]
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = main(arguments[1:])
            except SystemExit as ended:  # argparse
                code = int(ended.code or 0)
        return code, out.getvalue()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def look_at(block: Block) -> None:
    """Check a block that is not run: its syntax, options of our commands, names of our packages."""
    if block.language == "python":
        for node in ast.walk(ast.parse(block.text, block.where)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refit_shard"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{block.where}: {ast.unparse(node)}"
    elif block.language in ("console", "sh"):
        script = "\n".join(command for command, _ in commands(block))
        done = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert not done.returncode, f"{block.where}: {done.stderr}"
        _check_options(block)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    else:
        assert block.language in PLAIN, f"{block.where}: a block of {block.language or 'nothing'}"


def _check_options(block: Block) -> None:
    """Parse every ``refit-shard`` command of a block that is not run."""
    for line in block.text.replace("\\\n", " ").splitlines():
        text = line.removeprefix("$ ").strip()
        if text.startswith("refit-shard "):
            own = itertools.takewhile(lambda word: word not in (">", "|", "&&"), words(text)[1:])
            arguments = [word for word in own if word != _ANYTHING]
            with contextlib.redirect_stderr(io.StringIO()) as err:
                try:
                    make_parser().parse_args(arguments)
                except SystemExit as ended:
                    if ended.code:
                        raise AssertionError(f"{block.where}: {text}\n{err.getvalue()}") from None
