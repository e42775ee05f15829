"""Reading and drawing whole batches in compiled code, without the interpreter's lock.

:func:`read` reads and checks samples of tars, :class:`Drawer` makes their images. Both work through
a batch by native threads, and give each sample a code: 0, or what is wrong with it, which
:func:`failure` turns into an error. The C++ sources lie in ``source/``; ``api.h`` there is the
other half of this module.

The result is the same to the bit on any processor and with any number of threads.
"""

import ctypes
import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refit_shard.loaders.native.compiling import NAME
from refit_shard.shards_spec.errors import (
    FrameError,
    RefitShardError,
    ShardError,
    StorageError,
    UsageError,
    explain,
)
from refit_shard.shards_spec.records import LocalFile, NpyLayout, Place

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_RES = 4096  # px, of an output's side
MAX_THREADS = 256
MAX_PASTES = 64  # of one sample
LEVELS = 3  # of a cut-out: whole, half, quarter

_POINTER = np.uint64
READ = np.dtype(
    [
        ("data", _POINTER),
        ("offset", np.int64),
        ("length", np.int64),
        ("jpeg_length", np.int64),
        ("header", _POINTER),
        ("header_length", np.int64),
        ("record", _POINTER),
        ("record_length", np.int64),
        ("jpeg_crc_at", np.int64),
        ("descriptor", np.int32),
        ("code", np.int32),
        ("detail", np.int64),
    ],
    align=True,
)
SAMPLE = np.dtype(
    [
        ("jpeg", _POINTER),
        ("jpeg_length", np.int64),
        ("rgb", _POINTER),
        ("out", _POINTER),
        ("map", np.float64, (2, 3)),
        ("height", np.int32),
        ("width", np.int32),
        ("factors", np.float32, (3,)),
        ("pastes", np.int32),
        ("first_paste", np.int64),
        ("code", np.int32),
        ("unused", np.int32),
        ("detail", np.int64),
    ],
    align=True,
)
CUT_OUT = np.dtype(
    [
        ("level", _POINTER, (LEVELS,)),
        ("height", np.int32),
        ("width", np.int32),
        ("levels", np.int32),
        ("unused", np.int32),
    ],
    align=True,
)
PASTE = np.dtype(
    [("x", np.float64), ("y", np.float64), ("size", np.float64), ("cut_out", np.int64)]
)
_BATCH = np.dtype(
    [
        ("samples", _POINTER),
        ("count", np.int64),
        ("cut_outs", _POINTER),
        ("cut_out_count", np.int64),
        ("pastes", _POINTER),
        ("paste_count", np.int64),
        ("scale", np.float32, (3,)),
        ("shift", np.float32, (3,)),
        ("res", np.int32),
        ("image", np.int32),
        ("portable", np.int32),
        ("unused", np.int32),
    ],
    align=True,
)


class Code(enum.IntEnum):
    """What became of a sample; ``api.h`` says what each means."""

    OK = 0
    NOT_OURS = 1
    READ_FAILED = 2
    CUT_SHORT = 3
    NO_LABELS = 4
    LABELS_CRC = 5
    JPEG_CRC = 6
    OTHER_SIZE = 7
    TOO_LARGE = 8
    MARKERS = 9
    DAMAGED = 10
    BAD_MAP = 11
    NO_MEMORY = 12
    BAD_CALL = 13


class ImageKind(enum.IntEnum):
    """What is written of an image, of side ``res``."""

    UINT8 = 0
    """(res, res, 3) uint8 RGB, before the channel factors."""
    FLOAT32 = 1
    """(3, res, res) float32: times the factors, cut to whole levels, normalised."""
    BFLOAT16 = 2
    """The same as bfloat16; in numpy its bits, uint16."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value, in numpy."""
        return np.dtype([np.uint8, np.float32, np.uint16][self])

    def shape(self, res: int) -> tuple[int, int, int]:
        """Of an image."""
        return (res, res, 3) if self is ImageKind.UINT8 else (3, res, res)


