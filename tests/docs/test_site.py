"""The site builds without a warning, and its pages load nothing from the network."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from docs.generate import reasons
from examples.joints_picture import PICTURE, picture
from refit_shard.shards_spec.joints import JOINTS
from tests.docs.pages import DOCS, PROJECT, every


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in every():
        if page.path.startswith("docs/"):
            assert (site / page.path.removeprefix("docs/")).with_suffix(".html").is_file()
    assert not list(site.rglob("*.py"))


def test_the_site_asks_nothing_of_the_network(site: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)"
    )
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\((?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_pages_of_names_show_them(site: Path) -> None:
    text = (site / "reference/loader.html").read_text(encoding="utf-8")
    assert 'id="refit_shard.StreamingLoader.load_state_dict"' in text
    assert ":class:" not in text


def test_every_page_is_in_the_navigation() -> None:
    def paths(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        assert hasattr(values, "__iter__")
        return [path for value in values for path in paths(value)]

    listed = paths(yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | {reasons.PATH}
    assert written == {path for path in listed if path.endswith(".md")}, (
        "a page is missing in nav: of mkdocs.yml, or there is none of its name"
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_docs_builds_it_so() -> None:
    said = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "mkdocs build" in said.stdout
    assert "strict: true" in (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_picture_of_the_joints_is_the_one_that_is_drawn() -> None:
    drawn = picture()
    assert PICTURE.read_text(encoding="utf-8") == drawn, "python -m examples.joints_picture"
    assert all(f" {name}<" in drawn or f">{name} " in drawn for name in JOINTS)
