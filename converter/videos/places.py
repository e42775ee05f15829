"""Where the videos of a plan are: files below the root, or members of archives that stay packed."""

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
    """A video. ``name``: its path below the root, and of a member its archive's, for errors.
    ``file``: what it lies in: itself, or the archive of which it is the ``member``.
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
        """The video as a file to read.

        Raises:
            SourceError: it is stored in a way that cannot be read in parts.
            PassingError: the storage failed, or the file is another one than it was.
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
    """Where a task's video is: the first of its paths that is a file, else its member."""
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
    """Tasks that know which members of archives their videos are. ``compressed``: paths of archives
    that are compressed as a whole, so that nothing can be read out of them.
    """

    tasks: tuple[VideoTask, ...]
    compressed: tuple[str, ...] = ()


def locate(tasks: Sequence[VideoTask], root: str, kept: Folder, *, keep: bool) -> Located:
    """Look for the videos that are no files in archives: in the root, in folders directly below
    it, and in the folders where the videos would be. A file comes before a member.

    ``kept``: the folder where lists of archives are kept. ``keep``: whether new ones go there.

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
    """How many videos below a local root, or in archives there, hold frames of these paths."""
    layout = LAYOUTS.get(dataset.name)
    if layout is None:
        return 0
    found = {layout.places(one) for one in map(layout.frame.fullmatch, paths) if one}
    tasks = [VideoTask(index=index, videos=videos, frames=()) for index, videos in enumerate(found)]
    located = locate(tasks, root, kept, keep=False)
    return sum(find_video(root, task) is not None for task in located.tasks)
