"""JPEG frames: damage of the image is refused, damage of the header around it is passed over."""

import simplejpeg

from converter.imread import Frame, as_imread, check_pixels
from converter.jpeg_entropy import check_scans
from converter.jpeg_header import Header, read_header
from shards_spec.errors import FrameError

_CMYK_COMPONENTS = 4
_UNUSUAL_SAMPLING = "Could not determine subsampling"  # what simplejpeg says of it


def _decode_strictly(data: bytes, components: int) -> Frame | None:
    """Decode as stored, (H, W, 3) RGB or (H, W, 4) CMYK; any warning of libjpeg is an error.

    Returns None where the image is whole and its sampling is one that simplejpeg does not read.
    """
    colours = "CMYK" if components == _CMYK_COMPONENTS else "RGB"
    try:
        frame: Frame = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        if _UNUSUAL_SAMPLING not in str(error):
            raise FrameError("corrupt", str(error)) from error
        check_scans(data, read_header(data))
        return None
    return frame


def _decode_image(data: bytes, header: Header) -> tuple[bytes, Frame | None, str | None]:
    """A JPEG without faults, its pixels as stored (None: not known), and what was amiss before.

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
    check_pixels(*header.size)
    sound, frame, warning = _decode_image(data, header)
    if frame is None or header.components == _CMYK_COMPONENTS or header.is_turned:
        frame = as_imread(sound)
    return frame, warning
