"""Finds the archives below a root and lists their members.

Archives are looked for in the root and in the folders directly below it, except folders that hold
frames themselves. Archives of videos are also looked for in the folders where the videos would be.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
from pyarrow import fs

from refit_shard.converter.archives.holdings import Archive, Archives, Packed
from refit_shard.converter.archives.index import as_table, load_list, save_list
from refit_shard.converter.archives.members import Listing, Stamp, changed
from refit_shard.converter.archives.names import COMPRESSED, SUFFIXES, compression
from refit_shard.converter.archives.tar import list_tar
from refit_shard.converter.archives.zip import list_zip
from refit_shard.converter.reading import patiently
from refit_shard.shards_spec.errors import (
    PassingError,
    ShardError,
    SourceError,
    StorageError,
    explain,
)
from refit_shard.shards_spec.names import MANIFEST, is_of_a_build
from refit_shard.shards_spec.storage.files import HEAD_BYTES, is_of_a_mac, mistaken_for
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.storage.paths import path_bytes

# Archives that are listed at a time. Listing is nearly all waiting, so more threads than cores
# help.
_THREADS = 16

OnBytes = Callable[[int, int], None]


def _entries(folder: Folder) -> tuple[list[str], list[tuple[str, int, int]]]:
    """The names of the folders directly in a folder, and (name, size, mtime_ns) of the archives in
    it; both sorted. A local folder that may not be listed has none.

    Raises:
        StorageError: the storage fails.
    """
    try:
        if folder.local is not None:
            found = patiently(lambda: list(_local_entries(folder.path)), folder.url)
        else:
            selector = fs.FileSelector(folder.path, allow_not_found=True)
            found = [
                (info.base_name, info.size if info.is_file else None, info.mtime_ns or 0)
                for info in folder.filesystem.get_file_info(selector)
            ]
    except OSError as error:
        if folder.local is None:
            raise explain(error, folder.url) from error
        found = []  # frames can still be read from a folder that may not be listed
    files = [(name, size, time) for name, size, time in found if size is not None]
    return (
        sorted(name for name, size, _ in found if size is None),
        sorted(file for file in files if _is_archive(file[0])),
    )


def _local_entries(path: str) -> Iterator[tuple[str, int | None, int]]:
    """(name, size, mtime_ns) of the archives and folders in a folder; a folder's size is None.

    Raises:
        SourceError: an archive's name is not UTF-8.
    """
    with os.scandir(path_bytes(path)) as scan:
        for one in scan:
            name = one.name.decode("utf-8", "replace")
            try:
                if one.is_dir():
                    yield name, None, 0
                elif _is_archive(name) and one.is_file():
                    if name.encode() != one.name:
                        where = f"{path}/{name}"
                        raise SourceError(f"{where}: its name is not UTF-8; rename the archive")
                    about = one.stat()
                    yield name, about.st_size, about.st_mtime_ns
            except OSError as error:  # deleted since it was listed, or a loop of links
                if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EACCES):
                    raise


def _is_archive(name: str) -> bool:
    ending = name.lower()
    return ending.endswith((*SUFFIXES, *COMPRESSED)) and not is_of_a_mac(name)


def find_archives(
    root: Folder, with_frames: Collection[str], deeper: Collection[str] = ()
) -> tuple[list[Stamp], list[str]]:
    """The archives in the root and in the folders directly below it, and the names of the root's
    folders.

    Args:
        root: the folder that is searched.
        with_frames: names of folders that hold frames themselves; they are not searched.
        deeper: paths of further folders that are searched.

    Raises:
        StorageError: the object store cannot be reached.
    """
    folders, files = _entries(root)
    stamps = [_stamp("", file) for file in files]
    near = [name for name in folders if not (name in with_frames or name.startswith("."))]
    for name in dict.fromkeys([*near, *sorted(filter(None, deeper))]):
        _, files = _entries(root.child(name))
        stamps += [_stamp(f"{name}/", file) for file in files]
    return [one for one in stamps if not _is_shard(root, one.path)], folders


def _stamp(folder: str, file: tuple[str, int, int]) -> Stamp:
    return Stamp(path=folder + file[0], size=file[1], mtime_ns=file[2])


def _is_shard(root: Folder, path: str) -> bool:
    """True if this tar is a shard of this package: shards may be stored below a root too."""
    folder, _, name = path.rpartition("/")
    if not is_of_a_build(name):
        return False
    beside = (root.child(folder) if folder else root).names()
    return MANIFEST in beside or name.removesuffix(".tar") + ".arrow" in beside


def open_archive(root: Folder, stamp: Stamp) -> Any:
    """The opened archive; its ``read_at(count, offset)`` may be called from several threads.

    Raises:
        PassingError: the storage fails, or the archive has changed since ``stamp`` was taken.
    """
    where = f"{root.url.rstrip('/')}/{stamp.path}"
    try:
        if root.local is not None:
            return patiently(lambda: _open_local(f"{root.path}/{stamp.path}", where, stamp), where)
        file = root.open(stamp.path)
    except PassingError:
        raise
    except StorageError as error:
        raise PassingError(str(error)) from error
    except PermissionError as error:
        raise PassingError(
            f"{where}: permission denied: make it readable, then run the same command again"
        ) from error
    except (ShardError, OSError) as error:  # a fault of the file itself: it was replaced or deleted
        raise changed(where) from error
    if file.size() != stamp.size:
        raise changed(where)
    return file


def _open_local(path: str, where: str, stamp: Stamp) -> Any:
    """The opened local archive.

    Raises:
        OSError: the archive cannot be opened.
        PassingError: the archive has changed since ``stamp`` was taken.
    """
    about = os.stat(path_bytes(path))
    is_file = stat.S_ISREG(about.st_mode)
    if not is_file or (about.st_size, about.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        raise changed(where)
    return pa.OSFile(path_bytes(path))


def _list(root: Folder, stamp: Stamp, on_bytes: Callable[[int], None]) -> Listing | None:
    """The members of an archive; None if the archive is compressed as a whole."""
    where = f"{root.url.rstrip('/')}/{stamp.path}"
    with closing(open_archive(root, stamp)) as file:
        head = bytes(file.read_at(HEAD_BYTES, 0)) if stamp.size else b""
        mistaken = mistaken_for(head)
        if mistaken is not None:
            raise SourceError(f"{where}: {mistaken}")
        if compression(head) is not None:
            return None
        list_members = list_zip if stamp.path.lower().endswith(".zip") else list_tar
        return list_members(file, where, stamp.size, on_bytes)


def list_archives(
    root: Folder,
    with_frames: Collection[str],
    kept: Folder,
    *,
    keep: bool,
    deeper: Collection[str] = (),
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Archives:
    """The archives below a root, with their members.

    Args:
        root: the folder of the frames.
        with_frames: names of the root's folders that hold frames themselves; they are not searched.
        kept: the folder of the saved lists of members.
        keep: True to save new lists there.
        deeper: paths of further folders that are searched, below those directly in the root.
        on_bytes: called with the bytes of archives that are listed so far, and their total.

    Raises:
        SourceError: an archive is damaged.
        StorageError: the storage failed, or a list cannot be written.
    """
    stamps, folders = find_archives(root, with_frames, deeper)
    readable = [one for one in stamps if one.path.lower().endswith(SUFFIXES)]
    compressed = [one.path for one in stamps if one not in readable]
    total, done = sum(one.size for one in readable), 0
    counting = threading.Lock()

    def table_of(stamp: Stamp) -> pa.RecordBatch | None:
        def on_piece(count: int) -> None:
            nonlocal done
            with counting:
                done += count
                on_bytes(done, total)

        table = load_list(kept, stamp)
        if table is not None:
            on_piece(stamp.size)
            return table
        listing = _list(root, stamp, on_piece)
        if listing is None:
            return None
        table = as_table(listing)
        if keep:
            kept.create()
            save_list(kept, stamp, table)
        return table

    pool = ThreadPoolExecutor(_THREADS)
    try:
        tables = list(pool.map(table_of, readable))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    compressed += [one.path for one, table in zip(readable, tables, strict=True) if table is None]
    listed = tuple(
        Archive(stamp, table)
        for stamp, table in zip(readable, tables, strict=True)
        if table is not None
    )
    return Archives(listed, tuple(sorted(compressed)), frozenset(folders))


def find_packed(
    root: Folder,
    paths: Sequence[str],
    kept: Folder,
    *,
    keep: bool = False,
    beside: bool = False,
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Packed:
    """The frames, or videos, that are members of archives.

    Args:
        root: the folder of the frames.
        paths: of all frames, below the root.
        kept: the folder of the saved lists of members.
        keep: True to save new lists there.
        beside: True if archives may be in the folders of these paths too.
        on_bytes: called with the bytes of archives that are listed so far, and their total.

    Raises:
        SourceError: an archive is damaged, or two members may be one frame.
        StorageError: the storage failed, or a list cannot be written.
    """
    distinct = list(dict.fromkeys(paths))
    parents = {path.rpartition("/")[0] for path in distinct}
    closed, deeper = ((), parents) if beside else (parents, ())
    archives = list_archives(root, closed, kept, keep=keep, deeper=deeper, on_bytes=on_bytes)
    packed = archives.find(distinct)
    for path, (first, second) in packed.twice.items():
        if not (archives.may_be_a_file(path) and _is_a_file(root, path)):
            raise SourceError(
                f"{root.url}: frame {path} may be {first} or {second}: keep one of the two "
                "archives below the root, or unpack the right one"
            )
    return packed


def _is_a_file(root: Folder, path: str) -> bool:
    try:
        return bool(root.filesystem.get_file_info(f"{root.path}/{path}").is_file)
    except OSError as error:
        raise explain(error, root.url) from error
