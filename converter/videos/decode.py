"""Decodes a video and gives every frame its number in the video, also if the video is damaged.

A frame's number, its *place*, counts from 0 in the order in which a player shows the frames, which
is how OpenCV and FFmpeg count them. A decoder drops frames that it cannot decode, so counting its
frames would give every later frame a wrong number. Therefore the number of each packet is passed
through the decoder. From the first damage on, a frame's place is the rank of its packet's time
among the times of all packets or, if frames are stored in the order in which they are shown, the
packet's number in the file. If packets are lost, in a file that was cut or whose chunks are
damaged, the place of later frames may be unknown.
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

# Formats whose readers open no other file: a playlist with a video's name could name any file.
# Matroska is left out, because its reader skips damage without reporting it.
_CONTAINERS = "avi,mov,mp4"
_READ = 256 << 10  # bytes at a time
_MAX_PIXELS = 64 << 20
# A codec shows a frame at most this many packets after it is stored. If that many frames came in
# the order of their times, or of their packets, later frames are assumed to do so too.
_SEEN = 16
_REMEMBERED = 256  # damaged packets and key frames
# Packets of AVI state no times; FFmpeg computes them, for some codecs wrongly.
_AVI = "avi"
_CHUNK_HEADER = 8


@dataclass(frozen=True)
class Placed:
    """A decoded frame.

    ``place``: its number in the video, from 0; None if unknown because of damage. ``is_whole``:
    True if neither this frame nor a frame that it is predicted from is damaged.
    """

    frame: VideoFrame
    place: int | None
    is_whole: bool

    def bgr(self) -> NDArray[np.uint8] | None:
        """The frame as (H, W, 3) uint8 BGR, equal to that of ``cv2.VideoCapture``: converted by
        FFmpeg's swscale with the matrix and range that the video states, or BT.601 and limited
        range if it states none. None for a pixel format that swscale does not support.
        """
        try:
            return np.asarray(self.frame.to_ndarray(format="bgr24", threads=1), np.uint8)
        except (av.error.FFmpegError, ValueError):
            return None


@dataclass
class _Places:
    """Computes the place of each frame from the packets and frames so far."""

    are_stated: bool  # the packets' times are stated in the file, not computed by FFmpeg
    times: list[int | None] = field(default_factory=list)  # of each packet, as stored
    shown: list[int] = field(default_factory=list)  # times of the packets that are shown, sorted
    is_reordered: bool = False  # packets are not stored in the order of their times
    stored: int = 0  # latest decoding time of a packet; later packets are shown after it
    count: int = 0  # number of frames that came out of the decoder
    by_time: bool = True  # the count of every frame so far was the rank of its time
    by_packet: bool = True  # the count of every frame so far was the number of its packet
    damage: int | None = None  # the first packet that is known to be damaged
    last: int = -1  # the last place that was assigned

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
        """True if all packets have been read whose frames are shown before this packet's frame."""
        time = self.times[number] if number >= 0 else None
        return not self.are_stated or time is None or self.stored >= time

    def hurt(self, number: int) -> None:
        """Note that a packet is damaged, before frames of it or after it get their places."""
        if self.damage is None:
            self.damage = number
            sure = self.are_stated or self.count >= _SEEN
            self.by_time, self.by_packet = self.by_time and sure, self.by_packet and sure

    def lose_packets(self, number: int) -> None:
        """Note that an unknown number of packets is missing before this one."""
        self.hurt(number)
        self.by_time = self.by_packet = False

    def place(self, number: int) -> int | None:
        """The place of the next frame that the decoder gave, which is of packet ``number``."""
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
        """Update whether frames come in the order of their times and of their packets."""
        is_timely = timed == self.count
        # A file whose stated times are those at which packets are stored shows it in its first
        # frames.
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
        """The number of frames in the packets so far, damaged ones included."""
        return self.count if self.damage is None else max(self.count, len(self.shown))


@dataclass
class _Waiting:
    """Holds frames back until the frames of all earlier packets have come out of the decoder. Only
    then it is known if they are whole, because a damaged frame may come out after frames that are
    predicted from it.
    """

    frames: deque[tuple[int, int, VideoFrame]] = field(default_factory=deque)
    came: set[int] = field(default_factory=set)  # packets whose frame came, from ``lowest`` on
    lowest: int = 0  # the first packet whose frame has not come
    order: int = 0
    keys: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    damage: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def hurt(self, number: int, since: int | None = None) -> None:
        """Note a damaged packet, whose frame may never come. Frames of packets from ``since`` on,
        by default from this one on, are not whole until the next key frame.
        """
        self.damage.append((number if since is None else since, number))
        self.came.add(number)

    def add(self, number: int, frame: VideoFrame) -> None:
        """Add a frame of packet ``number``."""
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
        """Yields the frames that need not wait any longer, in the order in which they came, as
        (packet, order, frame); at the end of the video all of them.
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
        """True if a frame is neither damaged nor predicted from a damaged one."""
        if not self.damage:
            return True
        key = max((k for k, when in self.keys if k <= number and when <= order), default=-1)
        return not any(since <= number and key <= until for since, until in self.damage)


class Video:
    """An open video, of which the first video stream is decoded in this thread; see
    :func:`open_video`.

    ``fault``: a text that says why reading ended before the end of the file, or None.
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
        """Frames a second, None if the file does not state them."""
        rate = self._stream.average_rate
        return None if rate is None else float(rate)

    @property
    def total(self) -> int:
        """The number of frames read so far, damaged ones included; of all frames after the last."""
        return self._places.total

    @property
    def damage(self) -> int | None:
        """The number of the first damaged packet, from 0, or None."""
        return self._places.damage

    def frames(self) -> Iterator[Placed]:
        """Yields every frame that can be decoded, in the order shown. If reading ends before the
        end of the file, ``fault`` says why.
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
        """Decode a packet and add its frames to those that wait."""
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
        # A frame out of order shows damage, and any earlier frame may be the damaged one.
        if is_sound and places.damage is not None:
            self._waiting.hurt(number, since=0)
        return Placed(frame, place, self._waiting.is_whole(number, order))

    def _passes_over(self, packet: "Packet[VideoStream]", number: int) -> bool:
        """True if the reader of an AVI skipped damage to find this packet."""
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
    """Open a video.

    Args:
        file: the video as a file object with ``seek``.
        name: of the video, for errors.

    Raises:
        SourceError: the file is not a video that can be opened, or its frames are too large.
        PassingError: the storage of ``file`` fails; also while frames are read.
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
            raise SourceError(f"{name}: has no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise SourceError(f"{name}: its codec is not known to FFmpeg")
        if context.width * context.height > _MAX_PIXELS:
            raise SourceError(
                f"{name}: states frames of {context.width}x{context.height} px, the limit is "
                f"{_MAX_PIXELS} pixels; is it damaged?"
            )
        context.options = {"max_pixels": str(_MAX_PIXELS)}
        context.thread_count = 1  # a worker has one core; errors are then raised at their packet
        context.copy_opaque = True
        yield Video(container, stream)
    finally:
        with suppress(av.error.FFmpegError, OSError):
            container.close()
