"""Cut-outs from where users have them: ReFit's pickle, or a Pascal VOC 2012 folder.

The pickle is read by an unpickler that can make nothing but plain lists, numbers and numpy arrays:
the few names that such a file needs are stood in for by the classes here, which check sizes before
memory is taken, and every other name is refused.
"""

import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from loaders.occluders import MAX_SIDE
from shards_spec.errors import SourceError, UsageError

Image = NDArray[np.uint8]

MAX_PICKLE_BYTES = 4 << 30
MIN_OBJECT_PIXELS = 500
_SOFT_EDGE_PX = 8
_SOFT_EDGE_ALPHA = 192


class _Dtype:
    """Stands in for numpy.dtype: only plain bytes are admitted."""

    def __init__(self, code: object, *_flags: object) -> None:
        if code not in ("u1", "|u1", "uint8"):
            raise SourceError(f"an array of {code!r:.40}; occluders are uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment mean nothing for bytes."""


class _Array:
    """Stands in for numpy.ndarray and for joblib's wrapper of one."""

    def __init__(self, *_arguments: object) -> None:
        self.shape: tuple[int, ...] = ()
        self.fortran = False
        self.data = b""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):  # joblib's wrapper; its bytes follow in the file
            self._check(state.get("shape"), state.get("dtype"))
            self.fortran = state.get("order") == "F"
            self.aligned = state.get("numpy_array_alignment_bytes") is not None
            return
        if not isinstance(state, tuple) or len(state) != 5:
            raise SourceError("an array whose state is not numpy's")
        _, shape, dtype, fortran, data = state
        self._check(shape, dtype)
        if not isinstance(data, bytes) or len(data) != math.prod(self.shape):
            raise SourceError("an array whose bytes do not fit its shape")
        self.fortran, self.data = bool(fortran), data

    def _check(self, shape: object, dtype: object) -> None:
        if not isinstance(dtype, _Dtype):
            raise SourceError("an array without a plain dtype")
        if (
            not isinstance(shape, tuple)
            or len(shape) != 3
            or shape[2] != 4
            or not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in shape)
        ):
            raise SourceError(f"an array of shape {shape!r:.40}; occluders are (H, W, 4)")
        self.shape = shape

    def read(self, stream: io.BufferedReader) -> None:
        """Take the bytes that joblib wrote behind the wrapper."""
        if self.aligned:
            stream.read(stream.read(1)[0])
        self.data = stream.read(math.prod(self.shape))
        if len(self.data) != math.prod(self.shape):
            raise SourceError("the file ends within an array")

    def image(self) -> Image:
        """The array itself."""
        order = "F" if self.fortran else "C"
        flat = np.frombuffer(self.data, np.uint8)
        return np.ascontiguousarray(flat.reshape(self.shape, order=cast(Any, order)))


class _JoblibArray(_Array):
    """joblib's NumpyArrayWrapper."""


def _reconstruct(*_arguments: object) -> _Array:
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    """How protocol 5 writes arrays."""
    plain = bytes(data) if isinstance(data, (bytes, bytearray)) else data
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", plain))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """How old pickle protocols write bytes."""
    if encoding != "latin1":
        raise SourceError(f"bytes encoded as {encoding!r:.40}")
    return text.encode("latin1")


class _Reader(pickle._Unpickler):
    """Admits arrays and nothing else."""

    _ADMITTED: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _frombuffer,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("_codecs", "encode"): _encode,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _JoblibArray,
    }
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__(stream)
        self._stream = stream

    def find_class(self, module: str, name: str) -> Any:
        """One of the stand-ins; anything else is refused unrun."""
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise SourceError(
                f"it asks for {module}.{name}, which a list of occluders has no need of"
            ) from None

    def _build(self) -> None:
        plain = cast(Any, self)
        pickle._Unpickler.dispatch[pickle.BUILD[0]](plain)
        top = plain.stack[-1]
        if isinstance(top, _JoblibArray):
            top.read(self._stream)

    dispatch[pickle.BUILD[0]] = _build


def read_pickle(path: Path) -> list[Image]:
    """The (H, W, 4) uint8 cut-outs of ReFit's ``pascal_occluders.pkl`` (joblib's or plain).

    Raises:
        UsageError: no such file.
        SourceError: it holds anything but a list of such arrays; nothing of it was run.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise SourceError(f"{path}: more than {MAX_PICKLE_BYTES} bytes")
    with path.open("rb") as stream:
        try:
            found = _Reader(stream).load()
        except SourceError as error:
            raise SourceError(f"{path}: refused: {error}") from error
        except Exception as error:  # a damaged pickle fails in many ways
            raise SourceError(f"{path}: not a pickle of occluders ({error})") from error
    if not isinstance(found, (list, tuple)) or not found:
        raise SourceError(f"{path}: must hold a list of arrays")
    if not all(isinstance(one, _Array) and one.data for one in found):
        raise SourceError(f"{path}: must hold a list of (H, W, 4) arrays and nothing else")
    return [one.image() for one in found]


def _wanted_objects(annotation: Path) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Number and box of the objects of one VOC annotation that can serve as occluders."""
    root = ElementTree.parse(annotation).getroot()
    if root.findtext("segmented") != "1":
        return []
    wanted = []
    for number, item in enumerate(root.findall("object"), start=1):
        if item.findtext("name") == "person" or "1" in (
            item.findtext("difficult"),
            item.findtext("truncated"),
        ):
            continue
        sides = [item.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = (int(float(side)) for side in sides)
        wanted.append((number, (x0, y0, x1, y1)))
    return wanted


def _cut_out(image: Image, mask: Image) -> Image:
    """RGBA at half size; the outermost pixels are made softer, so that no hard edge is pasted."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SOFT_EDGE_PX, _SOFT_EDGE_PX))
    inner = cv2.erode(mask, kernel)
    alpha = np.where((mask > 0) & (inner == 0), np.uint8(_SOFT_EDGE_ALPHA), mask)
    rgba = np.dstack([image, alpha])
    size = max(1, round(rgba.shape[1] / 2)), max(1, round(rgba.shape[0] / 2))
    return np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_voc(folder: Path) -> Iterator[Image]:
    """Cut-outs from a Pascal VOC 2012 folder: segmented, whole, easy objects that are no people.

    Raises:
        UsageError: the folder is not laid out as VOC2012.
        SourceError: a file in it is damaged.
    """
    for name in ("Annotations", "JPEGImages", "SegmentationObject"):
        if not (folder / name).is_dir():
            raise UsageError(f"--voc {folder}: has no folder {name}; give VOC2012 itself")
    for annotation in sorted((folder / "Annotations").glob("*.xml")):
        try:
            wanted = _wanted_objects(annotation)
        except (ElementTree.ParseError, ValueError) as error:
            raise SourceError(f"{annotation}: damaged ({error})") from error
        if not wanted:
            continue
        picture = folder / "JPEGImages" / f"{annotation.stem}.jpg"
        labels = folder / "SegmentationObject" / f"{annotation.stem}.png"
        try:
            with PillowImage.open(picture) as opened:
                image = np.asarray(opened.convert("RGB"))
            with PillowImage.open(labels) as opened:
                segments = np.asarray(opened)
        except OSError as error:
            raise SourceError(f"{annotation.stem}: {error}") from error
        for number, (x0, y0, x1, y1) in wanted:
            part = segments[y0:y1, x0:x1]
            mask = np.where(part == number, np.uint8(255), np.uint8(0))
            if np.count_nonzero(mask) >= MIN_OBJECT_PIXELS:
                yield _cut_out(image[y0:y1, x0:x1], mask)
