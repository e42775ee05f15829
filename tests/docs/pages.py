"""The pages of the documentation, parsed as CommonMark: their blocks, links and anchors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown.extensions.toc import slugify, unique
from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs.generate import pages

PROJECT = Path(__file__).resolve().parent.parent.parent
DOCS = PROJECT / "docs"
_OUTSIDE_THE_SITE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
_COMMENT = re.compile(
    r"<!--\s*(?P<kind>not run|ends with|hidden|shown)\s*:\s*(?P<text>.*?)-->", re.S
)
_SYMBOL = re.compile(r"^::: (?P<name>[\w.]+)", re.M)
_ID = re.compile(r"\bid=\"([^\"]+)\"")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. ``notes``: texts of the HTML comments before it, by kind."""

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str]

    @property
    def where(self) -> str:
        """The block's place as ``page:line``."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page. ``path``: relative to the project's folder; ``made``: True if it is generated."""

    path: str
    text: str
    made: bool = False

    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    def blocks(self) -> list[Block]:
        """The fenced blocks from top to bottom."""
        found: list[Block] = []
        notes: dict[str, str] = {}
        for token in self._tokens():
            if token.type == "html_block":
                notes |= {
                    note["kind"]: note["text"].strip() for note in _COMMENT.finditer(token.content)
                }
            elif token.type in ("fence", "code_block"):
                line = (token.map or [0])[0] + 1
                found.append(
                    Block(
                        page=self.path,
                        line=line,
                        language=token.info.strip(),
                        text=token.content,
                        notes=notes,
                    )
                )
                notes = {}
        return found

    def links(self) -> Iterator[str]:
        """The target of every link and picture of the page."""
        for token in self._tokens():
            for child in token.children or []:
                target = child.attrGet("href" if child.type == "link_open" else "src")
                if target is not None:
                    yield str(target)

    def anchors(self) -> set[str]:
        """Ids of the page's headings, as mkdocs makes them, and of the public names it shows."""
        ids: set[str] = set()
        tokens = self._tokens()
        for heading, inline in pairwise(tokens):
            if heading.type == "heading_open":
                said = "".join(child.content for child in inline.children or [])
                unique(slugify(said, "-"), ids)
        return ids | set(_SYMBOL.findall(self.text)) | set(_ID.findall(self.text))

    def prose(self) -> str:
        """The page's text without HTML comments."""
        return re.sub(r"<!--.*?-->", "", self.text, flags=re.S)


@cache
def written() -> tuple[Page, ...]:
    """All pages that are files, including README, CONTRIBUTING and CHANGELOG."""
    paths = [*sorted(DOCS.rglob("*.md")), *(PROJECT / name for name in _OUTSIDE_THE_SITE)]
    return tuple(
        Page(path=str(path.relative_to(PROJECT)), text=path.read_text(encoding="utf-8"))
        for path in paths
    )


@cache
def every() -> tuple[Page, ...]:
    """All pages, including generated ones."""
    made = (Page(path=f"docs/{path}", text=text, made=True) for path, text in pages().items())
    return (*written(), *made)
