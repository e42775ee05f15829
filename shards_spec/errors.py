"""Defines all errors that this project raises on purpose, in one tree.

A message states what broke, what was expected, what was found and what to do. The command line
prints it as one line and ends with ``exit_code``.
"""

import errno
import re
import textwrap
from typing import ClassVar

_HINTS = {
    errno.ENOSPC: "no space left; free some and run the same command again",
    errno.EDQUOT: "disk quota exceeded; free some and run the same command again",
    errno.EFBIG: "the file would exceed a size limit (ulimit -f)",
    errno.EROFS: "the file system is read-only; choose another {place}",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "there is something of this name that is not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ENOMEM: "no memory left, or a limit on it was reached (ulimit -v)",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}
# Error codes of S3 and of Google's store in pyarrow's messages.
_STORE = re.compile(r"AWS Error (\w+)|google::cloud::Status\((\w+)")
_REFUSALS = {
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "PERMISSION_DENIED", "UNAUTHENTICATED"),
}
# Codes of S3 and of Google's store if there was no answer at all.
_SILENCE = {"NETWORK_CONNECTION", "UNAVAILABLE"}
_LONGEST = 300


class RefitShardError(Exception):
    """Base class of all errors of this project. Exit code 1: something was found wrong.

    What to do: catch it around a training loop to end with a clean message of one line.
    """

    exit_code: ClassVar[int] = 1


class UsageError(RefitShardError):
    """The call, the options or the configuration are wrong. Exit code 2.

    What to do: correct the option or key that the message names; it states what it must be and what
    it was.
    """

    exit_code = 2


class SourceError(RefitShardError):
    """A dataset's annotations cannot be used: a key is missing, or a shape or dtype is wrong.

    What to do: run ``refit-shard doctor``, which checks the same file; make the npz again with
    ``refit-shard import-annotations``, or download it again.
    """


class FrameError(RefitShardError):
    """A frame or row cannot be made into a sample; a build puts it into quarantine and continues.

    What to do: in a build, see ``quarantine.feather``, repair or download the frame, and run the
    same command again. In a loader a stored crop is damaged: run ``refit-shard verify``, build the
    shard again, or pass ``on_error="replace"``.

    Args:
        reason: The short name by which quarantined rows are counted, such as ``"missing"``.
        detail: What was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both arguments, so that the error can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class ShardError(RefitShardError):
    """A shard, an index or a manifest is missing, damaged, or does not match the others.

    What to do: run ``refit-shard verify`` on the dataset, then the build's command, which builds
    damaged shards again and keeps the others. If the shards are a copy, copy them again.
    """


class FormatError(ShardError):
    """The shards have another format version or other columns than this program reads. Exit code 2.

    What to do: build them again with ``--overwrite``; the old ones stay until the new are complete.
    If the shards are newer than the program, upgrade refit-shard.
    """

    exit_code = 2


class StorageError(RefitShardError):
    """Reading or writing failed for a reason outside the data: full disk, no permission.

    What to do: remove the cause that the message names (space, permission, network) and run the
    same command again; finished shards are kept.
    """


class PassingError(StorageError):
    """A file could not be read for a reason that says nothing about the file, such as an I/O error.

    The read was tried three times. What to do: run the same command again; no row was quarantined.
    """


class TransformError(RefitShardError):
    """The user's function for a loader's ``transform=`` failed or did not return a batch.

    What to do: correct the function; the message names the transform and its error, whose traceback
    is this error's cause.
    """


class BuildError(RefitShardError):
    """A build ended without publishing its manifest.

    What to do: the message names what failed; remove the cause and run the same command again. If
    too many rows cannot be used: correct the data, or increase ``--max-bad``.
    """


class SilenceError(StorageError):
    """An object store does not answer: it is down or unreachable, or its address is wrong.

    What to do: check the network and, if it is set, ``AWS_ENDPOINT_URL``; run the same command
    again.
    """


def explain(error: OSError, where: str, place: str = "place") -> StorageError:
    """The one-line error for a failure of the operating system or of an object store.

    ``where``: the file or folder. ``place``: the option or argument that chose where to write, for
    the remedy.
    """
    text = _HINTS.get(error.errno or 0, "").format(place=place)
    if "No usable temporary directory" in str(error):  # Python's tempfile raises ENOENT
        text = "there is no writable folder for temporary files: set TMPDIR to one"
    if text:
        return StorageError(f"{where}: {text}")
    found = _STORE.search(str(error))
    if found is not None and (found[1] or found[2]) in _SILENCE:
        return SilenceError(
            f"{where}: the store does not answer, also when asked again ({_short(str(error))}); "
            "check the network and, if set, AWS_ENDPOINT_URL, then run the same command again"
        )
    return StorageError(f"{where}: {_of_store(str(error)) or error.strerror or error}")


def _of_store(text: str) -> str | None:
    """A text for an object store's error; None if the text is not one of a store's errors."""
    found = _STORE.search(text)
    if found is None:
        return None
    code = found[1] or found[2]
    if code in _REFUSALS:
        return f"the store refuses these credentials ({code})"
    if code == "NO_SUCH_BUCKET":
        return "no such bucket"
    return f"the store failed, also when asked again ({_short(text)}); run the same command again"


def _short(text: str) -> str:
    return textwrap.shorten(text, _LONGEST, placeholder=" …")
