"""Hostile annotations: JSON, pickles, zips of npz; MATLAB, HDF5 and CDF files.

The project's code reads the first three in this process. Libraries read the others in separate
processes, because damaged files make them crash, loop or allocate any amount of memory; each of
these must become one error that names the file.
"""

import pickle
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.annotations import (
    bedlam_scene,
    eft_entry,
    sequence_3dpw,
    write_annot,
    write_cdf,
    write_eft,
    write_masks,
    write_npz,
    write_zip,
)
from refit_shard.converter.importers import bedlam, eft, h36m, mpi_inf_3dhp, pw3d
from refit_shard.converter.importers.apart import Task, read_apart
from refit_shard.converter.importers.found import find_file, find_members
from refit_shard.converter.importers.gathered import Gathered
from refit_shard.converter.importers.importer import Tools
from refit_shard.shards_spec.errors import RefitShardError, SourceError
from tests.hostile.batch import mutated, outcomes
from tests.searches import examples

TOOLS = Tools(smpl=Path("nowhere"))


def parse(path: Path) -> None:
    """Read a JSON file, pickle or zip as an import does."""
    last: RefitShardError = SourceError("nothing")
    for importer in (eft.IMPORTER, pw3d.IMPORTER, bedlam.IMPORTER):
        zipped = importer is bedlam.IMPORTER
        try:
            files = find_members(path, ".npz") if zipped else [find_file(path)]
            gathered = Gathered(dataset="any", on_bytes=lambda _: None)
            importer.read(files, gathered, TOOLS)
        except RefitShardError as error:
            last = error
        else:
            if gathered.rows:
                return
    raise last


def make_json(place: Path) -> bytes:
    """Annotations of EFT with two entries."""
    return write_eft(place / "e.json", [eft_entry(f"{i}.jpg", i) for i in range(2)]).read_bytes()


def make_pickle(_place: Path) -> bytes:
    """A sequence of 3DPW."""
    return pickle.dumps(sequence_3dpw(3, 2), protocol=2)


def make_zip(place: Path) -> bytes:
    """Two scenes of BEDLAM, in a zip as downloaded."""
    files = {f"{i}.npz": write_npz(place / f"{i}.npz", bedlam_scene(2, i)) for i in range(2)}
    return write_zip(place / "labels.zip", files, zipfile.ZIP_DEFLATED).read_bytes()


make_whole = make_pickle  # the first input of a guided search (make fuzz)


@pytest.mark.parametrize("make", [make_json, make_pickle, make_zip])
def test_any_damage_is_read_or_our_error(tmp_path: Path, make: Callable[[Path], bytes]) -> None:
    whole = make(tmp_path)
    cases = [*mutated(whole, 150, head=500), *mutated(whole[::-1], 150, seed=10**6, head=500)]
    turned = [case[::-1] if number >= 150 else case for number, case in enumerate(cases)]
    assert set(outcomes(__name__, whole, turned, tmp_path)) <= {"read", "SourceError"}


def annot(path: Path) -> str:
    """The outcome of reading an annot.mat."""
    return _ended(lambda: mpi_inf_3dhp.read_cameras(path))


def poses(path: Path) -> str:
    """The outcome of reading a CDF file."""
    return _ended(lambda: h36m.read_poses(path, 3))


def masks(path: Path) -> str:
    """The outcome of reading masks."""
    return _ended(lambda: list(h36m.read_masks(path)))


def _ended(read: Callable[[], object]) -> str:
    try:
        read()
    except SourceError:
        return "SourceError"
    return "read"


def ends(function: Callable[[Path], str], paths: Iterable[Path]) -> Counter[str]:
    """The number of files by outcome; "apart" if the process crashed or was killed."""
    counts: Counter[str] = Counter()
    left = deque(Task(function=function, arguments=(one,), where=one, size=1) for one in paths)
    while left:
        said = ""
        try:
            for _, ended in read_apart(left, workers=1, seconds=2, memory=1 << 30):
                counts[ended] += 1
                left.popleft()
        except SourceError as error:
            said = str(error)
        if left:
            assert str(left.popleft().where) in said
            counts["apart"] += 1
    return counts


