"""What others take of the machine, from a file as Linux states it."""

import os
from pathlib import Path

import pytest

from refit_shard.loaders.measure.machine import LoadMeter, MachineLoad, cpu_model

# user nice system idle iowait irq softirq steal guest guest_nice, in ticks.
BEFORE = "cpu  1000 0 500 9000 100 0 10 50 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"


def load(others: float, stolen: float, *, cores: int = 8, usable: int = 4) -> MachineLoad:
    return MachineLoad(others=others, stolen=stolen, cores=cores, usable=usable, before=0.0)


@pytest.mark.parametrize(
    ("seen", "busy"),
    [
        (load(0.0, 0.0), False),
        (load(4.3, 0.0), False),  # beside the four cores that may be used
        (load(4.5, 0.0), True),
        (load(4.0, 0.5), True),
        (load(0.0, 0.3, cores=2, usable=2), True),
        (load(0.1, 0.05, cores=2, usable=2), False),
    ],
)
def test_others_make_a_machine_busy_where_they_take_usable_cores(
    seen: MachineLoad, busy: bool
) -> None:
    assert seen.is_busy is busy


def test_what_others_did_is_what_was_done_less_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds, in which all programs worked for 3 s, this one for 1 s; 0.5 s were stolen."""
    clock = {"monotonic": 10.0, "process_time": 5.0}
    monkeypatch.setattr("time.monotonic", lambda: clock["monotonic"])
    monkeypatch.setattr("time.process_time", lambda: clock["process_time"])
    stat = tmp_path / "stat"
    stat.write_text(BEFORE)
    meter = LoadMeter(stat)
    clock.update({"monotonic": 12.0, "process_time": 6.0})
    tick = os.sysconf("SC_CLK_TCK")
    busy = [1000 + 2 * tick, tick // 2, 500 + tick // 4, 9500, 900, tick // 8, 10 + tick // 8]
    stat.write_text(f"cpu  {' '.join(map(str, busy))} {50 + tick // 2} 7 7\n")
    seen = meter.read()
    assert seen.others == pytest.approx(1.0, abs=0.02)
    assert seen.stolen == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("text", [None, "", "cpu  1 2 3\n", "cpu a b c d e f g h\n"])
def test_where_linux_states_nothing_others_do_nothing(tmp_path: Path, text: str | None) -> None:
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    seen = LoadMeter(stat).read()
    assert (seen.others, seen.stolen) == (0.0, 0.0)
    assert 1 <= seen.usable <= seen.cores


def test_the_processor_has_a_name() -> None:
    assert cpu_model().strip()