_AGAIN = "run refit-shard verify"
# By code, whether it is the image that is damaged, and what is said of it; {} is the detail.
_SAID = {
    Code.CUT_SHORT: (False, f"the tar ends {{}} bytes into it; {_AGAIN}"),
    Code.NO_LABELS: (False, f"no labels behind the JPEG; {_AGAIN}"),
    Code.LABELS_CRC: (False, f"the labels are damaged (crc32c); {_AGAIN}"),
    Code.JPEG_CRC: (True, f"crc32c is not that of the index; {_AGAIN}"),
    Code.OTHER_SIZE: (True, "the JPEG is {width}x{height}, the index says another size"),
    Code.TOO_LARGE: (True, "the index states too many pixels"),
    Code.MARKERS: (True, "restart markers are wrong after {} good MCUs"),
    Code.DAMAGED: (True, "the data of MCU {} are damaged"),
    Code.BAD_MAP: (True, "its box or its size makes no sense; build it again"),
}
_REASONS = {Code.TOO_LARGE: "too_large", Code.BAD_MAP: "bad_box"}


def failure(code: int, detail: int, where: str) -> RefitShardError:
    """The error that a sample's code stands for: a FrameError about the image, a ShardError about
    the labels or the file ``where``, a StorageError where the system failed, a UsageError about
    occluders.
    """
    if code == Code.READ_FAILED:
        return explain(OSError(detail, os.strerror(detail)), where)
    if code == Code.NO_MEMORY:
        return StorageError(f"{where}: no memory for an image")
    if code == Code.BAD_CALL:
        return UsageError(
            f"an image has more than {MAX_PASTES} occluders, or one that is larger than 2^20 px or "
            "farther away than 2^30 px"
        )
    of_image, said = _SAID[Code(code)]
    text = said.format(detail, width=detail >> 16, height=detail & 0xFFFF)
    if of_image:
        return FrameError(_REASONS.get(Code(code), "corrupt"), text)
    return ShardError(f"{where}: {text}")


