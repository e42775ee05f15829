"""Extracts the frames of a dataset's videos, one task for each video, and accounts for
every frame.
"""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.build.run import Work, run_tasks, time_limit
from refit_shard.converter.videos.places import locate
from refit_shard.converter.videos.plan import VideoPlan, VideoTask
from refit_shard.converter.videos.records import RECORDS
from refit_shard.converter.videos.work import (
    VideoRecipe,
    VideoResult,
    extract_video,
    record_of,
)
from refit_shard.shards_spec.names import final_name
from refit_shard.shards_spec.storage.folder import Folder, open_folder

OnVideo = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class VideoFault:
    """A video from which frames are missing: the reasons, and the npz's rows without a frame."""

    video: str
    details: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """The result of a run. Every wanted frame is counted once, in ``written``, ``kept`` (written by
    an earlier run), ``found`` (an existing file that extract-frames did not write), ``missing``
    (not in the video) or ``broken`` (damaged in the video).

    ``decoded``: frames that were decoded for that. ``others``: rows whose name is not that of a
    video's frame. ``renamed``: True if frames end in .jpg where the npz says .png.
    """

    dataset: str
    out: str
    rows: int
    videos: int
    frames: int
    written: int
    kept: int
    found: int
    missing: int
    broken: int
    decoded: int
    others: tuple[int, ...]
    renamed: bool
    faults: tuple[VideoFault, ...]


def extract(plan: VideoPlan, on_video: OnVideo) -> VideoSummary:
    """Write the frames that do not exist yet. If stopped at any moment, the same call continues.

    ``on_video``: called after each video with the number of its wanted frames.

    Raises:
        UsageError: existing frames were made with other options, or another run is writing there.
        SourceError: an archive that may contain a video is damaged.
        StorageError: a frame could not be written, or an archive could not be listed.
    """
    request = plan.request
    out = open_folder(request.out, "--out")
    records = out.child(RECORDS)
    records.create()
    located = locate(plan.tasks, request.root, records.child(LISTS_FOLDER), keep=True)
    recipe = VideoRecipe(
        root=request.root,
        out=request.out,
        quality=request.quality,
        first=plan.first,
        rate=plan.rate,
        compressed=located.compressed,
    )
    work = Work(
        do=extract_video,
        shared=recipe,
        seconds=lambda task: time_limit(task.frames[-1][1]),
        deaths="FFmpeg crashed on it, it was killed, out of memory, or took over the time limit",
    )
    results: dict[int, VideoResult | BaseException] = {}

    def on_result(index: int, result: VideoResult | BaseException) -> None:
        results[index] = result
        on_video(len(plan.tasks[index].frames))

    with build_lock(records, "another extract-frames is writing there; wait for it"):
        _clear(plan, out)
        for task in plan.tasks if request.overwrite else ():
            record_of(recipe, task).forget(path for path, _ in task.frames)
        run_tasks(
            work,
            iter(located.tasks),
            on_result,
            workers=request.workers,
            address=request.address,
        )
    return _summary(plan, [_settled(plan.tasks[i], results[i]) for i in range(len(plan.tasks))])


def _clear(plan: VideoPlan, out: Folder) -> None:
    """Delete temporary files of a run that was killed."""
    folders = {posixpath.dirname(path) for task in plan.tasks for path, _ in task.frames}
    for path in sorted(folders):
        folder = out.child(path)
        for name in folder.names():
            if final_name(name) != name:
                folder.remove(name)


def _settled(task: VideoTask, result: VideoResult | BaseException) -> VideoResult:
    """The result of a video; if its task failed as a whole, one with all frames missing."""
    if isinstance(result, VideoResult):
        return result
    said = " ".join(str(result).split()) or type(result).__name__
    return VideoResult(
        index=task.index,
        written=0,
        kept=0,
        found=0,
        missing=tuple(path for path, _ in task.frames),
        broken=(),
        decoded=0,
        faults=(f"{task.name}: {said}",),
    )


def _summary(plan: VideoPlan, results: list[VideoResult]) -> VideoSummary:
    faults = []
    for task, result in zip(plan.tasks, results, strict=True):
        lost = [*result.missing, *result.broken]
        if lost:
            rows = sorted(row for path in lost for row in plan.rows[path])
            faults.append(VideoFault(video=task.name, details=result.faults, rows=tuple(rows)))
    return VideoSummary(
        dataset=plan.request.dataset.name,
        out=plan.request.out,
        rows=sum(map(len, plan.rows.values())) + len(plan.others),
        videos=len(plan.tasks),
        frames=plan.frames,
        written=sum(one.written for one in results),
        kept=sum(one.kept for one in results),
        found=sum(one.found for one in results),
        missing=sum(len(one.missing) for one in results),
        broken=sum(len(one.broken) for one in results),
        decoded=sum(one.decoded for one in results),
        others=plan.others,
        renamed=plan.renamed,
        faults=tuple(faults),
    )
