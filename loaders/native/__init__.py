"""Reads and draws whole batches in compiled code, without the interpreter's lock.

:class:`Reader` reads samples from tars and checks them; :class:`Drawer` draws their images. Both
process a batch in native threads and return a code for each sample: 0, or a fault that
:func:`failure` converts to an error. The C++ sources are in ``source/``.

Results are bit-identical on every processor and with any number of threads.
"""

from refit_shard.loaders.native.drawing import CutOuts, Drawer
from refit_shard.loaders.native.interface import (
    EFFECTS,
    MAX_RADIUS,
    PASTE,
    Code,
    ImageKind,
    crc32c,
    failure,
    has_avx2,
    planes,
    slack,
)
from refit_shard.loaders.native.reading import Jpegs, Read, Reader

__all__ = [
    "EFFECTS",
    "MAX_RADIUS",
    "PASTE",
    "Code",
    "CutOuts",
    "Drawer",
    "ImageKind",
    "Jpegs",
    "Read",
    "Reader",
    "crc32c",
    "failure",
    "has_avx2",
    "planes",
    "slack",
]
