"""Finding the archives below a root, and listing what they hold.

Archives lie in the root or in a folder directly below it, unless that folder holds frames itself.
Those of videos also lie where the videos would.
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

# Archives that are listed at a time: nearly all of it is waiting.
_THREADS = 16

OnBytes = Callable[[int, int], None]


def _entries(folder: Folder) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Folders and archives directly in a folder, sorted: names; sizes and times of archives.

    Raises:
        StorageError: the storage fails. A folder that may not be listed has none.
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
        found = []  # true of the folder itself, whose frames may be read all the same
    files = [(name, size, time) for name, size, time in found if size is not None]
    return (
        sorted(name for name, size, _ in found if size is None),
        sorted(file for file in files if _is_archive(file[0])),
    )


def _local_entries(path: str) -> Iterator[tuple[str, int | None, int]]:
    """Name, size and time of archives in a folder, and its folders, which have no size.

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
            except OSError as error:  # deleted meanwhile, or a link that leads in a circle
                if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EACCES):
                    raise


def _is_archive(name: str) -> bool:
    ending = name.lower()
    return ending.endswith((*SUFFIXES, *COMPRESSED)) and not is_of_a_mac(name)


def find_archives(
    root: Folder, with_frames: Collection[str], deeper: Collection[str] = ()
) -> tuple[list[Stamp], list[str]]:
    """Archives in the root and in folders directly below it; and the root's folders.

    ``with_frames``: names of folders that hold frames themselves, which are not looked into.
    ``deeper``: paths of further folders, which are.

    Raises:
        StorageError: the object store cannot be asked.
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
    """Whether this is a tar of our own: shards may lie below a root too."""
    folder, _, name = path.rpartition("/")
    if not is_of_a_build(name):
        return False
    beside = (root.child(folder) if folder else root).names()
    return MANIFEST in beside or name.removesuffix(".tar") + ".arrow" in beside


def open_archive(root: Folder, stamp: Stamp) -> Any:
    """An archive to read, ``read_at(count, offset)`` by any number of threads.

    Raises:
        PassingError: its storage fails, or it is not the one of the stamp.
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
    except (ShardError, OSError) as error:  # true of the file itself: it is another one, or gone
        raise changed(where) from error
    if file.size() != stamp.size:
        raise changed(where)
    return file


def _open_local(path: str, where: str, stamp: Stamp) -> Any:
    """A local archive, if it is still the one of the stamp.

    Raises:
        OSError: it cannot be opened.
        PassingError: it is another one.
    """
    about = os.stat(path_bytes(path))
    is_it = stat.S_ISREG(about.st_mode)
    if not is_it or (about.st_size, about.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        raise changed(where)
    return pa.OSFile(path_bytes(path))


def _list(root: Folder, stamp: Stamp, on_bytes: Callable[[int], None]) -> Listing | None:
    """What an archive holds; None where it is compressed as a whole."""
    where = f"{root.url.rstrip('/')}/{stamp.path}"
    with closing(open_archive(root, stamp)) as file:
        head = bytes(file.read_at(HEAD_BYTES, 0)) if stamp.size else b""
        mistaken = mistaken_for(head)
        if mistaken is not None:
            raise SourceError(f"{where}: {mistaken}")
        if compression(head) is not None:
            return None
        how = list_zip if stamp.path.lower().endswith(".zip") else list_tar
        return how(file, where, stamp.size, on_bytes)


def list_archives(
    root: Folder,
    with_frames: Collection[str],
    kept: Folder,
    *,
    keep: bool,
    deeper: Collection[str] = (),
    on_bytes: OnBytes = lambda _done, _total: None,
) -> Archives:
    """The archives below a root and what they hold.

    Args:
        root: of the frames.
        with_frames: names of its folders that hold frames themselves.
        kept: the folder where lists are kept.
        keep: whether new ones go there.
        deeper: paths of further folders with archives, below those directly in the root.
        on_bytes: hears how many bytes of archives were passed, of how many.

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
    """Which frames, or videos, lie in archives; for the other arguments see :func:`list_archives`.

    ``paths``: of all of them, below the root. ``beside``: whether archives may lie in the folders
    of these paths too.

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
