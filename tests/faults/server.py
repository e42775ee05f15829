"""Runs refit-shard and its like, each in a fork of one process that has all modules loaded.

A line of JSON on stdin is an order, a line on stdout what came of it. The process has
``library.c`` preloaded, which only the forks steer.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
from typing import Any

# What the commands import when they run.
MODULES = (
    *(
        "refit_shard.converter.build.driver",
        "refit_shard.converter.subset.work",
        *("refit_shard.console", "refit_shard.shards_spec.verify"),
    ),
    "tests.faults.work",
)


def _child(order: dict[str, Any], log: int, said: int) -> None:
    """Run the command, and never return."""
    library = ctypes.CDLL(None)
    for stream in (1, 2):
        os.dup2(said, stream)
    code = 70  # what no command ends with
    try:
        signal.alarm(order["seconds"])
        library.faults_watch(order["folder"].encode(), log if order["traced"] else -1)
        if order["fault"] is not None:
            call, first, times, number = order["fault"]
            library.faults_plant(call.encode(), first, times, number)
        module, _, function = order["entry"].partition(":")
        code = getattr(importlib.import_module(module), function)(order["args"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        failed = library.faults_count()
        library.faults_watch(b"", -1)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(log, b"= %d\n" % failed)
        os._exit(code)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    """``code``: the exit code, negative for a signal. ``said``: on stdout and stderr. ``calls``:
    those logged. ``failed``: how many were made to fail, -1 if the process did not end by itself.
    """
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            _child(order, log.fileno(), said.fileno())
        _, status = os.waitpid(pid, 0)
        found = []
        for file in (log, said):
            file.seek(0)
            found.append(file.read().decode(errors="replace"))
    *calls, last = found[0].splitlines() or [""]
    failed = int(last[2:]) if last.startswith("= ") else -1
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "said": found[1], "calls": calls, "failed": failed}


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    importlib.import_module("refit_shard.converter.reading").PAUSES = (0.0, 0.0)  # type: ignore[attr-defined]
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