@cache
def _library() -> ctypes.CDLL:
    """The compiled library, checked against the types above."""
    path = Path(__file__).parent / NAME
    if not path.exists():
        raise ImportError(f"{path} is missing; build it: python loaders/native/compiling.py")
    library = ctypes.CDLL(str(path))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "refit_open": (ctypes.c_void_p, [ctypes.c_int32]),
        "refit_close": (None, [ctypes.c_void_p]),
        "refit_read": (None, [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32]),
        "refit_draw": (None, [ctypes.c_void_p, ctypes.c_void_p]),
        "refit_planes": (
            ctypes.c_int32,
            [
                *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64),
                *(ctypes.c_int32, ctypes.c_int32, ctypes.c_int32),
                *(ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)),
            ],
        ),
        "refit_crc32c": (ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int32]),
        "refit_size": (ctypes.c_int64, [ctypes.c_int32]),
        "refit_has_avx2": (ctypes.c_int32, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    sizes = [library.refit_size(number) for number in range(5)]
    if sizes != [dtype.itemsize for dtype in (READ, SAMPLE, CUT_OUT, PASTE, _BATCH)]:
        raise ImportError(f"{path} is of another version; build it again")
    return library


def planes(jpeg: bytes, height: int, width: int, *, portable: bool = False) -> tuple[Bytes, Bytes]:
    """A stored crop as it is decoded, for tests: luma (height, width), and Cb and Cr
    ((height + 1) // 2, (width + 1) // 2, 2).

    Raises:
        FrameError: it is damaged.
        ValueError: it is a JPEG of another kind.
    """
    library, detail = _library(), ctypes.c_int64()
    luma = np.zeros((height, width), np.uint8)
    chroma = np.zeros((-(-height // 2), -(-width // 2), 2), np.uint8)
    space = library.refit_open(1)
    code = library.refit_planes(
        *(space, jpeg + bytes(slack()), len(jpeg), height, width, portable),
        *(_address(luma), _address(chroma), ctypes.byref(detail)),
    )
    library.refit_close(space)
    if code == Code.NOT_OURS:
        raise ValueError("not a stored crop's JPEG")
    if code != Code.OK:
        raise failure(code, detail.value, "JPEG")
    return luma, chroma


def crc32c(data: bytes, *, portable: bool = False) -> int:
    """The CRC-32C as the library computes it, for tests."""
    return int(_library().refit_crc32c(data, len(data), portable))


def slack() -> int:
    """Bytes of any value that must follow a JPEG in memory."""
    return int(_library().refit_size(5))


def has_avx2() -> bool:
    """Whether the fast path is used; the results are the same without."""
    return bool(_library().refit_has_avx2())


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


@dataclass(frozen=True)
class Jpegs:
    """JPEGs in memory: the i-th has ``lengths[i]`` bytes from ``memory[begins[i]]``.

    Behind each there is room of :func:`slack` bytes.
    """

    memory: Bytes
    begins: Ints
    lengths: Ints

    @classmethod
    def room_for(cls, sizes: Ints, lengths: Ints) -> "Jpegs":
        """Memory of ``sizes`` bytes for each."""
        room = sizes + slack()
        return cls(np.empty(int(room.sum()), np.uint8), np.cumsum(room) - room, lengths)

    @classmethod
    def of(cls, jpegs: Sequence[bytes]) -> "Jpegs":
        """Copies of these."""
        lengths = np.array([len(one) for one in jpegs], np.int64)
        made = cls.room_for(lengths, lengths)
        for number, data in enumerate(jpegs):
            made.put(number, data)
        return made

    def put(self, number: int, data: bytes) -> None:
        """Put bytes where a JPEG begins; what else is in its room is zero afterwards."""
        begin, end = self.begins[number], (*self.begins[1:], len(self.memory))[number]
        self.memory[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        self.memory[begin + len(data) : end] = 0

    def data(self, number: int) -> bytes:
        """A copy of one."""
        begin = self.begins[number]
        return self.memory[begin : begin + self.lengths[number]].tobytes()

    def select(self, chosen: Ints) -> "Jpegs":
        """Some of them, in the same memory."""
        return Jpegs(self.memory, self.begins[chosen], self.lengths[chosen])


@dataclass(frozen=True)
class Read:
    """Samples that were read. ``records``: of each layout its samples' labels, in their order;
    ``codes`` and ``details`` (n,): what became of each sample.
    """

    jpegs: Jpegs
    records: list[NDArray[np.void]]
    codes: NDArray[np.int32]
    details: Ints


def read(
    layouts: Sequence[NpyLayout], which: Ints, places: Sequence[Place], *, threads: int = 1
) -> Read:
    """Read samples of tars and check them.

    ``which`` (n,): the layout of each. What is not in a local file is read here, one after the
    other, and checked like the rest.

    Raises:
        StorageError: a store failed.
    """
    lengths = np.array([place.jpeg_length for place in places], np.int64)
    sizes = np.array([place.size for place in places], np.int64)
    jpegs = Jpegs.room_for(sizes, lengths)
    reads = np.zeros(len(places), READ)
    reads["data"] = _address(jpegs.memory) + jpegs.begins
    reads["offset"] = [place.offset for place in places]
    reads["length"], reads["jpeg_length"], reads["descriptor"] = sizes, lengths, -1
    kept, records = [], []
    for number, layout in enumerate(layouts):
        mine = np.flatnonzero(which == number)
        header, made = np.frombuffer(layout.header, np.uint8), np.zeros(len(mine), layout.dtype)
        reads["header"][mine], reads["header_length"][mine] = _address(header), len(header)
        reads["record"][mine] = _address(made) + np.arange(len(mine)) * layout.dtype.itemsize
        reads["record_length"][mine] = layout.dtype.itemsize
        fields: Mapping[str, Any] = layout.dtype.fields or {}
        reads["jpeg_crc_at"][mine] = fields["jpg_crc32c"][1]
        kept.append(header)
        records.append(made)
    for number, place in enumerate(places):
        if isinstance(place.tar, LocalFile):
            reads["descriptor"][number] = place.tar.descriptor
            continue
        try:
            jpegs.put(number, place.tar.read_at(place.size, place.offset))
        except OSError as error:
            raise explain(error, place.where) from error
    _library().refit_read(_address(reads), len(reads), threads)
    return Read(jpegs, records, reads["code"], reads["detail"])


class CutOuts:
    """RGBA cut-outs (h, w, 4) uint8, and the halves that a smaller one is made of."""

    def __init__(self, images: Sequence[Bytes]) -> None:
        self._kept: list[Bytes] = []
        self.table = np.zeros(len(images), CUT_OUT)
        for row, image in zip(self.table, images, strict=True):
            levels = [np.ascontiguousarray(image)]
            while len(levels) < LEVELS and min(levels[-1].shape[:2]) >= 2:
                levels.append(_half(levels[-1]))
            self._kept += levels
            row["height"], row["width"] = image.shape[:2]
            row["levels"] = len(levels)
            row["level"][: len(levels)] = [_address(level) for level in levels]

    def __len__(self) -> int:
        return len(self.table)


def _half(image: Bytes) -> Bytes:
    """Means of 2 x 2 pixels, rounded; of an odd side the last row or column is left out."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    even = image[:height, :width].astype(np.uint16)
    rows = even[::2] + even[1::2]
    made: Bytes = ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    return made


class Drawer:
    """Makes images with ``threads`` threads; by one thread of Python at a time.

    ``mean``, ``deviation``: of R, G, B in 0 … 1, for normalised images.
    """

    def __init__(
        self,
        res: int,
        image: ImageKind,
        *,
        mean: ArrayLike = (0.0, 0.0, 0.0),
        deviation: ArrayLike = (1.0, 1.0, 1.0),
        threads: int = 1,
        portable: bool = False,
    ) -> None:
        if not (1 <= res <= MAX_RES and 1 <= threads <= MAX_THREADS):
            raise ValueError(f"res must be 1 to {MAX_RES}, threads 1 to {MAX_THREADS}")
        self.res, self.image = res, image
        self._batch = np.zeros((), _BATCH)
        spread = np.asarray(deviation, np.float64)
        self._batch["scale"] = 1.0 / (255.0 * spread)
        self._batch["shift"] = np.asarray(mean, np.float64) / spread
        self._batch["res"], self._batch["image"], self._batch["portable"] = res, image, portable
        self._space = ctypes.c_void_p(_library().refit_open(threads))
        if not self._space:
            raise MemoryError

    def __del__(self) -> None:
        if getattr(self, "_space", None):
            _library().refit_close(self._space)

    def draw(
        self,
        jpegs: Jpegs,
        sides: NDArray[np.int32],
        maps: Floats,
        factors: NDArray[np.float32],
        outs: NDArray[Any],
        places: Ints,
        *,
        cut_outs: CutOuts | None = None,
        pastes: NDArray[np.void] | None = None,
        paste_spans: Ints | None = None,
        decoded: Mapping[int, Bytes] | None = None,
    ) -> tuple[NDArray[np.int32], Ints]:
        """Make the image of each JPEG; gives each one's code and detail.

        ``sides`` (n, 2): height and width that the index states. ``maps`` (n, 2, 3): from output
        to stored pixels. ``factors`` (n, 3): of the channels. The i-th image becomes
        ``outs[places[i]]``. ``pastes`` (m,) of :data:`PASTE`; ``paste_spans`` (n, 2): the number
        of each sample's first one, and how many it has. ``decoded``: images (height, width, 3) of
        those JPEGs that are :attr:`Code.NOT_OURS`, by number.
        """
        count = len(jpegs.lengths)
        samples = np.zeros(count, SAMPLE)
        samples["jpeg"] = _address(jpegs.memory) + jpegs.begins
        samples["jpeg_length"] = jpegs.lengths
        samples["out"] = self._outs(outs, places)
        samples["map"], samples["factors"] = maps, factors
        samples["height"], samples["width"] = sides[:, 0], sides[:, 1]
        images = {number: np.ascontiguousarray(one) for number, one in (decoded or {}).items()}
        for number, one in images.items():
            if one.dtype != np.uint8 or one.shape != (*sides[number].tolist(), 3):
                raise ValueError(f"decoded[{number}] must be uint8 of its sides, got {one.shape}")
            samples["rgb"][number] = _address(one)
        batch = self._batch.copy()
        if pastes is not None and paste_spans is not None and cut_outs is not None:
            pastes = np.ascontiguousarray(pastes, PASTE)
            samples["first_paste"], samples["pastes"] = paste_spans.T
            batch["pastes"], batch["paste_count"] = _address(pastes), len(pastes)
            batch["cut_outs"], batch["cut_out_count"] = _address(cut_outs.table), len(cut_outs)
        batch["samples"], batch["count"] = _address(samples), count
        _library().refit_draw(self._space, _address(batch))
        return samples["code"], samples["detail"]

    def _outs(self, outs: NDArray[Any], places: Ints) -> NDArray[np.uint64]:
        shape = self.image.shape(self.res)
        if (
            outs.shape[1:] != shape
            or outs.dtype != self.image.dtype
            or not outs[:1].flags.c_contiguous
        ):
            raise ValueError(f"outs must hold {self.image.dtype} of {shape}, got {outs.shape}")
        if len(places) and not 0 <= places.min() <= places.max() < len(outs):
            raise ValueError("places must be those of outs")
        return (_address(outs) + places * outs.strides[0]).astype(np.uint64)
