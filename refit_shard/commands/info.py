"""``refit-shard info``: describe shards."""

import argparse
from typing import Any

from refit_shard.commands import Subparsers, add_path
from refit_shard.shards_spec.errors import ShardError

HELP = """\
Describe shards: rows, bytes, format, ranges of box sizes, the share of rows with SMPL parameters,
3D joints, gender and camera, and labels that you added.

  refit-shard info data/shards/bedlam
  refit-shard info bedlam                 the same
  refit-shard info data/shards            all datasets in the folder
"""

COLUMNS = [
    *("dataset", "rows", "frames", "shards", "size", "box px min / median / max"),
    *("SMPL", "3D", "gender", "camera", "quarantined"),
]


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "info",
        help="describe shards",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_path(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def describe(url: str) -> dict[str, Any]:
    """The description of the dataset at a folder or URL, as JSON values."""
    import numpy as np

    from refit_shard.shards_spec.geometry import box_side
    from refit_shard.shards_spec.manifest import FORMAT_VERSION
    from refit_shard.shards_spec.reader import ShardSet

    data_set = ShardSet.open(url)
    manifest = data_set.manifest
    shards = [data_set.shard(index) for index in range(len(manifest.shards))]

    def column(name: str) -> Any:
        return np.concatenate([shard.view(name) for shard in shards])

    with np.errstate(over="ignore", invalid="ignore"):  # a scale may be huge or not finite
        low, median, high = np.percentile(box_side(column("scale")), (0, 50, 100)).tolist()
    return {
        "dataset": manifest.dataset,
        "path": url,
        "format_version": FORMAT_VERSION,
        "rows": manifest.rows,
        "frames": manifest.frames,
        "shards": len(manifest.shards),
        "bytes": sum(entry.tar_bytes + entry.arrow_bytes for entry in manifest.shards),
        "box_px": manifest.box_px,
        "quality": manifest.quality,
        "envelope": {"scale": manifest.envelope.scale, "rotation": manifest.envelope.rotation},
        "extrinsics": manifest.extrinsics,
        "labels": [str(field) for field in manifest.own],
        "box_side_px": {"min": low, "median": median, "max": high},
        "share": {
            "smpl": float(np.mean(column("has_smpl"))),
            "pose_3d": float(np.mean(column("has_pose_3d"))),
            "gender": float(np.mean(column("gender") >= 0)),
            "camera": float(np.mean(column("has_camcalib"))),
        },
        "source_rows": manifest.source_rows,
        "source_sha256": manifest.source_sha256,
        "quarantined": dict(manifest.quarantined),
    }


def run(args: argparse.Namespace) -> int:
    """Describe each dataset at the path."""
    from refit_shard.console import as_json, human_bytes, print_table, say
    from refit_shard.rows import set_urls

    found: list[dict[str, Any]] = []
    errors: list[ShardError] = []
    for url in set_urls(args.path):
        try:
            found.append(describe(url))
        except ShardError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for failure in errors:  # an unfinished dataset does not hide the others
        say(f"refit-shard: {failure}", error=True)
    code = max((failure.exit_code for failure in errors), default=0)
    if args.json:
        as_json(found)
        return code
    rows = []
    for data in found:
        side, share = data["box_side_px"], data["share"]
        rows.append(
            [
                data["dataset"],
                f"{data['rows']}",
                f"{data['frames']}",
                f"{data['shards']}",
                human_bytes(data["bytes"]),
                f"{side['min']:.0f} / {side['median']:.0f} / {side['max']:.0f}",
                *(f"{share[name]:.0%}" for name in ("smpl", "pose_3d", "gender", "camera")),
                f"{sum(data['quarantined'].values())}",
            ]
        )
    print_table(
        args.path,
        COLUMNS,
        rows,
    )
    say(
        f"format {found[0]['format_version']}, "
        + ", ".join(
            f"{data['dataset']}: box {data['box_px']} px at quality {data['quality']}"
            for data in found
        )
    )
    for data in found:
        if data["labels"]:
            say(f"{data['dataset']}: own labels: {', '.join(data['labels'])}")
    return code
