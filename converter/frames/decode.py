"""Decodes frames to the pixels of ``cv2.imread``, except that damaged files are refused.

Gray becomes three channels, EXIF orientation is applied, CMYK is converted, alpha is dropped,
16 bits become 8. The size in the header is checked before any pixel is decoded.
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from refit_shard.converter.frames import jpeg_header, png
from refit_shard.converter.frames.imread import Frame, as_imread, check_pixels
from refit_shard.converter.frames.jpeg import decode_jpeg
from refit_shard.shards_spec.errors import FrameError

LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Decoded:
    """A decoded frame.

    ``pixels``: (H, W, 3) uint8 RGB. ``warning``: if the file is damaged outside of the image, a
    short text for the kind of damage, the same for all such files; else None.
    """

    pixels: Frame
    warning: str | None = None


def _other(data: bytes) -> Frame:
    """Decode a format other than JPEG and PNG. Pillow reads the header first, for the size."""
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
    except MemoryError:  # says nothing about the frame
        raise
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise FrameError("corrupt", f"unreadable header ({error})") from error
    check_pixels(image.width, image.height)
    return as_imread(data)


def decode_frame(data: bytes) -> Decoded:
    """Decode the bytes of any image file; the format is recognised by the content.

    Raises:
        FrameError: not an image, damaged, cut short, too large, or of an unsupported kind.
    """
    if data.startswith(jpeg_header.SIGNATURE):
        return Decoded(*decode_jpeg(data))
    if data.startswith(png.SIGNATURE):
        return Decoded(png.decode_png(data))
    return Decoded(_other(data))
