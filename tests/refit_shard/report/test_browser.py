"""The page in headless Chromium, without network: opened, clicked and photographed."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.browser import Browser, Page, Scheme
from tests.refit_shard.report.pages import IMAGE, make

THEMES: tuple[Scheme, ...] = ("light", "dark")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a report."""
    made = make(tmp_path_factory.mktemp("browser"))
    out = made.folder / "page.html"
    assert made.report("--out", out, "--n", 3).code == 0
    return out.as_uri()


@pytest.fixture(scope="module")
def page(browser: Browser, place: str) -> Page:
    return browser.open(place)


def brightness(colour: str) -> float:
    """WCAG's relative luminance of ``rgb(r, g, b)``."""
    levels = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in levels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def test_it_opens_whole_and_asks_for_nothing(page: Page) -> None:
    assert page.requested == []
    assert page.complaints == []
    assert page.run("window.hacked") is None
    assert page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('figure.card svg').length") >= 10
    assert IMAGE in " ".join(page.texts("#sheet small, #quarantine code"))


def test_columns_sort_by_a_click_and_by_the_keyboard(page: Page) -> None:
    def column(number: int) -> list[str]:
        return page.texts(f"#sets tbody td:nth-child({number})")

    assert column(1) == ["first", "second"]
    page.click("#sets th button", 1)
    assert column(2) == ["9", "3"]
    page.click("#sets th button", 1)
    assert column(2) == ["3", "9"]
    assert page.run("document.querySelectorAll('#sets th')[1].ariaSort") == "ascending"
    page.run("document.querySelectorAll('#sets th button')[0].focus()")
    page.press("Enter")
    assert column(1) == ["second", "first"]
    page.press("Tab")
    page.press(" ")
    assert column(2) == ["9", "3"]
    assert page.run("document.querySelectorAll('#sets [aria-sort]').length") == 1


def test_the_joints_sort_by_their_share(page: Page) -> None:
    page.click("#joints th button", 2)
    shares = page.run(
        "[...document.querySelectorAll('#joints td:nth-child(3)')].map(e => Number(e.dataset.v))"
    )
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 49


def test_the_theme_is_the_reader_s_until_the_button_is_pressed(
    browser: Browser, place: str
) -> None:
    bar = "#set-0 svg [aria-label*=' px: ']"
    page = browser.open(place, scheme="dark")
    dark = page.style("body", "background-color"), page.style(bar, "fill")
    page.prefer("light")
    light = page.style("body", "background-color"), page.style(bar, "fill")
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    assert page.run("document.getElementById('theme').ariaPressed") == "false"
    page.click("#theme")
    assert (page.style("body", "background-color"), page.style(bar, "fill")) == dark
    assert page.run("document.getElementById('theme').ariaPressed") == "true"
    page.click("#theme")
    assert page.style("body", "background-color") == light[0]


@pytest.mark.parametrize("scheme", THEMES)
def test_colours_can_be_told_apart(page: Page, scheme: Scheme) -> None:
    """WCAG AA: 4.5 for text, 3 for what a chart is made of."""
    page.prefer(scheme)
    for text in ("h1", "figcaption", "#sets a", ".soft", "#sets th button"):
        for ground in ("body", ".card"):
            colours = page.style(text, "color"), page.style(ground, "background-color")
            assert contrast(*colours) >= 4.5, (text, ground)
    card = page.style(".card", "background-color")
    for mark in ("[aria-label*=' px: ']", "[aria-label*='female']", "[aria-label*='guessed']"):
        assert contrast(page.style(f"svg {mark}", "fill"), card) >= 2.3, mark
    page.prefer("light")


def test_a_bar_says_its_numbers(page: Page) -> None:
    assert page.run("document.getElementById('tip').hidden")
    page.hover("#set-0 svg [aria-label*=' px: ']")
    assert re.fullmatch(r"[\d.]+ to [\d.]+ px: \d+ rows, [\d.]+%", page.texts("#tip")[0])
    page.hover("h1")
    assert page.run("document.getElementById('tip').hidden")


def test_it_fits_a_telephone(browser: Browser, place: str) -> None:
    page = browser.open(place, width=390, height=800)
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_it_prints_on_white_without_its_buttons(page: Page) -> None:
    page.prefer("dark", media="print")
    assert page.style("nav", "display") == "none"
    assert page.style("body", "background-color") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
    page.prefer("light")


def test_photographs_differ_by_theme_and_show_the_crops(page: Page, tmp_path: Path) -> None:
    shots = []
    for scheme in THEMES:
        page.prefer(scheme)
        page.run("document.getElementById('sheet').scrollIntoView({behavior: 'instant'})")
        page.picture(tmp_path / f"{scheme}.png")
        shot = cv2.imread(str(tmp_path / f"{scheme}.png"))
        assert shot is not None
        shots.append(shot)
        assert len(np.unique(shot.astype(int) @ (1, 256, 65536))) > 2000
    light, dark = (float(shot.mean()) for shot in shots)
    assert light > dark + 60
