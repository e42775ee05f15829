"""Hooks of ``mkdocs build`` that add generated pages to the site and its navigation."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.generate import commands, pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the commands' folder in the navigation by one entry per command."""
    config.nav = _expanded(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site's files."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def _expanded(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_expanded(entry) for entry in nav]
    if isinstance(nav, dict):
        return {title: _expanded(entry) for title, entry in nav.items()}
    if nav != commands.FOLDER:
        return nav
    return [
        path if path.endswith("index.md") else {Path(path).stem: path} for path in commands.pages()
    ]
