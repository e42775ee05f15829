"""Extracts the frames of one video, in this process or in a Ray worker."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2

from refit_shard.converter.frames.encode import encode_bgr
from refit_shard.converter.videos.decode import Video, open_video
from refit_shard.converter.videos.places import Place, find_video
from refit_shard.converter.videos.plan import VideoTask
from refit_shard.converter.videos.records import Heading, Record
from refit_shard.shards_spec.errors import SourceError
from refit_shard.shards_spec.process import settle_process
from refit_shard.shards_spec.storage.folder import open_folder


@dataclass(frozen=True, kw_only=True)
class VideoRecipe:
    """The options that all videos of one run share; see VideoRequest, VideoPlan and Located."""

    root: str
    out: str
    quality: int
    first: int
    rate: int | None
    compressed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """The result of one video.

    ``written``, ``kept``, ``found``: numbers of frames that were written now, written by an earlier
    run, and that existed from elsewhere. ``missing``, ``broken``: paths of frames that the video
    does not contain, or that are damaged in it. ``decoded``: number of decoded frames. ``faults``:
    texts that say what is wrong.
    """

    index: int
    written: int
    kept: int
    found: int
    missing: tuple[str, ...]
    broken: tuple[str, ...]
    decoded: int
    faults: tuple[str, ...]


def extract_video(recipe: VideoRecipe, task: VideoTask) -> VideoResult:
    """Write the frames of a video that do not exist yet.

    Raises:
        UsageError: existing frames were made with other options.
        StorageError: a frame could not be written, or the video's storage fails.
    """
    settle_process()
    cv2.setNumThreads(1)
    video = find_video(recipe.root, task)
    record = record_of(recipe, task, video)
    stays = record.keep(path for path, _ in task.frames)
    wanted = {path: number - recipe.first for path, number in task.frames if path not in stays}
    found = sum(stays.values())
    common = {"index": task.index, "kept": len(stays) - found, "found": found}
    if not wanted:
        with record:  # from now on, frames from elsewhere are in the record too
            return VideoResult(written=0, missing=(), broken=(), decoded=0, faults=(), **common)
    try:
        if video is None:
            raise SourceError(_no_video(recipe, task))
        root = open_folder(recipe.root, "--root")
        with video.open(root) as file, open_video(file, video.name) as opened, record:
            _check_rate(video.name, opened, recipe.rate)
            done, decoded = _extract(opened, wanted, record, recipe.quality)
            lost = {path: place for path, place in wanted.items() if path not in done}
            missing = tuple(p for p, place in lost.items() if not 0 <= place < opened.total)
            broken = tuple(path for path in lost if path not in set(missing))
            return VideoResult(
                written=len(done),
                missing=missing,
                broken=broken,
                decoded=decoded,
                faults=tuple(_faults(video.name, opened, recipe, task, (missing, broken))),
                **common,
            )
    except SourceError as error:
        gone = tuple(wanted)
        return VideoResult(
            written=0, missing=gone, broken=(), decoded=0, faults=(str(error),), **common
        )


def record_of(recipe: VideoRecipe, task: VideoTask, video: Place | None = None) -> Record:
    """The record of a video's frames; ``video``: where the video is, None if it was not found."""
    size = None if video is None else video.size
    return Record(
        recipe.out,
        Heading(video=task.name, first=recipe.first, quality=recipe.quality, bytes=size),
    )


def _no_video(recipe: VideoRecipe, task: VideoTask) -> str:
    """The error text for a video that was not found, with the archives that could not be
    searched.
    """
    line = f"{task.name}: no such video below {recipe.root}, nor in an archive there"
    if recipe.compressed:
        packed = ", ".join(recipe.compressed[:3])
        line += (
            f"; compressed as a whole, so not searched; unpack it if the video is in it: {packed}"
        )
    return line


def _check_rate(video: str, opened: Video, rate: int | None) -> None:
    """Check that a video has the frame rate to which the frame numbers of the annotations refer.

    Raises:
        SourceError: the video has another rate.
    """
    if rate is not None and opened.rate is not None and round(opened.rate) != rate:
        raise SourceError(
            f"{video}: has {opened.rate:g} frames a second, the annotations number {rate} a "
            "second, so the numbers do not fit this video; get the one with the right rate"
        )


def _extract(
    opened: Video, wanted: dict[str, int], record: Record, quality: int
) -> tuple[set[str], int]:
    """Decode up to the last wanted frame and write the wanted ones. Returns the written paths, and
    the number of decoded frames.
    """
    by_place: dict[int, list[str]] = {}
    for path, place in wanted.items():
        by_place.setdefault(place, []).append(path)
    done: set[str] = set()
    decoded = 0
    last = max(by_place)
    if last < 0:
        return done, decoded
    for one in opened.frames():
        decoded += 1
        if one.place is None:
            continue
        paths = by_place.get(one.place, ()) if one.is_whole else ()
        pixels = one.bgr() if paths else None
        if pixels is not None:
            data = encode_bgr(pixels, quality, interval=0)
            for path in paths:
                record.write(path, data)
            done.update(paths)
        if one.place >= last:
            break
    return done, decoded


def _faults(
    video: str,
    opened: Video,
    recipe: VideoRecipe,
    task: VideoTask,
    lost: tuple[tuple[str, ...], tuple[str, ...]],
) -> Iterable[str]:
    """Texts that say why frames of a video are missing or broken."""
    missing, broken = lost
    numbers = dict(task.frames)
    if missing:
        asked = [numbers[path] for path in missing]
        why = f" ({opened.fault})" if opened.fault else ""
        yield (
            f"{video}: too short for its annotations: it has {opened.total} frames{why}, they name "
            f"{len(asked)} more, up to number {max(asked)}"
            if min(asked) >= recipe.first
            else f"{video}: its first frame is number {recipe.first}, the annotations name "
            f"{min(asked)}; is --numbering right?"
        )
    if broken:
        yield (
            f"{video}: damaged at packet {opened.damage}: {len(broken)} of the frames that the "
            "annotations name cannot be decoded completely; download it again"
        )
