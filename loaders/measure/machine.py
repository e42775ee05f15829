"""The machine of a benchmark: its processor, and its load by other programs."""

import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from refit_shard.shards_spec.process import available_cores

STAT = Path("/proc/stat")
# If others use more than this share of the cores that this process may use, figures are unreliable.
_TOLERATED = 0.1


def cpu_model() -> str:
    """The processor's name, with its family and model if Linux states them."""
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    fields = {
        key: value.strip() for key, value in re.findall(r"^([\w ]+?)\s*:(.*)$", text, re.MULTILINE)
    }
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "model" in fields and "cpu family" in fields:
        return f"{name} (family {fields['cpu family']}, model {fields['model']})"
    return name


@dataclass(frozen=True, kw_only=True)
class MachineLoad:
    """The average load of the machine during a measurement, without the measurement; in cores.

    ``others``: load by other programs. ``stolen``: load by other virtual machines of the host. Both
    are 0 if Linux does not state them. ``cores``: cores of the machine. ``usable``: number
    of cores that this process may use. ``before``: load average of the minute before.
    """

    others: float
    stolen: float
    cores: int
    usable: int
    before: float

    @property
    def is_busy(self) -> bool:
        """True if others used more than a tenth of the cores that this process may use."""
        left = self.cores - self.others - self.stolen
        return left < (1 - _TOLERATED) * self.usable


class LoadMeter:
    """Measures the load of the machine from now on. ``stat``: Linux's file of CPU times."""

    def __init__(self, stat: Path = STAT) -> None:
        self._stat = stat
        self._before = os.getloadavg()[0]
        self._begin = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        """Seconds so far: elapsed, CPU time of this process, of all programs, and stolen."""
        own, (busy, stolen) = time.process_time(), _processor_seconds(self._stat)
        return time.monotonic(), own, busy, stolen

    def read(self) -> MachineLoad:
        """The load from the beginning until now."""
        pairs = zip(self._begin, self._now(), strict=True)
        elapsed, own, busy, stolen = (now - begin for begin, now in pairs)
        elapsed = max(elapsed, 1e-9)
        return MachineLoad(
            others=max(0.0, busy - own) / elapsed,
            stolen=max(0.0, stolen) / elapsed,
            cores=os.cpu_count() or 1,
            usable=available_cores(),
            before=self._before,
        )


def _processor_seconds(stat: Path) -> tuple[float, float]:
    """Busy and stolen seconds of all cores together; 0 if they are not stated."""
    try:
        _name, *columns = stat.read_text(encoding="ascii").partition("\n")[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, columns[:8])
    except (OSError, ValueError):
        return 0.0, 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, stolen / ticks
