"""Decoding a video, every frame with its place among all of them, also where the video is damaged.

A frame's place is its number, from 0, in the order in which a player shows the frames, which is
the order in which OpenCV and FFmpeg count them. Where a part of a video cannot be decoded, its
frames do not come out, and counting would give every later frame the number of another one. So each
packet is followed: from the first damage on, a frame's place is that of its packet's time among
those of all packets, or of its packet in the file where frames are stored in the order shown. Where
packets themselves are lost, in a file that was cut or whose chunks are damaged, what cannot be
placed has no place.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import RawIOBase

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import SourceError

# By readers that open no other file: a playlist under a video's name could name any. Matroska is
# left out, as its reader passes over damage without a word.
_CONTAINERS = "avi,mov,mp4"
_READ = 256 << 10  # bytes at a time
_MAX_PIXELS = 64 << 20
# A codec shows a frame at most this many packets after it is stored; with as many frames seen in
# the order of their times, or as they are stored, later ones are taken to be so too.
_SEEN = 16
_REMEMBERED = 256  # damaged packets and key frames
# Its packets state no times; FFmpeg works them out, for some codecs wrongly.
_AVI = "avi"
_CHUNK_HEADER = 8


@dataclass(frozen=True)
class Placed:
    """A decoded frame. ``place``: from 0, None where damage leaves it unknown. ``is_whole``:
    neither it nor a frame that it is predicted from is damaged.
    """

    frame: VideoFrame
    place: int | None
    is_whole: bool

    def bgr(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 BGR, as ``cv2.VideoCapture`` gives it: by FFmpeg's swscale, from the
        matrix and range that the video states, BT.601 and limited where it states none. None for
        pixels that swscale does not know.
        """
        try:
            return np.asarray(self.frame.to_ndarray(format="bgr24", threads=1), np.uint8)
        except (av.error.FFmpegError, ValueError):
            return None


@dataclass
class _Places:
    """Gives each frame its place, from what is seen of packets and frames."""

    are_stated: bool  # the packets' times are the file's own
    times: list[int | None] = field(default_factory=list)  # of each packet, as stored
    shown: list[int] = field(default_factory=list)  # those of packets that are shown, sorted
    is_reordered: bool = False  # packets are not stored in the order of their times
    stored: int = 0  # when the latest packet was to be decoded; later ones are shown later
    count: int = 0  # frames that came out
    by_time: bool = True  # every frame so far was in the place of its time
    by_packet: bool = True  # or of its packet
    damage: int | None = None  # the first packet that is known to be damaged
    last: int = -1  # the latest place that was given

    def add(self, packet: "Packet[VideoStream]") -> None:
        """Count a packet."""
        self.times.append(packet.pts)
        if packet.pts is None:
            self.by_time = False
        elif not packet.is_discard:
            self.is_reordered |= bool(self.shown) and packet.pts < self.shown[-1]
            insort(self.shown, packet.pts)
        if packet.dts is not None:
            self.stored = max(self.stored, packet.dts)

    def is_settled(self, number: int) -> bool:
        """Whether all packets were seen whose frames are shown before that of this one."""
        time = self.times[number] if number >= 0 else None
        return not self.are_stated or time is None or self.stored >= time

    def hurt(self, number: int) -> None:
        """Note that a packet is damaged, before the frames that it would have given."""
        if self.damage is None:
            self.damage = number
            sure = self.are_stated or self.count >= _SEEN
            self.by_time, self.by_packet = self.by_time and sure, self.by_packet and sure

    def lose_packets(self, number: int) -> None:
        """Note that packets are missing before this one, nobody knows how many."""
        self.hurt(number)
        self.by_time = self.by_packet = False

    def place(self, number: int) -> int | None:
        """The place of the next frame, in the order shown, which is of packet ``number``."""
        time = self.times[number] if number >= 0 else None
        timed = -1 if time is None else bisect_left(self.shown, time)
        if self.damage is None:
            self._compare(number, timed)
        place = self.count if self.damage is None else self._after_damage(number, timed)
        self.count += 1
        if place is not None:
            self.last = place
        return place

    def _compare(self, number: int, timed: int) -> None:
        """Learn whether frames come in the order of their times, or of their packets."""
        is_timely = timed == self.count
        # A file that states as times when packets are stored shows so at its first frames.
        is_known = self.are_stated and (self.is_reordered or self.count >= _SEEN)
        if self.by_time and not is_timely and is_known:
            self.hurt(number)
            return
        self.by_time = self.by_time and is_timely
        self.by_packet = self.by_packet and number == self.count

    def _after_damage(self, number: int, timed: int) -> int | None:
        place = timed if self.by_time else number if self.by_packet else -1
        return place if place > self.last else None

    @property
    def total(self) -> int:
        """Frames that the packets so far hold, damaged ones too."""
        return self.count if self.damage is None else max(self.count, len(self.shown))


