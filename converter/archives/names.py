"""Names of archives, and of the files in them."""

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
_LONGEST = 4096  # as long as a path may be


def compression(head: bytes) -> str | None:
    """How a file that begins so is compressed as a whole, or None."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def member_name(name: str) -> str | None:
    """A member's name as a path below a root; None for one that leads out of it.

    As an archiver does when it unpacks, ``./`` is dropped; backslashes are slashes in a name that
    has no others.
    """
    return None if "\0" in name or len(name) > _LONGEST else below_root(slashed(name))


def stem(path: str) -> str:
    """The name of an archive's file without its ending."""
    return posixpath.splitext(posixpath.basename(path))[0]
