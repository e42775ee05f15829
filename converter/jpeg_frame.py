"""JPEG frames: damage of the image is refused, damage of the header around it is passed over."""

import simplejpeg

from converter.imread import Frame, as_imread, check_pixels
from converter.jpeg_header import Header, read_header
from shards_spec.errors import FrameError

_CMYK_COMPONENTS = 4


def _decode_strictly(data: bytes, components: int) -> Frame:
    """Decode as stored, (H, W, 3) RGB or (H, W, 4) CMYK; any warning of libjpeg is an error."""
    colours = "CMYK" if components == _CMYK_COMPONENTS else "RGB"
    try:
        frame: Frame = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise FrameError("corrupt", str(error)) from error
    return frame


def _decode_image(data: bytes, header: Header) -> tuple[bytes, Frame, str | None]:
    """A JPEG without faults, its pixels as stored, and what was wrong with the given one.

    Raises:
        FrameError: the image is damaged, or may be.
    """
    try:
        return data, _decode_strictly(data, header.components), None
    except FrameError as error:
        try:
            cleaned = header.cleaned(data)
            return cleaned, _decode_strictly(cleaned, header.components), header.warning
        except FrameError:
            raise error from None


def decode_jpeg(data: bytes) -> tuple[Frame, str | None]:
    """Decode to (H, W, 3) uint8 RGB with the pixels of ``cv2.imread``.

    Returns:
        The pixels, and which part of the header is damaged, None where it is sound.

    Raises:
        FrameError: the image is damaged, cut short, too large, or of a kind that is not read.
    """
    header = read_header(data)
    check_pixels(header.width, header.height)
    sound, frame, warning = _decode_image(data, header)
    if header.components == _CMYK_COMPONENTS or header.is_turned:
        frame = as_imread(sound)
    return frame, warning
