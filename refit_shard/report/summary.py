"""The numbers of a report as JSON, for scripts."""

import math
from typing import Any

from refit_shard.report.facts import Facts, Mix, SetFacts
from refit_shard.shards_spec.joints import JOINTS

_SHARES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def _number(value: float) -> float | None:
    """A number for JSON: None for NaN."""
    return None if math.isnan(value) else value


def _of_set(one: SetFacts) -> dict[str, Any]:
    found = one.statistics
    low, high = found.box_range
    middle = dict(zip(_SHARES, found.box_sides(list(_SHARES.values())).tolist(), strict=True))
    rows = max(1, found.rows)
    return {
        "name": one.name,
        "path": one.data_set.folder.url,
        "rows": found.rows,
        "frames": found.frames,
        "jpeg_bytes": found.jpeg_bytes,
        "box_side_px": {
            name: _number(value) for name, value in {"min": low, **middle, "max": high}.items()
        },
        "share": {
            "smpl": found.smpl / rows,
            "pose_3d": found.pose_3d / rows,
            "camera": found.camera / rows,
            "gender": sum(found.gender[:2]) / rows,
            "joints_outside_frame": found.outside / max(1, found.joints),
        },
        "visible": dict(zip(JOINTS, (found.visible / rows).tolist(), strict=True)),
        "quarantined": dict(one.data_set.manifest.quarantined),
    }


def summary(facts: Facts, mix: Mix | None) -> dict[str, Any]:
    """The statistics, duplicates and mix of a report as JSON values."""
    return {
        "rows": facts.rows,
        "sets": [_of_set(one) for one in facts.sets],
        "common": [
            {"first": one.first, "second": one.second, "kind": one.kind, "count": one.count}
            for one in facts.common
        ],
        "mix": None
        if mix is None
        else {
            "samples_per_epoch": mix.samples,
            "sources": [
                {
                    "name": one.name,
                    "ratio": one.ratio,
                    "rows": one.rows,
                    "samples": one.drawn,
                    "repeats": one.repeats,
                }
                for one in mix.shares
            ],
        },
    }
