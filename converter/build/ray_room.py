"""Checks what Ray needs before Ray starts: a short temporary path, shared memory, cores.

Ray itself reports problems late, with a traceback or after half a minute.
"""

import logging
import os
import resource
import tempfile
from typing import Any

from refit_shard.shards_spec.errors import RefitShardError
from refit_shard.shards_spec.process import available_cores

logger = logging.getLogger(__name__)

_SHARED_MEMORY = "/dev/shm"
# A socket's path has at most 107 bytes. This is Ray's longest one, below its temporary folder.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
_LONGEST = 107 - len(_SOCKET)
_WITHOUT = "or build without Ray: --workers 0"


def local_options(workers: int | None) -> dict[str, Any]:
    """Arguments of ``ray.init`` for ``workers`` processes on this machine, None for one a core.

    Raises:
        RefitShardError: Ray can use none of the temporary folders.
    """
    options: dict[str, Any] = {
        "address": "local",
        "num_cpus": available_cores() if workers is None else workers,
        "include_dashboard": False,
    }
    folder, is_usual = _temporary_folder()
    if not is_usual:
        options["_temp_dir"] = os.path.join(folder, "ray")
    home = os.path.expanduser("~")
    if not _is_writable(home):  # Ray creates a folder in it
        os.environ["HOME"] = folder
        logger.warning(
            "the home folder %s cannot be written; Ray's settings go to %s", home, folder
        )
    if not _is_writable(_SHARED_MEMORY):
        logger.warning("%s cannot be written; Ray shares memory in %s", _SHARED_MEMORY, folder)
        options["_plasma_directory"] = folder
    return options


def cannot_start(error: Exception) -> RefitShardError:
    """The error line for a Ray that did not start on this machine."""
    said = " ".join(str(error).split()).rstrip(".") + "."
    if isinstance(error, UnicodeError):
        said = "the command line holds a name that is not UTF-8, which Ray cannot take."
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        said += f" Its processes may use {limit / 1e9:.1f} GB of addresses each (ulimit -v)."
    return RefitShardError(f"Ray does not start here: {said} Repair that, {_WITHOUT}")


def _temporary_folder() -> tuple[str, bool]:
    """A folder for Ray's files, and whether it is Ray's own default."""
    named = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    usual = os.environ[named] if named else "/tmp"
    fault = _fault(usual)
    if fault is None:
        return usual, True
    for folder in ("/tmp", "/var/tmp", _SHARED_MEMORY):
        if _fault(folder) is None:
            logger.warning(
                "%s %s %s; Ray's files go to %s/ray", named or "the folder", usual, fault, folder
            )
            return folder, False
    raise RefitShardError(
        f"{named or 'the folder'} {usual} {fault}, which Ray needs for its files: set TMPDIR to a "
        f"folder of at most {_LONGEST} bytes that can be written, {_WITHOUT}"
    )


def _fault(folder: str) -> str | None:
    """Why Ray cannot use a temporary folder, or None."""
    if len(os.fsencode(folder)) > _LONGEST:
        return f"is too long for Ray's sockets ({_LONGEST} bytes at most)"
    if not os.path.isdir(folder):
        return "is not a folder"
    return None if _is_writable(folder) else "cannot be written"


def _is_writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
