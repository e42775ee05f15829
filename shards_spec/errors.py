"""The one error tree: every error that a user can meet is one of these.

The message says what broke, what was expected, what came and what to do; the command line
prints it as one line and ends with ``exit_code``.
"""

from typing import ClassVar


class RefitShardError(Exception):
    """Base of all errors of this project. Exit code 1: something was found wrong."""

    exit_code: ClassVar[int] = 1


class UsageError(RefitShardError):
    """The call, the options or the configuration are wrong. Exit code 2."""

    exit_code = 2


class SourceError(RefitShardError):
    """A dataset's annotations cannot be used: a key, a shape or a type is not what it must be."""


class FrameError(RefitShardError):
    """One frame or one row cannot become a sample; it goes to quarantine.

    ``reason`` is the short word that the quarantine is counted by, the message is the detail.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ShardError(RefitShardError):
    """A shard, an index or a manifest is missing, damaged, or does not match its record."""


class FormatError(ShardError):
    """Shards of another format version or schema than this program reads. Exit code 2."""

    exit_code = 2


class StorageError(RefitShardError):
    """Reading or writing failed for a reason outside the data: full disk, no permission."""


class BuildError(RefitShardError):
    """A build ended without publishing its manifest."""
