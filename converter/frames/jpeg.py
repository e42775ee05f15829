"""Decodes JPEG frames. Damage of the image is refused; damage of header parts that decide no pixel
is reported as a warning.
"""

import simplejpeg

from refit_shard.converter.frames.imread import Frame, as_imread, check_pixels
from refit_shard.converter.frames.jpeg_entropy import check_scans
from refit_shard.converter.frames.jpeg_header import APPLICATION_DATA, Header, read_header
from refit_shard.shards_spec.errors import FrameError

_CMYK_COMPONENTS = 4
_UNUSUAL_SAMPLING = "Could not determine subsampling"  # simplejpeg's error for unusual samplings


def _decode_strictly(data: bytes, components: int) -> Frame:
    """Decode as stored, (H, W, 3) RGB or (H, W, 4) CMYK; any warning of libjpeg is an error."""
    colours = "CMYK" if components == _CMYK_COMPONENTS else "RGB"
    try:
        frame: Frame = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    return frame


def _decode_image(data: bytes, header: Header) -> tuple[bytes, Frame | None, str | None]:
    """Check that the image is complete.

    Returns:
        A JPEG of the same image that decodes without a warning; its pixels as stored, None if only
        OpenCV can decode them; and the kind of damage in the header, None if there is none.

    Raises:
        FrameError: the image is or may be damaged.
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
        The pixels, and the kind of damage in the header, None if there is none.

    Raises:
        FrameError: the image is damaged, cut short, too large, or of an unsupported kind.
    """
    header = read_header(data)
    check_pixels(*header.size)
    sound, frame, warning = _decode_image(data, header)
    if frame is None or header.components == _CMYK_COMPONENTS or header.is_turned:
        frame = as_imread(sound)
    return frame, warning
