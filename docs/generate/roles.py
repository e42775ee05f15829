"""Turns Sphinx roles in docstrings, such as ``:class:`refit_shard.Sample```, into links of the
site.
"""

import re
from typing import Any

import griffe

import refit_shard

_ROLE = re.compile(r":(?:class|func|meth|data|mod):`~?(?P<name>[\w.]+)`")


def linked(text: str) -> str:
    """The docstring with its roles as code; roles of public names also become links."""

    def link(found: re.Match[str]) -> str:
        last = found["name"].rpartition(".")[2]
        return f"[`{last}`][refit_shard.{last}]" if last in refit_shard.__all__ else f"`{last}`"

    return _ROLE.sub(link, text)


class Roles(griffe.Extension):
    """Rewrites the docstring of every object that griffe loads."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value)
