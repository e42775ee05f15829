"""JPEG frames: an image with damage is refused; damage in the rest of the header is ignored."""

import simplejpeg

from refit_shard.converter.frames.imread import Frame, as_imread, check_pixels
from refit_shard.converter.frames.jpeg_entropy import check_scans
from refit_shard.converter.frames.jpeg_header import APPLICATION_DATA, Header, read_header
from refit_shard.shards_spec.errors import FrameError

_CMYK_COMPONENTS = 4
_UNUSUAL_SAMPLING = "Could not determine subsampling"  # what simplejpeg says of it


def _decode_strictly(data: bytes, components: int) -> Frame:
    """Decode as stored, (H, W, 3) RGB or (H, W, 4) CMYK; any warning of libjpeg is an error."""
    colours = "CMYK" if components == _CMYK_COMPONENTS else "RGB"
    try:
        frame: Frame = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    return frame


def _decode_image(data: bytes, header: Header) -> tuple[bytes, Frame | None, str | None]:
    """Make sure that the image is whole.

    Returns:
        A JPEG of the same image that is read without a warning; its pixels as stored, None where
        OpenCV alone makes them; and what is wrong with the header, None if nothing is.

    Raises:
        FrameError: the image is damaged, or may be.
    """
    try:
        return data, _decode_strictly(data, header.components), None
    except FrameError as error:
        first = error
    if _UNUSUAL_SAMPLING in str(first):
        check_scans(data, header)
        return header.cleaned(data), None, header.fault
    try:
        cleaned = header.cleaned(data)
        frame = _decode_strictly(cleaned, header.components)
    except FrameError:
        raise first from None
    return cleaned, frame, header.fault or APPLICATION_DATA


def decode_jpeg(data: bytes) -> tuple[Frame, str | None]:
    """Decode to (H, W, 3) uint8 RGB with the pixels of ``cv2.imread``.

    Returns:
        The pixels, and which part of the header is damaged, None where it is sound.

    Raises:
        FrameError: the image is damaged, cut short, too large, or of a kind that is not read.
    """
    header = read_header(data)
    check_pixels(*header.size)
    sound, frame, warning = _decode_image(data, header)
    if frame is None or header.components == _CMYK_COMPONENTS or header.is_turned:
        frame = as_imread(sound)
    return frame, warning
