"""Pages of the site that are generated from the program by ``mkdocs build`` (``mkdocs.yml``)."""

from docs.generate import commands, reasons


def pages() -> dict[str, str]:
    """Markdown of every generated page, by its path below ``docs/``."""
    return commands.pages() | reasons.pages()
