"""The one error tree: every error that a user can meet is one of these.

The message says what broke, what was expected, what came and what to do; the command line
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
    errno.EEXIST: "something else than a folder is in its place",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ENAMETOOLONG: "the name is longer than the file system takes",
    errno.ENOMEM: "no memory left, or a limit on it was reached (ulimit -v)",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}
# How pyarrow words what S3 and Google's store answered.
_STORE = re.compile(r"AWS Error (\w+)|google::cloud::Status\((\w+)")
_REFUSALS = {
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "PERMISSION_DENIED", "UNAUTHENTICATED"),
}
# No answer at all, of S3's and of Google's store.
_SILENCE = {"NETWORK_CONNECTION", "UNAVAILABLE"}
_LONGEST = 300


class RefitShardError(Exception):
    """Base of all errors of this project. Exit code 1: something was found wrong.

    What to do: catch it around a loop to end cleanly whatever went wrong; its message is one line.
    """

    exit_code: ClassVar[int] = 1


class UsageError(RefitShardError):
    """The call, the options or the configuration are wrong. Exit code 2.

    What to do: the message names the option or key, what it must be and what it was; correct it.
    """

    exit_code = 2


class SourceError(RefitShardError):
    """A dataset's annotations cannot be used: a key, a shape or a type is not what it must be.

    What to do: run ``refit-shard doctor``, which looks at the same file; make the npz again with
    ``refit-shard import-annotations``, or download it again.
    """


class FrameError(RefitShardError):
    """One frame or one row cannot become a sample; a build puts it into quarantine and goes on.

    What to do: in a build, look at ``quarantine.feather``, mend or download the frame, and run the
    same command again. In a loader a stored crop is damaged: run ``refit-shard verify``, build the
    shard again, or pass ``on_error="replace"``.

    Args:
        reason: The short word by which the quarantine is counted, such as ``"missing"``.
        detail: What was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that it can be pickled
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class ShardError(RefitShardError):
    """A shard, an index or a manifest is missing, damaged, or does not match its record.

    What to do: run ``refit-shard verify`` on the dataset; the build's command makes anew what is
    damaged and keeps the rest. Shards that were copied are copied again.
    """


class FormatError(ShardError):
    """Shards of another format version or schema than this program reads. Exit code 2.

    What to do: build them again with ``--overwrite``; the old ones stay until the new are complete.
    If the shards are newer than the program, upgrade refit-shard.
    """

    exit_code = 2


class StorageError(RefitShardError):
    """Reading or writing failed for a reason outside the data: full disk, no permission.

    What to do: mend what the message names (space, permission, network) and run the same command
    again; what is finished is kept.
    """


class PassingError(StorageError):
    """A frame could not be read for a reason that says nothing of the frame, as an I/O error.

    It was tried again twice. What to do: run the same command again; no row was quarantined.
    """


class TransformError(RefitShardError):
    """A loader's ``transform=``, a function of the user's own, failed or returned no batch.

    What to do: correct the function; the message names the transform and its error, whose traceback
    is this error's cause.
    """


class BuildError(RefitShardError):
    """A build ended without publishing its manifest.

    What to do: the lines before it name the shards that failed and why; mend that and run the same
    command again. Where too many rows cannot be used: mend the data, or raise ``--max-bad``.
    """


class SilenceError(StorageError):
    """An object store gave no answer: it is down, far away, or not where it is looked for.

    What to do: see whether the network is up and ``AWS_ENDPOINT_URL`` right where it is set; run
    the same command again.
    """


def explain(error: OSError, where: str, place: str = "place") -> StorageError:
    """The one line for a failure of the operating system or of an object store.

    ``place``: the option or argument that chose where to write, for the remedy.
    """
    text = _HINTS.get(error.errno or 0, "").format(place=place)
    if "No usable temporary directory" in str(error):  # Python's tempfile says ENOENT
        text = "no folder for temporary files can be written: set TMPDIR to one"
    if text:
        return StorageError(f"{where}: {text}")
    found = _STORE.search(str(error))
    if found is not None and (found[1] or found[2]) in _SILENCE:
        return SilenceError(
            f"{where}: the store does not answer, also when asked again ({_short(str(error))}); is "
            "the network up, and AWS_ENDPOINT_URL right where it is set? Run the same command again"
        )
    return StorageError(f"{where}: {_of_store(str(error)) or error.strerror or error}")


def _of_store(text: str) -> str | None:
    """What an object store's error means, or None where it is none of a store."""
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