@dataclass
class _Waiting:
    """Holds frames until those of all earlier packets came out, and only then says whether they are
    whole: a damaged frame that others are predicted from may come out after them.
    """

    frames: deque[tuple[int, int, VideoFrame]] = field(default_factory=deque)
    came: set[int] = field(default_factory=set)  # packets whose frame came, from ``lowest`` on
    lowest: int = 0  # the first packet whose frame has not come
    order: int = 0
    keys: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    damage: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def hurt(self, number: int, since: int | None = None) -> None:
        """Note a damaged packet, whose frame may not come. Frames of packets from ``since`` on,
        by default from it on, are not whole before the next key frame.
        """
        self.damage.append((number if since is None else since, number))
        self.came.add(number)

    def add(self, number: int, frame: VideoFrame) -> None:
        """Take a frame in, of packet ``number``."""
        if frame.is_corrupt:
            self.hurt(number)
        elif frame.key_frame:
            self.keys.append((number, self.order))
        self.came.add(number)
        self.frames.append((number, self.order, frame))
        self.order += 1

    def ready(
        self, is_settled: Callable[[int], bool], *, is_end: bool
    ) -> Iterator[tuple[int, int, VideoFrame]]:
        """The frames that need not wait any more, in the order in which they came: packet, order
        and frame. At the end all of them.
        """
        while self.frames:
            while self.lowest in self.came:
                self.came.remove(self.lowest)
                self.lowest += 1
            number, _, _ = self.frames[0]
            if not is_end and not (number < self.lowest and is_settled(number)):
                if len(self.frames) <= _SEEN:
                    return
                self.lowest = max(self.lowest, number + 1)  # packets without a frame
            yield self.frames.popleft()

    def is_whole(self, number: int, order: int) -> bool:
        """Whether a frame is neither damaged nor predicted from a damaged one."""
        if not self.damage:
            return True
        key = max((k for k, when in self.keys if k <= number and when <= order), default=-1)
        return not any(since <= number and key <= until for since, until in self.damage)


class Video:
    """An open video: its first stream of pictures, decoded in this thread; made by
    :func:`open_video`.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._is_avi = container.format.name == _AVI
        self._index = [one.pos for one in stream.index_entries] if self._is_avi else []
        self._is_alone = len(container.streams) == 1
        self._next: int | None = None  # where the next packet must begin
        self._places = _Places(are_stated=not self._is_avi)
        self._waiting = _Waiting()
        self.fault: str | None = None

    @property
    def rate(self) -> float | None:
        """Frames a second, where the file states them."""
        rate = self._stream.average_rate
        return None if rate is None else float(rate)

    @property
    def total(self) -> int:
        """Frames seen so far, and after the last one all of them; damaged ones are counted."""
        return self._places.total

    @property
    def damage(self) -> int | None:
        """The number of the first damaged packet, from 0, or None."""
        return self._places.damage

    def frames(self) -> Iterator[Placed]:
        """Every frame that can be decoded, in the order shown. What ended the reading before the
        end of the file is in ``fault`` afterwards.
        """
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.fault = f"reading ended early: {_said(error)}"
                self._hurt(len(self._places.times))
                packet = None
            if packet is not None:
                self._decode(packet)
            waiting, places = self._waiting, self._places
            for one in waiting.ready(places.is_settled, is_end=packet is None):
                yield self._placed(*one)
            if packet is None:
                return

    def _hurt(self, number: int) -> None:
        self._places.hurt(number)
        self._waiting.hurt(number)

    def _decode(self, packet: "Packet[VideoStream]") -> None:
        """Have a packet decoded; the frames that come of it wait."""
        places = self._places
        number = len(places.times)
        if packet.size:
            if self._passes_over(packet, number):
                places.lose_packets(number)
            packet.opaque = number
            places.add(packet)
            if packet.is_corrupt:
                self._hurt(number)
        elif self._stream.frames > number:  # the file was cut
            self._hurt(number)
            places.by_time = False  # frames that were to be shown before the last ones are missing
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, OSError, ValueError):
            self._hurt(number)
            return
        for frame in frames:
            if isinstance(frame, VideoFrame):
                self._take(frame)

    def _take(self, frame: VideoFrame) -> None:
        number = frame.opaque if isinstance(frame.opaque, int) else -1
        if frame.is_corrupt:
            self._places.hurt(number)
        self._waiting.add(number, frame)

    def _placed(self, number: int, order: int, frame: VideoFrame) -> Placed:
        places = self._places
        is_sound = places.damage is None
        place = places.place(number)
        if is_sound and places.damage is not None:  # out of order: any before may be the damaged
            self._waiting.hurt(number, since=0)
        return Placed(frame, place, self._waiting.is_whole(number, order))

    def _passes_over(self, packet: "Packet[VideoStream]", number: int) -> bool:
        """Whether the reader of an AVI looked for the next chunk, past damage, to find this one."""
        if not self._is_avi or packet.pos is None:
            return False
        begin, expected = packet.pos - _CHUNK_HEADER, self._next
        self._next = packet.pos + packet.size + packet.size % 2 if self._is_alone else None
        if number < len(self._index):
            expected = self._index[number]
        return expected is not None and begin != expected


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def open_video(file: RawIOBase, name: str) -> Iterator[Video]:
    """Open a video. ``file``: to read it from, with ``seek``. ``name``: for errors.

    Raises:
        SourceError: it cannot be opened, is none, holds no pictures or too large ones.
        PassingError: ``file`` cannot be read now; the frames raise it as well.
    """
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}
    av.logging.set_level(None)
    try:
        container = av.open(file, mode="r", options=options, buffer_size=_READ)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(
            f"{name}: not a video that can be opened ({_said(error)}); is the download complete?"
        ) from error
    try:
        if not container.streams.video:
            raise SourceError(f"{name}: holds no pictures")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise SourceError(f"{name}: its codec is not known to FFmpeg")
        if context.width * context.height > _MAX_PIXELS:
            raise SourceError(f"{name}: states frames of {context.width}x{context.height} px")
        context.options = {"max_pixels": str(_MAX_PIXELS)}
        context.thread_count = 1  # a worker has one core, and errors come at their packet
        context.copy_opaque = True
        yield Video(container, stream)
    finally:
        with suppress(av.error.FFmpegError, OSError):
            container.close()