def whole_of(kind: str, place: Path) -> tuple[Callable[[Path], str], bytes]:
    """The reader of a kind of file, and an undamaged file of that kind."""
    rng = np.random.default_rng(0)
    if kind in ("mat", "packed mat"):
        points = {c: rng.random((2, 56)) for c in range(9)}
        points_mm = {c: rng.random((2, 84)) for c in range(9)}
        packed = kind == "packed mat"
        path = write_annot(place, 1, 1, points, points_mm, do_compression=packed)
        return annot, path.read_bytes()
    if kind in ("cdf", "packed cdf"):
        path = write_cdf(place / "a.cdf", rng.random((3, 96)), 6 if kind == "packed cdf" else 0)
        return poses, path.read_bytes()
    return masks, write_masks(place / "m.mat", [np.eye(12, 10)] * 6).read_bytes()


@pytest.mark.parametrize("kind", ["mat", "packed mat", "cdf", "packed cdf", "masks"])
def test_any_damage_of_a_library_s_file_costs_an_error(tmp_path: Path, kind: str) -> None:
    function, whole = whole_of(kind, tmp_path)
    cases = [whole, *mutated(whole, examples(40), head=1200)]
    paths = [tmp_path / f"case{number}" for number in range(len(cases))]
    for path, data in zip(paths, cases, strict=True):
        path.write_bytes(data)
    counts = ends(function, paths)
    assert counts["read"] >= 1
    assert counts["SourceError"] + counts["apart"] >= 5
    assert ends(function, paths[:1]) == {"read": 1}


def test_cells_within_cells_without_end_cost_an_error(tmp_path: Path) -> None:
    """100,000 nested cells in a MATLAB file overflow scipy's stack."""
    depth = 100_000
    flags = b"\x06\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0"
    shape = b"\x05\0\0\0\x08\0\0\0\x01\0\0\0\x01\0\0\0"
    names = [b"\x01\0\0\0\x06\0\0\0annot2\0\0", *[b"\x01\0\0\0\0\0\0\0"] * (depth - 1)]
    bodies = [flags + shape + name for name in names]
    rest = sum(8 + len(body) for body in bodies)
    data = bytearray()
    for body in bodies:
        data += b"\x0e\0\0\0" + (rest - 8).to_bytes(4, "little") + body
        rest -= 8 + len(body)
    path = tmp_path / "annot.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + data)
    counts = ends(annot, [path])
    assert counts["read"] == 0


@pytest.mark.parametrize("where", ["compressed variable", "member of a zip"])
def test_a_bomb_takes_no_more_than_its_bound(tmp_path: Path, where: str) -> None:
    """Gigabytes of zeros, compressed a thousand to one, are not unpacked."""
    if where == "member of a zip":
        path = write_zip(tmp_path / "z.zip", {"a.npz": write_npz(tmp_path / "a.npz", {})})
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\x01\x02")
        data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(SourceError):
            parse(path)
        return
    packer = zlib.compressobj()
    tag = b"\x0e\0\0\0" + (3 << 30).to_bytes(4, "little")
    flags = b"\x06\0\0\0\x08\0\0\0\x06\0\0\0\0\0\0\0"
    shape = b"\x05\0\0\0\x08\0\0\0" + (1 << 14).to_bytes(4, "little") * 2
    name = b"\x01\0\0\0\x06\0\0\0annot2\0\0\x09\0\0\0" + (1 << 31).to_bytes(4, "little")
    packed = packer.compress(tag + flags + shape + name)
    for _ in range(64):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    path = tmp_path / "annot.mat"
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(head + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed)
    assert ends(annot, [path]) == {"apart": 1}
