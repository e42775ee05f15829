"""Finds and opens the files of a source: a file itself, files of a folder, or members of a zip."""

import errno
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from refit_shard.shards_spec.errors import SourceError
from refit_shard.shards_spec.storage.files import is_of_a_mac

MAX_FILE_BYTES = 8 << 30
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_DAMAGE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError),
    *(EOFError, ValueError, zlib.error, lzma.LZMAError),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One file: ``path`` itself, or the ``member`` of the zip archive at ``path``.

    ``name``: the last part of its path. ``size``: bytes, unpacked.
    """

    path: Path
    name: str
    size: int
    member: str | None = None

    @property
    def where(self) -> str:
        """The file's name in errors."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file, opened for reading with ``seek``. A member is unpacked to a temporary file
        first.

        Raises:
            SourceError: the file is larger than MAX_FILE_BYTES, or the member is damaged.
        """
        if self.size > MAX_FILE_BYTES:
            raise SourceError(
                f"{self.where}: {self.size} bytes, more than the {MAX_FILE_BYTES} allowed"
            )
        if self.member is None:
            with self.path.open("rb") as stream:
                yield stream
            return
        with tempfile.TemporaryFile() as copy:
            with _archive(self.path, self.where) as archive, archive.open(self.member) as packed:
                shutil.copyfileobj(packed, copy, 1 << 20)
            copy.seek(0)
            yield copy


@contextmanager
def _archive(path: Path, where: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive; exceptions of damage become errors that name ``where``."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_DAMAGE, OSError) as error:
        # Damage can make zipfile seek to a negative offset (EINVAL); other errors are of the
        # storage.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise SourceError(f"{where}: damaged ({error}); download it again") from error


def find_file(path: Path) -> Found:
    """The file at a path."""
    return Found(path=path, name=path.name, size=path.stat().st_size)


def find_files(folder: Path, pattern: str) -> list[Found]:
    """The files of a folder that match a glob pattern, sorted by path, without files added by
    macOS.
    """
    paths = [path for path in folder.glob(pattern) if not is_of_a_mac(path.name)]
    return [find_file(path) for path in sorted(paths) if path.is_file()]


def find_members(path: Path, suffix: str) -> list[Found]:
    """The members of a zip archive whose names end with ``suffix``, sorted by name; empty if the
    file is not a zip.

    Raises:
        SourceError: the archive is damaged, or such a member occurs twice, is encrypted, or is
            compressed by another method than deflate.
    """
    if not zipfile.is_zipfile(path):
        return []
    with _archive(path, str(path)) as archive:
        infos = archive.infolist()
    found: dict[str, Found] = {}
    for info in infos:
        name = info.filename
        if not name.endswith(suffix) or is_of_a_mac(name):
            continue
        if name in found:
            raise SourceError(f"{path}: holds {name!r} twice; download it again")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise SourceError(
                f"{path}: {name}: encrypted, or not compressed by deflate; unpack the archive"
            )
        last = name.rpartition("/")[2]
        found[name] = Found(path=path, name=last, size=info.file_size, member=name)
    return [found[name] for name in sorted(found)]
