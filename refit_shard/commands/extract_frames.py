"""``refit-shard extract-frames``: write the frames that an npz names from videos."""

import argparse
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers, add_cluster
from refit_shard.shards_spec.errors import UsageError

if TYPE_CHECKING:
    from refit_shard.converter.videos.driver import VideoSummary
    from refit_shard.converter.videos.plan import VideoPlan, VideoRequest

HELP = """\
Decode the videos of a dataset and write only the frames that its npz names, as JPEGs with the names
under which build looks for them.

  refit-shard extract-frames --dataset mpi-inf-3dhp
  refit-shard extract-frames --dataset h36m --out /ssd/h36m       write to another disk
  refit-shard extract-frames --dataset h36m --npz h36m_valid_protocol1.npz --numbering from-0
  refit-shard extract-frames --npz my.npz --root /data/my --name my    a/b/000001.jpg of a/b.mp4

Videos are looked for below ROOT: S1/Seq1/imageSequence/video_0.avi for mpi-inf-3dhp,
S1/Videos/Directions 1.54138969.mp4 for h36m, <scene>/mp4/seq_000000.mp4 for bedlam (30 frames per
second; its frames are written as .jpg). They may be in archives as downloaded, such as BEDLAM's
<scene>_mp4.tar: in ROOT, in a folder directly below it, or in the folder of the videos.

Frames are numbered in display order. With from-1 a video's first frame is 1, as in SPIN's training
files and in FFmpeg. With from-0 it is 0, as in BEDLAM; this is right for SPIN's validation files of
Human3.6M too, because SPIN's script drops the first frame of each video.

Complete frames that exist are kept, whatever program wrote them, so an interrupted command
continues when you run it again. A video that is missing, damaged or too short is reported with its
rows, the others are decoded, and the exit code is 1. Frames that depend on damaged ones are not
written; the numbers of later frames do not change.
"""
_LISTED = 20


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "extract-frames",
        help="write the frames that an npz names from videos",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("which frames")
    what.add_argument("--dataset", metavar="NAME", help="mpi-inf-3dhp, h36m or bedlam")
    what.add_argument(
        "--npz", metavar="FILE|URL", help="annotations (default: those of data_config.py)"
    )
    what.add_argument(
        "--root", metavar="DIR", help="folder of the videos (default: the ROOT of data_config.py)"
    )
    what.add_argument(
        "--name", metavar="NAME", help="name of your own dataset, instead of --dataset"
    )
    what.add_argument(
        "--data-config", metavar="PATH", help="data_config.py to read (default ./data_config.py)"
    )
    what.add_argument(
        "--numbering",
        choices=("from-1", "from-0"),
        help="number of a video's first frame in the npz (default: from-0 for bedlam, else from-1)",
    )
    how = parser.add_argument_group("how to write them")
    how.add_argument("--out", metavar="DIR", help="write the frames below DIR instead of ROOT")
    how.add_argument(
        "--quality", type=int, default=95, metavar="N", help="JPEG quality (default 95)"
    )
    add_cluster(how, "decode")
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="write existing frames again; after an interruption continue without this option",
    )
    how.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def request_of(args: argparse.Namespace) -> "VideoRequest":
    """The request that the arguments state.

    Raises:
        UsageError: the arguments contradict each other, or the npz or root is not configured.
    """
    from refit_shard.converter.videos.plan import VideoRequest, layout_of
    from refit_shard.data_folder import find_data_config
    from refit_shard.own_sets import npz_of_option, own_set_of_options, root_of_option

    if bool(args.dataset) == bool(args.name):
        raise UsageError(
            "extract-frames: give either --dataset NAME, or --npz FILE --root DIR --name NAME"
        )
    if args.name:
        own = own_set_of_options(args.npz, args.root, args.name)
        dataset, npz, root = own.dataset, own.npz, own.root
    else:
        config = find_data_config(args.data_config)
        dataset = config.find(args.dataset)
        layout_of(dataset)
        npz = npz_of_option(args.npz) if args.npz else config.npz(dataset)
        root = root_of_option(args.root) if args.root else config.root(dataset)
    if "://" in root:
        raise UsageError(
            f"{root}: videos cannot be read from a URL: copy them to a disk and pass --root DIR"
        )
    return VideoRequest(
        dataset=dataset,
        npz=npz,
        root=root,
        out=args.out or root,
        quality=args.quality,
        numbering=args.numbering,
        workers=args.workers,
        address=args.address,
        overwrite=args.overwrite,
    )


