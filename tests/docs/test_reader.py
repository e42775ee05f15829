"""The site in an offline browser: in light and dark colours, at a desktop's and a phone's width."""

from pathlib import Path
from typing import Literal

import pytest

from tests.browser import Browser

PAGES = (
    *("index", "start", "guides/report", "guides/data", "how/native", "how/streaming"),
    *("reference/loader", "reference/joints", "reference/commands/build"),
)
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(30, 33, 41)"}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_fit_their_window_and_load_nothing_from_elsewhere(
    browser: Browser, site: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    for name in PAGES:
        page = browser.open(f"file://{site}/{name}.html", width=width, scheme=scheme)
        assert page.texts("h1"), name
        assert page.run("document.documentElement.scrollWidth") <= width, name
        assert page.run("[...document.images].every(image => image.naturalWidth > 0)"), name
        assert page.style("body", "background-color") == PAPER[scheme], name
        assert all(url.startswith("file://") for url in page.requested), name
