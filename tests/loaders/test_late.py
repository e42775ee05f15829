"""Storage that answers late: the batches are the same, and many reads wait at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.late_storage import READS, late_library
from tests.loaders.streams import all_items, stream
from tests.small import PROJECT

RUN = """
import ctypes, json, sys
from pathlib import Path
from tests.loaders.streams import all_items, stream

most = ctypes.CDLL(None).late_most
how = {"batch_size": 48, "epoch_samples": 192, "num_workers": int(sys.argv[2])}
assert most() == 0
found = all_items(stream(Path(sys.argv[1]), **how))
print(json.dumps([found, most()]))
"""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_late_reads_are_many_at_a_time(shards: Path, tmp_path: Path, num_workers: int) -> None:
    """30 ms each, 48 to a batch: 32 at a time, which a busy machine need not quite reach."""
    late = {"LD_PRELOAD": str(late_library(tmp_path, READS)), "LATE_MICROSECONDS": "30000"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(shards), str(num_workers)],
        cwd=PROJECT,
        env={**os.environ, **late},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found, most = json.loads(done.stdout)
    assert found == all_items(stream(shards, batch_size=48, epoch_samples=192))
    assert most >= 8
