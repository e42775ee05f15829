"""Reads the orientation from EXIF."""

import struct
from itertools import pairwise

EXIF = b"Exif\0\0"  # the beginning of EXIF in a JPEG
_ORIENTATION, _SHORT = 0x0112, 3
_TYPES = range(1, 14)
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation(tiff: bytes) -> int | None:
    """Orientation, 1 to 8, in the first directory of EXIF; 1 if none is stated, None if the
    directory is damaged. ``tiff``: EXIF from its TIFF header on.
    """
    try:
        order = _ORDERS[tiff[:4]]
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        entries = [
            struct.unpack_from(order + "HHIHH", tiff, at + 2 + 12 * number)
            for number in range(count)
        ]
    except (KeyError, struct.error):
        return None
    if not entries or any(one[0] > two[0] for one, two in pairwise(entries)):
        return None
    stated = [entry for entry in entries if entry[0] == _ORIENTATION]
    if any(entry[1] not in _TYPES for entry in entries) or len(stated) > 1:
        return None
    if not stated:
        return 1
    _, kind, number, value, padding = stated[0]
    return value if (kind, number, padding) == (_SHORT, 1, 0) and 1 <= value <= 8 else None
