"""What the site holds that is made from the program: run by ``mkdocs build`` (``mkdocs.yml``)."""

from docs.generate import commands, reasons


def pages() -> dict[str, str]:
    """Markdown of every page that is made, by its path below ``docs/``."""
    return commands.pages() | reasons.pages()
