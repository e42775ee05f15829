"""Converts paths and URLs that users give to text, and checks them."""

import os
import posixpath
import re
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from refit_shard.shards_spec.errors import UsageError

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# pathlib removes one of the two slashes: Path("s3://bucket") is "s3:/bucket".
_LOST_SLASH = re.compile(r"(s3|gs|gcs|https?):/(?!/)")


def location(given: AnyPath, what: str = "a path") -> str:
    """A local path, with ``~`` expanded, or a URL, as text.

    A ``file://`` URL becomes a path. Bytes and names that are not UTF-8 are decoded as by
    ``os.fsdecode``. ``what``: the option or argument, for errors.

    Raises:
        UsageError: not a path, empty, an unknown home folder, or a URL that lost a slash.
    """
    try:
        path = os.fsdecode(given)
    except TypeError:
        raise UsageError(f"{what}: must be a path or a URL, got {given!r:.80}") from None
    if not path:
        raise UsageError(f"{what} is empty; '.' is the current folder")
    if "\0" in path:
        raise UsageError(f"{what}: {path!r:.80} contains a zero byte")
    if _LOST_SLASH.match(path):
        raise UsageError(f"{what}: {path!r}: a URL has two slashes; give it as text, not as a Path")
    if path.lower().startswith("file:/"):
        return _path_of(path, what)
    return path if "://" in path else _at_home(path, what)


def local_path(given: AnyPath, what: str = "a path") -> Path:
    """A local path; see :func:`location`.

    Raises:
        UsageError: as :func:`location`, or the text is a URL.
    """
    path = location(given, what)
    if "://" in path:
        raise UsageError(f"{what}: must be on this machine, got {path!r}")
    return Path(path)


def path_bytes(path: str) -> bytes:
    """A local path as bytes for system calls: UTF-8 in every locale, because names in an
    npz are.
    """
    return path.encode("utf-8", "surrogateescape")


def below_root(name: str) -> str | None:
    """A relative name as a path below a root; None if it leads out of the root.

    ``./`` and ``//`` are dropped, and ``a/../`` is resolved.
    """
    path = posixpath.normpath(name)
    return None if path.startswith(("/", "../")) or path in ("..", ".") else path


def slashed(name: str) -> str:
    """The name with backslashes as slashes, if it has no other slashes."""
    return name if "/" in name else name.replace("\\", "/")


def absolute(path_or_url: str) -> str:
    """A path as an absolute path; a URL unchanged.

    Raises:
        UsageError: the current folder was deleted.
    """
    if "://" in path_or_url:
        return path_or_url
    try:
        return os.path.abspath(path_or_url)
    except FileNotFoundError:
        raise UsageError(
            f"{path_or_url}: the current folder was deleted; change to another one"
        ) from None


def _path_of(url: str, what: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{what}: {url}: names another machine; file:///PATH is a local file")
    if parts.query or parts.fragment:
        raise UsageError(f"{what}: {url}: write ? as %3F and # as %23, or give a plain path")
    path = unquote(parts.path, errors="surrogateescape")
    if not path or "\0" in path:
        raise UsageError(f"{what}: {url}: names no path")
    return path


def _at_home(path: str, what: str) -> str:
    expanded = os.path.expanduser(path)
    if path.startswith("~") and expanded == path:
        raise UsageError(
            f"{what}: {path}: the home folder is not known; set HOME, or write ./~ for a file of "
            "that name"
        )
    return expanded
