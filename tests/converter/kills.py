"""Kills of builds at chosen steps, and in which phase of the build each of them fell.

A build runs in a process that is forked from one which has imported everything, so that a kill
takes a tenth of a second. It counts its steps (each open, rename and removal of a file, and each
frame that it decodes), stops at the one it was told, and is killed with SIGKILL there.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from refit_shard.converter.build import work
from refit_shard.shards_spec.manifest import parse_manifest
from refit_shard.shards_spec.names import LOCK, MANIFEST, OVERWRITE, is_attempt
from refit_shard.shards_spec.storage.folder import Folder
from tests.small import refit

_PATIENCE = 60.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.converter.kills", "refit_shard.converter.build.estimate"])

# What is seen of a build that builds shards in one process, in the order of a build.
PHASES = (
    "planning",
    "starting",
    "writing the tar",
    "between tar and index",
    "between index and names",
    "between the two names",
    "between shards",
    "quarantine",
    "manifest",
    "cleaning up",
    "ending",
)


@dataclass(frozen=True)
class Seen:
    """What a folder holds at one moment: the bytes of its manifest, and all names."""

    manifest: bytes | None
    names: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> "Seen":
        """Look at it."""
        names = frozenset(path.name for path in folder.glob("*"))
        manifest = (folder / MANIFEST).read_bytes() if MANIFEST in names else None
        return cls(manifest, names)


def _is_ended(tar: Path) -> bool:
    """Whether a tar has its end mark."""
    data = tar.read_bytes()
    return len(data) >= 1024 and not any(data[-1024:])


def _of_attempts(folder: Path, dataset: str, now: Seen) -> str | None:
    """The phase that unpublished files tell, if there are any."""
    attempts = [name for name in now.names if is_attempt(dataset, name)]
    if any(MANIFEST in name for name in attempts):
        return "manifest"
    if any("quarantine" in name for name in attempts):
        return "quarantine"
    tars = [name for name in attempts if ".tar." in name]
    indexes = [name for name in attempts if ".arrow." in name]
    if tars and indexes:
        return "between index and names"
    if tars:
        ended = all(_is_ended(folder / name) for name in tars)
        return "between tar and index" if ended else "writing the tar"
    return "between the two names" if indexes else None


def phase_of(folder: Path, dataset: str, before: Seen) -> str:
    """The phase in which a build stands still, from its folder then and before it began."""
    now = Seen.of(folder)
    if LOCK not in now.names:
        return "planning"
    if OVERWRITE in before.names and OVERWRITE not in now.names:
        return "ending"  # the note goes last
    found = _of_attempts(folder, dataset, now)
    if found is None and now.manifest is not None and now.manifest != before.manifest:
        shards = parse_manifest(now.manifest, str(folder)).shards
        named = {entry.name for entry in shards}
        others = {name.rpartition(".")[0] for name in now.names if name.endswith(".tar")} - named
        found = "cleaning up" if others else "ending"
    if found is None:
        new = {name for name in now.names - before.names if name.startswith(dataset)}
        if any(name.startswith("quarantine") for name in now.names - before.names):
            found = "manifest"
        else:
            found = "between shards" if new else "starting"
    return f"overwrite: {found}" if OVERWRITE in now.names else found


def _stopping(connection: Connection, step: int) -> Callable[[], None]:
    """To be called at each step: stops for ever at the one that was told."""
    left = step

    def one_step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            connection.send("stopped")
            while True:
                signal.pause()

    return one_step


def _run(connection: Connection, step: int, folder: str, args: tuple[str, ...]) -> None:
    """Run a command in this process, which was forked for it, up to a step."""
    one_step = _stopping(connection, step)
    decode, remove = work.decode_frame, Folder.remove  # type: ignore[attr-defined]

    def stepping(data: bytes) -> Any:
        one_step()
        return decode(data)

    def removing(self: Folder, name: str) -> None:
        remove(self, name)
        one_step()

    def hear(event: str, about: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove") and str(about[0]).startswith(folder):
            one_step()

    work.decode_frame = stepping  # type: ignore[attr-defined]
    Folder.remove = removing  # type: ignore[method-assign]
    sys.addaudithook(hear)
    result = refit(*args)
    connection.send(f"{result.code} {result.err}")


@dataclass(frozen=True)
class End:
    """How a build ended. ``phase``: in which it was killed; None if it was over before."""

    phase: str | None
    said: str


def kill_at(step: int, folder: Path, dataset: str, args: list[object]) -> End:
    """Run a build and kill it at a step, or let it end."""
    before = Seen.of(folder)
    here, there = _CONTEXT.Pipe()
    words = tuple(map(str, args))
    process = _CONTEXT.Process(target=_run, args=(there, step, str(folder), words))
    process.start()
    there.close()
    try:
        assert here.poll(_PATIENCE)
        said = str(here.recv())
        if said != "stopped":
            return End(None, said)
        return End(phase_of(folder, dataset, before), said)
    finally:
        process.kill()
        process.join()
        here.close()


def kill_process(pid: int, folder: Path, dataset: str, before: Seen) -> str:
    """Stop a process, look in which phase its build is, and kill it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.01)  # so that it has stopped
        return phase_of(folder, dataset, before)
    finally:
        os.kill(pid, signal.SIGKILL)
