"""Finds the videos of a plan: files below the root, or members of archives, which stay packed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.archives.find import find_packed, open_archive
from refit_shard.converter.archives.members import Member, Stamp, place_of
from refit_shard.converter.archives.stream import Stream
from refit_shard.converter.videos.plan import LAYOUTS, VideoTask
from refit_shard.shards_spec.errors import FrameError, SourceError
from refit_shard.shards_spec.storage.folder import Folder, open_folder
from refit_shard.shards_spec.storage.paths import path_bytes


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a video is stored.

    ``name``: for errors, its path below the root, for a member with its archive's path. ``file``:
    the video file or the archive. ``member``: the video in the archive, or None.
    """

    name: str
    file: Stamp
    member: Member | None = None

    @property
    def size(self) -> int:
        """Bytes of the video."""
        return self.file.size if self.member is None else self.member.size

    @contextmanager
    def open(self, root: Folder) -> Iterator[Stream]:
        """The video as a file object for reading.

        Raises:
            SourceError: the member is compressed or stored in another way that cannot be read in
                parts.
            PassingError: the storage failed, or the file was replaced meanwhile.
        """
        where = f"{root.url.rstrip('/')}/{self.file.path}"
        with closing(open_archive(root, self.file)) as file:
            begin, size = 0, self.file.size
            if self.member is not None:
                try:
                    begin, size = place_of(file, where, self.member)
                except FrameError as error:
                    raise SourceError(f"{self.name}: {error}") from error
            yield Stream(file, where, begin, size)


def find_video(root: str, task: VideoTask) -> Place | None:
    """Where a task's video is stored: the first of its paths that is a file, else its member of an
    archive; None if there is neither.
    """
    for path in task.videos:
        place = os.path.join(path_bytes(root), path_bytes(path))
        if os.path.isfile(place):
            about = os.stat(place)
            stamp = Stamp(path=path, size=about.st_size, mtime_ns=about.st_mtime_ns)
            return Place(name=path, file=stamp)
    if task.member is None:
        return None
    path, member = task.member
    return Place(name=f"{path} in {member.archive.path}", file=member.archive, member=member)


@dataclass(frozen=True, kw_only=True)
class Located:
    """Tasks with the members of archives that are their videos.

    ``compressed``: paths of archives that are compressed as a whole, from which no video can be
    read.
    """

    tasks: tuple[VideoTask, ...]
    compressed: tuple[str, ...] = ()


def locate(tasks: Sequence[VideoTask], root: str, kept: Folder, *, keep: bool) -> Located:
    """Search archives for the videos that are not files: in the root, in the folders directly below
    it, and in the folders where the videos would be.

    Args:
        tasks: one for each video.
        root: the folder of the videos.
        kept: the folder of the saved lists of archives' members.
        keep: True to save new lists there.

    Raises:
        SourceError: an archive is damaged, or two members may be one video.
        StorageError: the storage failed.
    """
    lost = [task for task in tasks if find_video(root, task) is None]
    if not lost:
        return Located(tasks=tuple(tasks))
    paths = [path for task in lost for path in task.videos]
    packed = find_packed(open_folder(root, "--root"), paths, kept, keep=keep, beside=True)
    members = packed.members(paths)
    absent = {task.index for task in lost}
    return Located(
        tasks=tuple(
            replace(task, member=next(((p, members[p]) for p in task.videos if p in members), None))
            if task.index in absent
            else task
            for task in tasks
        ),
        compressed=packed.archives.compressed,
    )


def videos_there(dataset: Dataset, root: str, paths: Sequence[str], kept: Folder) -> int:
    """The number of videos, below a local root or in archives there, that contain frames of these
    paths.
    """
    layout = LAYOUTS.get(dataset.name)
    if layout is None:
        return 0
    found = {layout.places(one) for one in map(layout.frame.fullmatch, paths) if one}
    tasks = [VideoTask(index=index, videos=videos, frames=()) for index, videos in enumerate(found)]
    located = locate(tasks, root, kept, keep=False)
    return sum(find_video(root, task) is not None for task in located.tasks)
