"""Names of archives and of their members."""

import posixpath

from refit_shard.shards_spec.storage.paths import below_root, slashed

SUFFIXES = (".tar", ".zip")
COMPRESSED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    *(".7z", ".rar"),
)
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_LONGEST = 4096  # the longest path that Linux takes


def compression(head: bytes) -> str | None:
    """The compression of a whole file, from its first bytes; None if it is not compressed."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def member_name(name: str) -> str | None:
    """A member's name as a path below a root; None if the name leads out of the root.

    ``./`` is dropped, as archivers do when they unpack. Backslashes count as slashes in a name that
    has no slashes.
    """
    return None if "\0" in name or len(name) > _LONGEST else below_root(slashed(name))


def stem(path: str) -> str:
    """The file name of an archive without its ending."""
    return posixpath.splitext(posixpath.basename(path))[0]
