"""Reads the frames of a root: files, and members of archives."""

import threading
from collections.abc import Mapping
from typing import Any

from refit_shard.converter.archives.find import open_archive
from refit_shard.converter.archives.members import Member, read_member
from refit_shard.converter.reading import Room, no_limit, read_frame
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.storage.folder import Folder

# Archives that are open at a time.
_MOST_OPEN = 128


class Frames:
    """Reads frames by their path below a root; several threads may read at a time.

    ``members``: the frames that are members of archives. If a file has the same path as a member,
    the file is read. An archive is opened when the first of its members is read, and closed when
    this object is deleted.
    """

    def __init__(self, root: Folder, members: Mapping[str, Member]) -> None:
        self.root = root
        self._members = members
        self._open: dict[str, Any] = {}
        self._opening = threading.Lock()

    def read(self, path: str, room: Room = no_limit) -> bytes:
        """The bytes of a frame; ``room`` is called with their number before they are read.

        Raises:
            FrameError: missing, damaged, empty, too large, or not readable.
            PassingError: the storage failed, which says nothing about the frame.
        """
        member = self._members.get(path)
        if member is None or member.beside:
            try:
                return read_frame(self.root, path, room)
            except FrameError as error:
                if member is None or error.reason != "missing":
                    raise
        where = f"{self.root.url.rstrip('/')}/{member.archive.path}"
        return read_member(self._archive(member), where, member, room)

    def _archive(self, member: Member) -> Any:
        name = member.archive.path
        with self._opening:
            if name not in self._open:
                if len(self._open) >= _MOST_OPEN:
                    self._open.pop(next(iter(self._open)))
                self._open[name] = open_archive(self.root, member.archive)
            return self._open[name]


def work_order(members: Mapping[str, Member], paths: list[str]) -> list[int]:
    """The indexes of ``paths`` in the order in which the frames should be read: members by archive
    and offset.

    Files come first, in the order of ``paths``, because their order on the disk is not known.
    """

    def place(index: int) -> tuple[str, int]:
        member = members.get(paths[index])
        return ("", 0) if member is None else (member.archive.path, member.begin)

    return sorted(range(len(paths)), key=place)
