"""One Markdown page per command, generated from its argparse parser."""

import argparse
import html
import re
import textwrap
from collections.abc import Iterator

from refit_shard.cli import make_parser

FOLDER = "reference/commands"
_WIDTH = 84
# An option and its value stay on one line of the usage.
_TOGETHER = re.compile(r"\[[^\]]*\]|--\S+ [^\s\[-]\S*")


def _commands() -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    (found,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return found


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by the command's name."""
    return dict(_commands().choices)


def command_summaries() -> dict[str, str]:
    """The line of ``refit-shard --help`` on every command, by the command's name."""
    return {action.dest: action.help or "" for action in _commands()._choices_actions}


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments and options of a command, without ``--help``."""
    return (action for action in parser._actions if action.dest != "help")


def pages() -> dict[str, str]:
    """Markdown of an overview and of one page per command, by path below ``docs/``."""
    summaries = command_summaries()
    rows = [f"| [`{name}`]({name}.md) | {summaries[name]} |" for name in summaries]
    epilog = make_parser().epilog or ""
    overview = [
        "# Commands\n",
        "Every page is generated from the command's `--help`.\n",
        "| command | what it does |",
        "|---|---|",
        *rows,
        f"\n{epilog[:1].upper()}{epilog[1:]}. `--json` prints JSON for scripts;",
        "`REFIT_SHARD_DEBUG=1` shows the traceback of an internal error.",
    ]
    made = {f"{FOLDER}/index.md": "\n".join(overview) + "\n"}
    for name, parser in command_parsers().items():
        made[f"{FOLDER}/{name}.md"] = _page(name, summaries[name], parser)
    return made


def _page(name: str, summary: str, parser: argparse.ArgumentParser) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    together = _TOGETHER.sub(lambda found: found[0].replace(" ", "\0"), usage)
    wrapped = textwrap.fill(
        together, _WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    ).replace("\0", " ")
    lines = [f"# refit-shard {name}\n", f"{_sentence(summary)}\n"]
    lines += ["```text", wrapped, "```\n", *_description(parser.description or "")]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            title = (group.title or "").removeprefix("positional ").capitalize()
            lines += [
                f"\n## {title}\n",
                f"| {title.lower()} | meaning |",
                "|---|---|",
                *map(_row, actions),
            ]
    return "\n".join(lines) + "\n"


def _description(text: str) -> Iterator[str]:
    """Markdown of a description: paragraphs as text, indented lines (examples) as code."""
    for paragraph in textwrap.dedent(text).split("\n\n"):
        if paragraph.startswith("  "):
            yield f"```text\n{textwrap.dedent(paragraph).rstrip()}\n```\n"
        else:
            yield f"{_escaped(' '.join(paragraph.split()))}\n"


def _row(action: argparse.Action) -> str:
    shown = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    takes = "" if action.nargs == 0 else str(shown)
    names = [f"{name} {takes}".strip() for name in action.option_strings] or [str(shown)]
    said = ", ".join(f"<code>{html.escape(name)}</code>" for name in names).replace("|", "&#124;")
    required = " **Required.**" if action.required and action.option_strings else ""
    return f"| {said} | {_escaped(_sentence(_help(action)))}{required} |"


def _sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}" if text else ""


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": "refit-shard"}
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """Text with characters escaped that Markdown or HTML would interpret, except backquotes."""
    for char in "\\*<|_[":
        text = text.replace(char, f"\\{char}" if char != "<" else "&lt;")
    return text
