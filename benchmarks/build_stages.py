"""Processor time of a build on one core, by stage."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.build_cases import build_here
from benchmarks.trees import Tree
from refit_shard.converter.archives import frames
from refit_shard.converter.build import work
from refit_shard.shards_spec import writer

# Each function's time, without that of other stages that it calls.
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "read": ((frames, "read_frame"),),
    "decode": ((work, "decode_frame"),),
    "turn": ((work, "oriented"),),
    "shrink": ((work, "crop_pixels"),),
    "encode": ((work, "encode"),),
    "records": ((work, "make_record"), (work, "plan_row")),
    "tar, checksums, hashes": ((writer.ShardWriter, "add"), (writer.ShardWriter, "finish")),
}


def stage_shares(tree: Tree, out: Path, samples_per_shard: int) -> dict[str, float]:
    """Shares of a build's processor time by stage, in this process; ``whole`` is µs per sample.

    Time of the threads that read frames is included. Measuring costs some µs per sample.
    """
    spent = dict.fromkeys(STAGES, 0.0)

    def clocked(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[stage] += time.thread_time() - begin

        return run

    with ExitStack() as stack:
        for stage, places in STAGES.items():
            for owner, name in places:
                timed = clocked(stage, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, timed))
        begin = time.process_time()
        rows = build_here(tree, out, samples_per_shard)
        whole = time.process_time() - begin
    shares = {stage: spent[stage] / whole for stage in STAGES}
    return {"whole": 1e6 * whole / rows, **shares, "the rest": 1.0 - sum(shares.values())}
