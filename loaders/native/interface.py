"""Python's interface to the compiled library: types, functions, and errors for its codes.

``source/api.h`` declares the same in C++.
"""

import ctypes
import enum
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.loaders.native.compiling import NAME
from refit_shard.shards_spec.errors import (
    FrameError,
    RefitShardError,
    ShardError,
    StorageError,
    UsageError,
    explain,
)

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_RES = 4096  # px, side of an output image
MAX_THREADS = 256
MAX_PASTES = 64  # per sample
LEVELS = 3  # sizes of a cut-out: whole, half, quarter
MAX_RADIUS = 15  # px, radius of a blur

POINTER = np.uint64
SPAN = np.dtype([("begin", np.int64), ("to", np.int64), ("length", np.int64)])
READ = np.dtype(
    [
        ("data", POINTER),
        ("offset", np.int64),
        ("length", np.int64),
        ("jpeg_length", np.int64),
        ("header", POINTER),
        ("header_length", np.int64),
        ("record_length", np.int64),
        ("row", POINTER),
        ("row_length", np.int64),
        ("spans", POINTER),
        ("span_count", np.int64),
        ("jpeg_crc_at", np.int64),
        ("descriptor", np.int32),
        ("code", np.int32),
        ("detail", np.int64),
    ],
    align=True,
)
EFFECTS = np.dtype(
    [
        ("cells", np.int32),
        ("blur", np.uint16, (MAX_RADIUS + 1,)),
        ("gray", np.int32),
        ("contrast", np.int32),
        ("brightness", np.int32),
    ]
)
SAMPLE = np.dtype(
    [
        ("jpeg", POINTER),
        ("jpeg_length", np.int64),
        ("rgb", POINTER),
        ("out", POINTER),
        ("effects", POINTER),
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
        ("level", POINTER, (LEVELS,)),
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
BATCH = np.dtype(
    [
        ("samples", POINTER),
        ("count", np.int64),
        ("cut_outs", POINTER),
        ("cut_out_count", np.int64),
        ("pastes", POINTER),
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
    """Result of reading or drawing a sample; ``api.h`` explains each."""

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
    """Type of an output image of side ``res``."""

    UINT8 = 0
    """(res, res, 3) uint8 RGB, before the channel factors."""
    FLOAT32 = 1
    """(3, res, res) float32: multiplied by the factors, truncated to whole values, normalised."""
    BFLOAT16 = 2
    """The same as bfloat16; in numpy its bits as uint16."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the image."""
        return np.dtype([np.uint8, np.float32, np.uint16][self])

    def shape(self, res: int) -> tuple[int, int, int]:
        """Shape of an image."""
        return (res, res, 3) if self is ImageKind.UINT8 else (3, res, res)


_AGAIN = "run refit-shard verify"
# For each code: True if the error is about the image, and the message; {} is the detail.
_SAID = {
    Code.CUT_SHORT: (False, f"the tar ends after {{}} bytes of the sample; {_AGAIN}"),
    Code.NO_LABELS: (False, f"no labels after the JPEG; {_AGAIN}"),
    Code.LABELS_CRC: (False, f"the labels are damaged (crc32c); {_AGAIN}"),
    Code.JPEG_CRC: (True, f"crc32c differs from the index; {_AGAIN}"),
    Code.OTHER_SIZE: (True, "the JPEG is {width}x{height}, the index states another size"),
    Code.TOO_LARGE: (True, "the index states too many pixels"),
    Code.MARKERS: (True, "restart markers are wrong after {} good MCUs"),
    Code.DAMAGED: (True, "the data of MCU {} are damaged"),
    Code.BAD_MAP: (True, "the sample's box or size is not valid; build the shard again"),
}
_REASONS = {Code.TOO_LARGE: "too_large", Code.BAD_MAP: "bad_box"}


def failure(code: int, detail: int, where: str) -> RefitShardError:
    """The error for a sample's code.

    A FrameError is about the image, a ShardError about the labels or the file ``where``, a
    StorageError about the system, a UsageError about occluders or effects.
    """
    if code == Code.READ_FAILED:
        return explain(OSError(detail, os.strerror(detail)), where)
    if code == Code.NO_MEMORY:
        return StorageError(f"{where}: no memory for an image")
    if code == Code.BAD_CALL:
        return UsageError(
            f"an image has more than {MAX_PASTES} occluders, or one larger than 2^20 px or farther "
            "than 2^30 px from the image, or an effect outside its bounds"
        )
    of_image, said = _SAID[Code(code)]
    text = said.format(detail, width=detail >> 16, height=detail & 0xFFFF)
    if of_image:
        return FrameError(_REASONS.get(Code(code), "corrupt"), text)
    return ShardError(f"{where}: {text}")


@cache
def library() -> ctypes.CDLL:
    """The compiled library; the sizes of its types are checked against those above."""
    path = Path(__file__).parent / NAME
    if not path.exists():
        raise ImportError(f"{path} is missing; build it: python loaders/native/compiling.py")
    found = ctypes.CDLL(str(path))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "refit_open": (ctypes.c_void_p, [ctypes.c_int32]),
        "refit_close": (None, [ctypes.c_void_p]),
        "refit_read": (None, [ctypes.c_void_p, *(ctypes.c_int64, ctypes.c_int32, ctypes.c_int64)]),
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
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    dtypes = (READ, SAMPLE, CUT_OUT, PASTE, BATCH, SPAN, EFFECTS)
    if [found.refit_size(number) for number in range(len(dtypes))] != [
        dtype.itemsize for dtype in dtypes
    ]:
        raise ImportError(f"{path} is of another version; build it again")
    return found


def planes(jpeg: bytes, height: int, width: int, *, portable: bool = False) -> tuple[Bytes, Bytes]:
    """The decoded planes of a stored crop, for tests: luma (height, width), and Cb and Cr
    ((height + 1) // 2, (width + 1) // 2, 2).

    Raises:
        FrameError: the JPEG is damaged.
        ValueError: the JPEG is not of the form that a build writes.
    """
    detail = ctypes.c_int64()
    luma = np.zeros((height, width), np.uint8)
    chroma = np.zeros((-(-height // 2), -(-width // 2), 2), np.uint8)
    space = library().refit_open(1)
    code = library().refit_planes(
        *(space, jpeg + bytes(slack()), len(jpeg), height, width, portable),
        *(address(luma), address(chroma), ctypes.byref(detail)),
    )
    library().refit_close(space)
    if code == Code.NOT_OURS:
        raise ValueError("not a stored crop's JPEG")
    if code != Code.OK:
        raise failure(code, detail.value, "JPEG")
    return luma, chroma


def crc32c(data: bytes, *, portable: bool = False) -> int:
    """CRC-32C as the library computes it, for tests."""
    return int(library().refit_crc32c(data, len(data), portable))


def slack() -> int:
    """Number of bytes, of any value, that must follow a JPEG in memory."""
    return int(library().refit_size(7))


def has_avx2() -> bool:
    """True if the AVX2 code is used; results are the same without it."""
    return bool(library().refit_has_avx2())


def address(array: NDArray[Any]) -> int:
    """The address of an array's memory."""
    return int(array.ctypes.data)