def _extract(plan: "VideoPlan", *, quiet: bool) -> "tuple[VideoSummary, float]":
    from refit_shard.console import Meter, say
    from refit_shard.converter.videos.driver import extract

    request = plan.request
    if not quiet:
        say(
            f"{request.dataset.name}: {plan.frames} frames of {len(plan.tasks)} videos, named by "
            f"{request.npz}; a video's first frame has the number {plan.first}",
            error=True,
        )
    with Meter(request.dataset.name, plan.frames, quiet=quiet, unit="frames") as meter:
        return extract(plan, meter.advance), meter.seconds


def _rows(rows: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    return f"{len(rows)} rows ({shown})"


def _report(plan: "VideoPlan", summary: "VideoSummary", seconds: float) -> None:
    from refit_shard.console import human_seconds, say

    name = summary.dataset
    say(
        f"{name}: {summary.written + summary.kept + summary.found} of {summary.frames} frames are "
        f"below {summary.out}: {summary.written} written, {summary.kept} kept, {summary.found} "
        f"from another program; {summary.missing} missing, {summary.broken} broken; "
        f"{summary.decoded} decoded, {human_seconds(seconds)}"
    )
    for fault in summary.faults[:_LISTED]:
        say(f"{'; '.join(fault.details)}; rows without a frame: {_rows(fault.rows)}")
    if len(summary.faults) > _LISTED:
        say(f"and {len(summary.faults) - _LISTED} more videos; --json lists them all")
    if summary.others:
        say(f"{name}: {_rows(summary.others)} name no frame of a video")
    if summary.frames > summary.missing + summary.broken:
        _next(plan, summary)
    if summary.faults:
        say(
            f"refit-shard: {name}: {summary.missing + summary.broken} of {summary.frames} frames "
            f"could not be extracted from {len(summary.faults)} videos; repair or download these "
            "videos again and run the same command again",
            error=True,
        )


def _next(plan: "VideoPlan", summary: "VideoSummary") -> None:
    """Print the command that builds shards from the frames."""
    import shlex

    from refit_shard.console import say

    request = plan.request
    variable = request.dataset.root_variable
    if variable == "--root":
        command = f"refit-shard build --npz {shlex.quote(request.npz)}"
        command += f" --root {shlex.quote(summary.out)} --name {summary.dataset}"
    else:
        command = f"refit-shard build --dataset {summary.dataset}"
        if summary.out != request.root:
            command = f"{variable}={shlex.quote(summary.out)} {command}"
    say(f"next: {command}" + (" --remap '*.png=*.jpg'" if summary.renamed else ""))


def run(args: argparse.Namespace) -> int:
    """Extract the frames; returns 1 if a frame that the npz names could not be extracted."""
    import dataclasses

    from refit_shard.console import as_json, say
    from refit_shard.converter.videos.plan import plan_videos

    plan = plan_videos(request_of(args))
    try:
        summary, seconds = _extract(plan, quiet=args.json)
    except KeyboardInterrupt:
        line = "stopped; complete frames are kept: run the same command again to continue"
        say(f"refit-shard: {line}", error=True)
        raise
    if args.json:
        as_json({**dataclasses.asdict(summary), "seconds": round(seconds, 3)})
    else:
        _report(plan, summary, seconds)
    return 1 if summary.faults else 0
