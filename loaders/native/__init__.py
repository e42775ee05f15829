"""Reading and drawing whole batches in compiled code, without the interpreter's lock.

:class:`Reader` reads and checks samples of tars, :class:`Drawer` makes their images. Both work
through a batch by native threads, and give each sample a code: 0, or what is wrong with it, which
:func:`failure` turns into an error. The C++ sources lie in ``source/``.

The result is the same to the bit on any processor and with any number of threads.
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
