"""Records which frames of a video were written, so that a stopped run can be continued.

The first line of a record states what the frames were made from and how. Each further line is one
written frame: its path, size and CRC. A line is added after its frame was renamed to its final
name, so after a kill at most one complete frame is written again.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import crc32c

from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError, ShardError, UsageError, explain
from refit_shard.shards_spec.names import attempt_name
from refit_shard.shards_spec.storage.folder import Folder, open_folder

RECORDS = ".extract-frames"
_MAX_RECORD = 1 << 30
_PIXELS = "swscale bgr24, OpenCV JPEG 4:2:0"


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What the frames of a video were made from, and how.

    ``bytes``: the video's size, None if it was not found. ``pixels``: how pixels were computed.
    Frames with another ``first``, ``quality`` or ``pixels`` are not mixed.
    """

    video: str
    first: int
    quality: int
    bytes: int | None
    pixels: str = _PIXELS

    def fits(self, other: "Heading") -> bool:
        """True if the frames of both were made in the same way."""
        ours = (self.first, self.quality, self.pixels)
        return ours == (other.first, other.quality, other.pixels)

    def is_of_another_file(self, other: "Heading") -> bool:
        """True if the video was replaced by one of another size."""
        return None not in (self.bytes, other.bytes) and self.bytes != other.bytes


# Size and CRC of each frame, by path.
Seals = dict[str, tuple[int, int]]
_STALE = (-1, 0)  # for a frame that is to be written again; no file has this size


def _parse(data: bytes) -> tuple[Heading | None, Seals]:
    """The heading and the frames of a record; damaged lines are left out."""
    heading: Heading | None = None
    written: Seals = {}
    for line in data.splitlines():
        try:
            found = json.loads(line)
            if heading is None:
                heading = Heading(**found)
            else:
                path, size, crc = found
                written[str(path)] = (int(size), int(crc))
        except (ValueError, TypeError, RecursionError):
            if heading is None:
                return None, {}
    return heading, written


class Record:
    """The record of one video's frames below ``out``; a context manager while frames are written.

    ``kept``: the existing frames that are complete, by path.
    """

    def __init__(self, out: str, heading: Heading) -> None:
        self._out = out
        self._heading = heading
        self._name = hashlib.sha256(heading.video.encode()).hexdigest()[:32] + ".jsonl"
        self._folder: Folder = open_folder(out, "--out").child(RECORDS)
        self._stream: int | None = None
        self._stale: Seals = {}
        self.kept: Seals = {}

    def forget(self, paths: Iterable[str]) -> None:
        """Mark the frames of these paths to be written again, even if their files exist."""
        self._stale = dict.fromkeys(paths, _STALE)
        self._begin()

    def keep(self, paths: Iterable[str]) -> dict[str, bool]:
        """The paths of existing frames that are kept, with True for those that extract-frames did
        not write.

        Raises:
            UsageError: existing frames were made with other options.
            StorageError: existing frames cannot be read.
        """
        heading, written = self._read()
        if heading is not None and written and not heading.fits(self._heading):
            raise UsageError(
                f"{self._heading.video}: its frames below {self._out} were made with --quality "
                f"{heading.quality} and first frame number {heading.first}, now asked for are "
                f"{self._heading.quality} and {self._heading.first}; give the same options, "
                "another --out, or --overwrite to write them again"
            )
        if heading is not None and heading.is_of_another_file(self._heading):
            written = dict.fromkeys(written, _STALE)
        stays = {}
        for path in paths:
            data = self._frame(path)
            if data is None:
                continue
            seal = (len(data), crc32c.crc32c(data))
            is_foreign = path not in written and _is_whole(data)
            if is_foreign or written.get(path) == seal:
                stays[path] = is_foreign
                self.kept[path] = seal
        self._stale = {path: _STALE for path in written if path not in self.kept}
        return stays

    def _read(self) -> tuple[Heading | None, Seals]:
        try:
            return _parse(self._folder.read(self._name, limit=_MAX_RECORD))
        except ShardError:
            return None, {}

    def _frame(self, path: str) -> bytes | None:
        place = Path(self._out) / path
        try:
            return place.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, str(place), "--out") from error

    def _begin(self) -> Path:
        """Write the record again, with the kept frames and those that are to be written again."""
        sealed = {**self._stale, **self.kept}
        lines = [asdict(self._heading), *([path, *seal] for path, seal in sealed.items())]
        self._folder.write(self._name, "".join(json.dumps(one) + "\n" for one in lines).encode())
        return Path(self._folder.path) / self._name

    def __enter__(self) -> "Record":
        """Begin to write frames."""
        place = self._begin()
        try:
            self._stream = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise explain(error, str(place), "--out") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            os.close(self._stream)

    def write(self, path: str, data: bytes) -> None:
        """Write a frame under a temporary name, rename it, and add it to the record.

        Raises:
            StorageError: the frame cannot be written.
        """
        place = Path(self._out) / path
        attempt = place.with_name(attempt_name(place.name, secrets.token_hex(4)))
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            attempt.write_bytes(data)
            attempt.replace(place)
            line = json.dumps([path, len(data), crc32c.crc32c(data)]) + "\n"
            if self._stream is not None:
                os.write(self._stream, line.encode())
        except OSError as error:
            with suppress(OSError):
                attempt.unlink(missing_ok=True)
            raise explain(error, str(place), "--out") from error


def _is_whole(data: bytes) -> bool:
    """True if a file is a complete image; a user's own complete frame is never replaced."""
    try:
        return jpeg.decode(data).size > 0
    except FrameError:
        return False
