"""Every link is a well-formed URL, or leads to an existing file and anchor of this project."""

import posixpath
import re
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import PROJECT, Page, every

_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
PAGES = {page.path: page for page in every()}


def fault(page: Page, link: str) -> str:
    """What is wrong with a link of a page; empty if the link is right."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        good = parts.scheme == "https" and _HOST.fullmatch(parts.hostname or "")
        return "" if good else "not an https:// address"
    path = page.path
    if parts.path:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.path), unquote(parts.path)))
    if path.startswith("..") or not ((PROJECT / path).exists() or path in PAGES):
        return f"{path} is not there"
    if page.path.startswith("docs/") and not path.startswith("docs/"):
        return f"{path} is no part of the site"
    if parts.fragment and parts.fragment not in PAGES[path].anchors():
        return f"{path} has no heading #{parts.fragment}"
    return ""


def test_every_link_leads_somewhere() -> None:
    links = [(page, link) for page in every() for link in page.links()]
    faults = [f"{page.path}: {link}: {said}" for page, link in links if (said := fault(page, link))]
    print(f"\n{len(links)} links on {len(PAGES)} pages")
    assert not faults, "\n".join(faults)
    assert len(links) > 30


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("nowhere.md", "not there"),
        ("../README.md", "no part of the site"),
        ("../../../etc/passwd", "not there"),
        ("#nothing", "no heading"),
        ("http://example.org", "https"),
        ("https://example", "https"),
        ("#a-title", ""),
        ("https://example.org/a#b", ""),
        ("guides/install.md", ""),
    ],
)
def test_a_broken_link_is_found(link: str, said: str) -> None:
    page = Page(path="docs/index.md", text="# A title\n")
    PAGES["docs/index.md"], before = page, PAGES["docs/index.md"]
    try:
        found = fault(page, link)
    finally:
        PAGES["docs/index.md"] = before
    assert said in found
    assert bool(said) == bool(found)
