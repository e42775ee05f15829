"""The identity of a build: everything that decides the bytes of its shards.

The identity states which rows are in which shard, and what decides their labels and pixels. It does
not contain where the npz, the frames and the shards are stored, or how an option was written: of
remaps and absolute names it contains the effect, which is each row's path below the root. So shards
that were moved belong to the same build, and a root with other paths below it is another build.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.source import Annotations
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.shards_spec.columns import columns_of
from refit_shard.shards_spec.fields import Field
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.manifest import FORMAT_VERSION

# Raised whenever the same frame and labels would give other pixels or labels than before.
RECIPE = 1
_TEXTS = 1 << 12  # hashed at a time


def identity(
    dataset: Dataset,
    source: Annotations,
    options: BuildOptions,
    envelope: Envelope,
    fields: Sequence[Field],
) -> dict[str, Any]:
    """Everything that decides the bytes of the shards, as values for JSON; the plan's hash is
    computed from it.
    """
    return {
        "format_version": FORMAT_VERSION,
        "recipe": RECIPE,
        "dataset": dataset.name,
        "use_pose_3d": dataset.use_pose_3d,
        "cropped": dataset.cropped,
        "turned": dataset.turned,
        "columns": columns_of(fields),
        "source_sha256": source.sha256,
        "source_rows": source.total,
        "left_out": [list(run) for run in source.left_out],
        "paths_sha256": _sha256(source.paths),
        "faults_sha256": _sha256(
            f"{row} {fault.reason}" for row, fault in sorted(source.faults.items())
        ),
        "envelope": asdict(envelope),
        "box_px": options.box_px,
        "quality": options.quality,
        "samples_per_shard": options.samples_per_shard,
        "seed": options.seed,
    }


def _sha256(texts: Iterable[str]) -> str:
    """SHA-256 of all texts, each with a zero byte after it."""
    digest = hashlib.sha256()
    rest = iter(texts)
    while some := list(islice(rest, _TEXTS)):
        digest.update(("\0".join(some) + "\0").encode())
    return digest.hexdigest()


# The first difference in this order is reported, because it explains most.
_WORDS = {
    "dataset": "of the dataset {built}, not {wanted}",
    "source_sha256": "from another npz",
    "source_rows": "from another npz",
    "left_out": "from other rows of the npz (--limit)",
    "use_pose_3d": "with use_pose_3d {built}, not {wanted}, which belongs to the dataset",
    "cropped": "with cropped {built}, not {wanted}, which belongs to the dataset",
    "turned": "with frames turned by the rule {built}, not {wanted}",
    "box_px": "with box_px {built}, not {wanted}",
    "quality": "with quality {built}, not {wanted}",
    "samples_per_shard": "with samples_per_shard {built}, not {wanted}",
    "seed": "with seed {built}, not {wanted}",
    "paths_sha256": "from frames at other places below their root (--root or --remap differs)",
    "faults_sha256": "with other rows that cannot be used",
    "subset": "as a subset by export",
    "labels": "with labels that add-labels added",
    "columns": "with other columns (--keep differs)",
    "envelope": "with another envelope (--envelope)",
    "format_version": "in format {built}, not {wanted}",
    "recipe": "by a version that makes other pixels",
}
OTHERWISE = "from another source or with other options"


def first_difference(built: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """A text for the first entry in which the existing shards' plan differs from the wanted
    plan.
    """
    for name, words in _WORDS.items():
        if _normal(built.get(name)) != _normal(wanted.get(name)):
            return words.format(built=built.get(name), wanted=wanted.get(name))
    return OTHERWISE


def _normal(value: Any) -> str:
    """A value as JSON, in which tuples are lists."""
    return json.dumps(value, sort_keys=True)
