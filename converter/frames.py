"""Frames as ``cv2.imread`` gives them, but never half a frame: damaged files are refused.

Gray becomes three channels, EXIF orientation is applied, CMYK is converted, alpha is dropped,
16 bits become 8. The header is looked at before any pixel is decoded.
"""

import io
import warnings

import cv2
import numpy as np
import pyspng
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shards_spec.errors import FrameError

MAX_PIXELS = 128 << 20
LFS_POINTER = b"version https://git-lfs"
EXIF_ORIENTATION = 0x0112

Frame = NDArray[np.uint8]


def _header(data: bytes) -> Image.Image:
    """The image's header; Pillow decodes no pixel before it is asked to."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if data.startswith(LFS_POINTER):
            raise FrameError("lfs_pointer", "a Git LFS pointer; run `git lfs pull`") from None
        raise FrameError("not_an_image", f"begins with {data[:16]!r}") from None
    except Image.DecompressionBombError as error:
        raise FrameError("too_large", str(error)) from error
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise FrameError("corrupt", f"unreadable header ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        raise FrameError(
            "too_large", f"{image.width}x{image.height} px, the limit is {MAX_PIXELS} pixels"
        )
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF: cv2 ignores it too
        return 1


def _as_imread(data: bytes) -> Frame:
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise FrameError("corrupt", str(error)) from error
    if frame is None:
        raise FrameError("corrupt", "the image cannot be decoded")
    return np.asarray(frame, np.uint8)


def _decode_jpeg(data: bytes, image: Image.Image) -> Frame:
    plain = image.mode in ("RGB", "L")
    try:
        frame: Frame = simplejpeg.decode_jpeg(data, "RGB" if plain else "CMYK", strict=True)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    if plain and _orientation(image) == 1:
        return frame
    return _as_imread(data)


def _decode_png(data: bytes, image: Image.Image) -> Frame:
    if image.mode == "RGB" and not image.info.keys() & {"exif", "transparency", "interlace"}:
        try:
            frame: Frame = pyspng.load(data)
        except RuntimeError as error:
            raise FrameError("corrupt", str(error)) from error
        if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
            return frame
    return _as_imread(data)


def decode_frame(data: bytes) -> Frame:
    """Decode any image file to (H, W, 3) uint8 RGB, by its content, whatever its name.

    Raises:
        FrameError: not an image, damaged, cut short, or too large.
    """
    image = _header(data)
    if image.format in ("JPEG", "MPO"):
        return _decode_jpeg(data, image)
    if image.format == "PNG":
        return _decode_png(data, image)
    return _as_imread(data)
