"""Own labels: which arrays of an npz are stored in the shards, and how each moves with its image.

``NAME[:MOTION[=TABLE]][:float64]`` declares one array: ``contact``, ``smplx_pose``,
``ears:points2d=flip.json``. A TABLE is a name of :data:`TABLES` or a JSON file with the permutation
of a mirror.
"""

import json
import math
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit_shard.converter.annotations.npz import Npz
from refit_shard.converter.annotations.spool import Spool
from refit_shard.shards_spec.errors import RefitShardError, SourceError, UsageError
from refit_shard.shards_spec.fields import (
    DTYPES,
    STRING,
    Field,
    is_own_name,
    npy_dtype,
    npy_header,
    too_large,
)
from refit_shard.shards_spec.own import KINDS, STILL, TABLES, Motion, Table, check_flip
from refit_shard.shards_spec.storage.paths import local_path

_WIDE = "float64"
_MAX_TABLE_BYTES = 1 << 20
_MAX_HEADER = 10_000  # numpy's default limit for the header of a .npy
# The default motion of labels with these names.
_BY_NAME = {
    "smpl_pose": "axis_angle=smpl",
    "smplh_pose": "axis_angle=smplh",
    "smplx_pose": "axis_angle=smplx",
    "mano_pose": "axis_angle=mano",
}
_FORM = (
    "must be NAME[:MOTION[=TABLE]][:float64], MOTION one of "
    f"{', '.join(KINDS)}, TABLE one of {', '.join(TABLES)} or a JSON file"
)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """One array of an npz that is stored as an own label.

    ``kind``, ``table``: of its :class:`Motion`. ``wide``: True to store float64 as it is instead of
    as float32.
    """

    name: str
    kind: str = "none"
    table: Table | None = None
    wide: bool = False

    def motion(self, dtype: str, shape: tuple[int, ...], where: str) -> Motion:
        """The motion for rows of this dtype and shape. ``where``: the label, for errors.

        Raises:
            SourceError: the motion is not possible for such rows.
        """
        table = self.table
        if table is None and self.kind != "none":
            points = self.kind.startswith("points") and math.prod(shape[:-1]) == 1
            if not points:
                raise SourceError(
                    f"{where}: {self.kind} needs a table of what a mirror exchanges: "
                    f"{self.kind}=TABLE, TABLE one of {', '.join(TABLES)} or a JSON file with a "
                    "permutation"
                )
            table = Table(flip=(0,))
        if table is None:
            return STILL
        roots = table.roots if self.kind == "axis_angle" else ()
        motion = Motion(kind=self.kind, flip=table.flip, roots=roots)
        misfit = motion.misfit(dtype, shape)
        if misfit:
            raise SourceError(f"{where}: {misfit}")
        return motion


def parse_keeps(texts: Iterable[str], base: str | Path = ".") -> tuple[Keep, ...]:
    """Parse declarations. A text may hold several, separated by commas. Paths of JSON files are
    relative to ``base``.

    Raises:
        UsageError: a declaration does not have the required form, or a label is declared twice.
    """
    listed = [one.strip() for text in texts for one in text.split(",")]
    keeps = tuple(_parse(text, base) for text in listed)
    names = [keep.name for keep in keeps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"keep: {twice!r} is declared twice; leave one out")
    return keeps


def those_there(keeps: Sequence[Keep], npzs: Sequence[str]) -> list[tuple[Keep, ...]]:
    """For each npz, the wanted labels that it contains. If there is only one npz, all of them are
    returned, because it must have them all.

    For a file that cannot be read all are returned too; the build then reports what is wrong.

    Raises:
        UsageError: none of several files has one of the labels.
    """
    if len(npzs) < 2 or not keeps:
        return [tuple(keeps)] * len(npzs)
    found = []
    for path in npzs:
        try:
            with closing(Npz(path)) as npz:
                found.append(tuple(keep for keep in keeps if keep.name in npz.entries))
        except RefitShardError:
            found.append(tuple(keeps))
    lost = next((keep.name for keep in keeps if all(keep not in one for one in found)), None)
    if lost is not None:
        raise UsageError(f"keep {lost!r}: no npz of these datasets has it: {', '.join(npzs)}")
    return found


def _parse(text: str, base: str | Path) -> Keep:
    name, *said = text.split(":")
    wide = _WIDE in said
    said = [one for one in said if one != _WIDE]
    kind, equals, table = (said or [_BY_NAME.get(name, "none")])[0].partition("=")
    if not name or len(said) > 1 or kind not in KINDS or bool(equals) != bool(table):
        raise UsageError(f"keep {text!r:.80}: {_FORM}")
    if kind == "none" and table:
        raise UsageError(f"keep {text!r:.80}: the motion none takes no TABLE")
    if not is_own_name(name):
        raise UsageError(
            f"keep {name!r:.80}: not a possible name of an own label: it must be of letters, "
            "digits and _, not begin with has_, and not be a standard key of an npz, a shard or "
            "a batch; save the array under another name"
        )
    found = _table(table, base, f"keep {text!r:.80}") if table else None
    return Keep(name=name, kind=kind, table=found, wide=wide)


