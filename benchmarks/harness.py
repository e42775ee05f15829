"""Shared code of benchmarks: the machine, interleaved repeats, memory from /proc, and results."""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from refit_shard.loaders.measure.machine import cpu_model
from refit_shard.loaders.measure.repeats import interleaved, ratios, spread

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
CACHE = REPOSITORY / "data" / "benchmarks"  # git-ignored

_KIB = 1024


# ------------------------------------------------------------------------------------ machine


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """The machine of a measurement: processor, cores, memory, Python and package versions."""
    installed = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": len(cores()),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": installed,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


# ------------------------------------------------------------------------------------- repeats


def rates_over_first(
    cases: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Samples/s of each case, measured in turns, and its ratio to the first case by round."""
    measured = interleaved(cases, rounds)
    first = next(iter(measured.values()))
    return {
        "samples_per_second": {name: asdict(spread(one)) for name, one in measured.items()},
        "ratios": {name: asdict(ratios(one, first)) for name, one in measured.items()},
    }


# -------------------------------------------------------------------------------------- memory


def peak_memory(process: int | str = "self") -> int:
    """Peak memory of a process since it started this program, bytes, including shared memory.

    (``ru_maxrss`` would also count its parent's memory at the time of the fork.)
    """
    return _status_bytes(process, "VmHWM")


def memory(process: int | str = "self") -> int:
    """Memory of a process without shared memory such as Ray's objects, bytes; 0 if it has ended."""
    return _status_bytes(process, "VmRSS") - _status_bytes(process, "RssShmem")


def memory_together(processes: Sequence[int]) -> int:
    """Memory of several processes together, bytes; memory that they share is counted once.

    Pages that other processes map too, such as libraries, count in part. A process that has ended
    counts 0.
    """
    held = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        held += int(found[1]) * _KIB if found else 0
    return held


def _status_bytes(process: int | str, field: str) -> int:
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * _KIB if found else 0


def descendants(process: int) -> dict[int, str]:
    """Command lines of all descendants of a process, by process id."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    below = {process}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    commands = {}
    for child in below - {process}:
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        commands[child] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return commands


class MemorySampler:
    """A context manager that samples the memory of some processes on a thread.

    ``find`` returns their ids and is called again every ten samples. ``series``: (reading of
    :func:`time.perf_counter`, bytes) by process; ``peaks``: peak bytes by process.
    """

    def __init__(self, find: Callable[[], Sequence[int]], interval: float = 0.2) -> None:
        self.series: dict[int, list[tuple[float, int]]] = {}
        self.peaks: dict[int, int] = {}
        self._find = find
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        processes: Sequence[int] = ()
        count = 0
        while True:
            if count % 10 == 0:
                processes = self._find()
            count += 1
            now = time.perf_counter()
            for process in processes:
                held = memory(process)
                if held:
                    self.series.setdefault(process, []).append((now, held))
                    self.peaks[process] = max(self.peaks.get(process, 0), peak_memory(process))
            if self._stop.wait(self._interval):
                return


# ------------------------------------------------------------------------------------- results


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
