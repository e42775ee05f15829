"""Data sets of which only the manifest exists: enough to know what a stream would read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from refit_shard.shards_spec.fields import standard_fields
from refit_shard.shards_spec.geometry import Envelope
from refit_shard.shards_spec.manifest import Manifest, ShardEntry

ROW_BYTES = 100


def make_manifest(folder: Path, name: str, shard_rows: Sequence[int]) -> str:
    """A dataset whose shards have so many rows, of 100 bytes each; returns its path."""
    shards = tuple(
        ShardEntry(
            name=f"{name}-{index:06d}",
            rows=rows,
            tar_bytes=rows * (ROW_BYTES - 10),
            tar_sha256="a",
            arrow_bytes=rows * 10,
            arrow_sha256="b",
        )
        for index, rows in enumerate(shard_rows)
    )
    manifest = Manifest(
        dataset=name,
        plan={"made": name},
        generation=0,
        fields=standard_fields(extrinsics=False, key_bytes=16, imgname_bytes=12),
        envelope=Envelope(),
        box_px=256,
        quality=90,
        restart_interval=1,
        seed=0,
        source_sha256="s",
        source_rows=sum(shard_rows),
        left_out=(),
        rows=sum(shard_rows),
        frames=1,
        quarantined={},
        warned={},
        shards=shards,
    )
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_bytes(manifest.to_json())
    return str(folder / name)


def make_config(folder: Path, ratios: Mapping[str, float], batch_size: int) -> Path:
    """ReFit's YAML of these datasets."""
    path = folder / "config.yaml"
    data = {"LIST": list(ratios), "PARTITION": list(ratios.values())}
    path.write_text(yaml.safe_dump({"DATASET": data, "TRAIN": {"BATCH_SIZE": batch_size}}))
    return path