def _table(name: str, base: str | Path, where: str) -> Table:
    if name in TABLES:
        return TABLES[name]
    path = Path(base) / local_path(name, where)
    if path.exists() and not path.is_file():
        raise UsageError(f"{where}: {path}: not a regular file")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{where}: {path}: {error.strerror}; a TABLE is one of {', '.join(TABLES)}, or a JSON "
            "file with a permutation"
        ) from error
    try:
        content = json.loads(data[:_MAX_TABLE_BYTES])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: {path}: not JSON ({error})") from error
    return Table(flip=check_flip(content, f"{where}: {path}"))


class Kept:
    """The own labels of an npz: their ``fields``, and the values of each row in a :class:`Spool`.
    Thread-safe.
    """

    def __init__(self, fields: Sequence[Field] = (), spools: Sequence[Spool] = ()) -> None:
        self.fields = tuple(fields)
        self._spools = tuple(spools)
        self._lock = threading.Lock()

    def take(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The labels of the rows (n,), by name: arrays (n, …), strings as UTF-8.

        Raises:
            StorageError: the disk with the temporary file fails.
        """
        found = {}
        for one, spool in zip(self.fields, self._spools, strict=True):
            with self._lock:
                values = spool.take(rows)[one.name]
            found[one.name] = _utf8(values, one.width) if one.dtype == STRING else values
        return found


def read_kept(npz: Npz, keeps: Sequence[Keep], total: int, rows: int) -> Kept:
    """Read the own labels of the first ``rows`` of ``total`` rows.

    NaN is kept, because only the user knows what it means in an own label.

    Raises:
        SourceError: a label is missing, or has a dtype or shape that a shard cannot hold.
        StorageError: there is no space in the folder for temporary files.
    """
    found = [_read(npz, keep, total, rows) for keep in keeps]
    return Kept([one for one, _ in found], [spool for _, spool in found])


def _read(npz: Npz, keep: Keep, total: int, rows: int) -> tuple[Field, Spool]:
    where = f"{npz.path}: kept label {keep.name!r}"
    if keep.name not in npz.entries:
        found = ", ".join(npz.entries) or "none"
        raise SourceError(
            f"{where}: is missing; found: {found}; save it in the npz, or leave it out of keep"
        )
    entry = npz.entries[keep.name]
    if entry.shape[:1] != (total,):
        raise SourceError(f"{where}: must have {total} rows like 'imgname', got {entry.shape}")
    shape, text = entry.shape[1:], entry.dtype.kind in "US"
    if 0 in shape or len(shape) > 8 or (text and shape):
        raise SourceError(f"{where}: a row of shape {shape} of {entry.dtype} cannot be kept")
    stored = _stored(entry.dtype, where, wide=keep.wide)
    spool, width, begin = Spool(np.dtype([(keep.name, stored, shape)])), 1, 0
    for part in npz.slices(keep.name, npz.rows_at_a_time([keep.name])):
        some = part[: max(0, rows - begin)]
        if text and len(some):
            width = max(width, _longest(some, begin, where))
        records = np.empty(len(some), spool.dtype)
        with np.errstate(over="ignore"):
            records[keep.name] = some
        spool.append(records)
        begin += len(part)  # rows beyond the limit are read to verify the checksum
    dtype = STRING if text else stored.name
    motion = keep.motion(dtype, shape, where)
    made = Field(
        name=keep.name,
        dtype=dtype,
        shape=shape,
        width=width if text else 0,
        doc="own label",
        motion=motion,
    )
    return made, spool


def _stored(dtype: np.dtype[Any], where: str, *, wide: bool) -> np.dtype[Any]:
    """The dtype in which an array's values are stored: strings as they are, float64 as float32
    unless ``wide``, other numbers as they are.
    """
    if dtype.kind in "US":
        size = max(1, dtype.itemsize // (4 if dtype.kind == "U" else 1))
        return np.dtype(f"{dtype.kind}{size}")
    if dtype.hasobject:
        return np.dtype(np.uint8)  # any: reading the array raises an error
    if dtype.name not in DTYPES:
        raise SourceError(f"{where}: must be numbers or strings, got {dtype}")
    return np.dtype("float32" if dtype.name == _WIDE and not wide else dtype.name)


def _longest(texts: NDArray[Any], begin: int, where: str) -> int:
    """Bytes of the longest of these strings as UTF-8. ``begin``: row of the first one, for errors.

    Raises:
        SourceError: a string is not valid UTF-8.
    """
    longest = 0
    for row, value in enumerate(texts.tolist(), begin):
        try:
            data = value if isinstance(value, bytes) else value.encode()
            data.decode()
        except UnicodeError as error:  # a numpy string may contain half a surrogate pair
            raise SourceError(f"{where}: row {row}: {value!r:.80} is not UTF-8") from error
        longest = max(longest, len(data))
    return longest


def _utf8(texts: NDArray[Any], width: int) -> NDArray[np.bytes_]:
    """Strings as their UTF-8 bytes."""
    data = [text if isinstance(text, bytes) else text.encode() for text in texts.tolist()]
    return np.array(data, f"S{width}")


def check_columns(fields: Sequence[Field], where: str) -> None:
    """Check that a shard's record can hold all columns.

    Raises:
        SourceError: there are too many labels, or too large ones; the error states the limit.
    """
    size = len(npy_header(npy_dtype(fields)))
    wrong = too_large(fields) or (
        f"their names and shapes take {size} bytes in a .npy's header, more than {_MAX_HEADER}"
        if size > _MAX_HEADER
        else ""
    )
    if wrong:
        raise SourceError(f"{where}: too many labels are kept: {wrong}; keep fewer")
