"""Reads untrusted pickles, for data that exist in no other format.

This unpickler can create only plain containers, numbers, strings and arrays of numbers. The few
classes that such files name are replaced by those below, which check sizes before memory is
allocated. Every other name is refused, and no code of the file is run.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.files import refuse_mistaken

MAX_PICKLE_BYTES = 4 << 30
_CODES = frozenset(
    prefix + code
    for prefix in ("", "|", "<", "=")
    for code in ("u1", "i1", "b1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
)


class PlainDtype:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, code: object, *_flags: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if text not in _CODES:
            raise SourceError(f"an array of {code!r:.40}; only numbers are read")
        self.dtype = np.dtype(str(text))

    def __setstate__(self, state: object) -> None:
        """Check the byte order, which must be little-endian."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", b">"):
            raise SourceError("a big-endian array")


class PlainArray:
    """Stands in for numpy.ndarray and for joblib's wrapper of one."""

    def __init__(self, *_arguments: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = np.dtype("u1")
        self.fortran = False
        self.aligned = False
        self.data: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):  # joblib's wrapper; its bytes follow in the file
            self._describe(state.get("shape"), state.get("dtype"))
            self.fortran = state.get("order") == "F"
            self.aligned = state.get("numpy_array_alignment_bytes") is not None
            return
        if not isinstance(state, tuple) or len(state) != 5:
            raise SourceError("an array whose state is not numpy's")
        _, shape, dtype, fortran, data = state
        self._describe(shape, dtype)
        if isinstance(data, str):
            data = data.encode("latin1")
        if not isinstance(data, bytes) or len(data) != self.size:
            raise SourceError("an array whose bytes do not fit its shape")
        self.fortran, self.data = bool(fortran), data

    def _describe(self, shape: object, dtype: object) -> None:
        if not isinstance(dtype, PlainDtype):
            raise SourceError("an array without a plain dtype")
        if not isinstance(shape, tuple) or not all(
            isinstance(side, int) and 0 <= side < 2**31 for side in shape
        ):
            raise SourceError(f"an array of shape {shape!r:.40}")
        self.shape, self.dtype = shape, dtype.dtype
        if self.size > MAX_PICKLE_BYTES:
            raise SourceError(f"an array of shape {shape!r:.40}")

    def read(self, stream: BinaryIO) -> None:
        """Read the array's bytes, which joblib writes after the wrapper."""
        if self.aligned:
            stream.read(stream.read(1)[0])
        self.data = stream.read(self.size)
        if len(self.data) != self.size:
            raise SourceError("the file ends within an array")

    def array(self) -> NDArray[Any]:
        """The array in numpy's form.

        Raises:
            SourceError: the pickle did not fill it.
        """
        if self.data is None:
            raise SourceError("an array without data")
        order: Any = "F" if self.fortran else "C"
        flat = np.frombuffer(self.data, self.dtype)
        return np.ascontiguousarray(flat.reshape(self.shape, order=order))


class JoblibArray(PlainArray):
    """joblib's NumpyArrayWrapper."""


def _reconstruct(*_arguments: object) -> PlainArray:
    return PlainArray()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> PlainArray:
    """The function by which protocol 5 describes arrays."""
    plain = bytes(data) if isinstance(data, (bytes, bytearray)) else data
    array = PlainArray()
    array.__setstate__((1, shape, dtype, order == "F", plain))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """The function by which old pickle protocols describe bytes."""
    if encoding != "latin1":
        raise SourceError(f"bytes encoded as {encoding!r:.40}")
    return text.encode("latin1")


Admitted = Mapping[tuple[str, str], Any]

ARRAYS: Admitted = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainDtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): JoblibArray,
}


class _Reader(pickle._Unpickler):
    """An unpickler that accepts the given names and no others."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: BinaryIO, admitted: Admitted) -> None:
        super().__init__(stream, encoding="latin1")
        self._stream = stream
        self._admitted = admitted

    def find_class(self, module: str, name: str) -> Any:
        """The replacement class for a name; an error for any other name."""
        try:
            return self._admitted[module, name]
        except KeyError:
            raise SourceError(
                f"it asks for {module}.{name}, which such a file does not need"
            ) from None

    def _build(self) -> None:
        plain = cast(Any, self)
        pickle._Unpickler.dispatch[pickle.BUILD[0]](plain)
        top = plain.stack[-1]
        if isinstance(top, JoblibArray):
            top.read(self._stream)

    dispatch[pickle.BUILD[0]] = _build


def read_plain_pickle(path: Path, admitted: Admitted = ARRAYS) -> Any:
    """The content of a pickle, with a :class:`PlainArray` for each array.

    Args:
        path: of the file.
        admitted: the names that the pickle may use, with what replaces them.

    Raises:
        UsageError: no such file.
        SourceError: as :func:`read_plain_stream`.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise SourceError(f"{path}: more than {MAX_PICKLE_BYTES} bytes")
    with path.open("rb") as stream:
        return read_plain_stream(stream, str(path), admitted)


def read_plain_stream(stream: BinaryIO, where: str, admitted: Admitted = ARRAYS) -> Any:
    """The content of a pickle in an open file; see :func:`read_plain_pickle`. ``where``: name of
    the file, for errors.

    Raises:
        SourceError: the pickle uses a name that is not admitted, or is damaged. No code was run.
    """
    refuse_mistaken(stream, where)
    try:
        return _Reader(stream, admitted).load()
    except SourceError as error:
        raise SourceError(f"{where}: refused: {error}") from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise SourceError(f"{where}: not a plain pickle ({error})") from error
