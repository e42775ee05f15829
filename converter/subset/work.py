"""Carries out the plan of the 3DPW subset. Every frame is decoded once; crops are renamed once they
are complete.

A crop's JPEG comment states from which frame and box it was made, so that a later run keeps crops
that are still right.
"""

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from refit_shard.converter.annotations.npz import write_npz
from refit_shard.converter.archives.find import find_packed
from refit_shard.converter.archives.frames import Frames
from refit_shard.converter.archives.index import LISTS_FOLDER
from refit_shard.converter.build.lock import build_lock
from refit_shard.converter.frames.decode import decode_frame
from refit_shard.converter.frames.encode import encode
from refit_shard.converter.frames.imread import Frame
from refit_shard.converter.frames.resample import RES, crop_box
from refit_shard.converter.reading import read_frame
from refit_shard.converter.subset.plan import CROPS_FOLDER, NAME_DTYPE, Crop, SubsetPlan
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.errors import FrameError
from refit_shard.shards_spec.names import TEMPORARY_SUFFIX
from refit_shard.shards_spec.process import available_cores
from refit_shard.shards_spec.storage.folder import Folder, open_folder

QUALITY = 95
_RECIPE = "refit-shard subset-3dpw 2"
_START_OF_IMAGE, _COMMENT = b"\xff\xd8", b"\xff\xfe"

Size = tuple[int, int]


@dataclass(frozen=True)
class Fault:
    """A drawn row without a crop: its number in the full npz, its frame, and why."""

    row: int
    path: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class SubsetSummary:
    """The result of a run. If there are ``faults``, no npz was written."""

    npz: str
    crops: str
    source_rows: int
    rows: int
    frames: int
    written: int
    kept: int
    faults: tuple[Fault, ...]


def _mark(crop: Crop, frame_sha256: bytes) -> str:
    """The beginning of a crop's JPEG comment: the recipe, and a hash of the frame's file
    and box.
    """
    box = np.array([crop.cx, crop.cy, crop.side]).tobytes()
    return f"{_RECIPE} {hashlib.sha256(frame_sha256 + box).hexdigest()} "


def encode_crop(pixels: Frame, mark: str, size: Size) -> bytes:
    """A crop as the bytes of its file: a JPEG with ``mark`` and the frame's size as its comment."""
    data = encode(pixels, QUALITY, interval=0)  # without restart markers, as in ReFit's crops
    text = f"{mark}{size[0]} {size[1]}".encode()
    comment = _COMMENT + (len(text) + 2).to_bytes(2, "big") + text
    return _START_OF_IMAGE + comment + data[len(_START_OF_IMAGE) :]


def _existing(root: Folder, crop: Crop, mark: str) -> Size | None:
    """The frame's (H, W) if the crop exists, is complete, and is of the same frame and box; else
    None.
    """
    try:
        data = read_frame(root, crop.path)
        if not data.startswith(_START_OF_IMAGE + _COMMENT):
            return None
        text = data[6 : 4 + int.from_bytes(data[4:6], "big")].decode("ascii", "replace")
        if not text.startswith(mark) or jpeg.decode(data).shape != (RES, RES, 3):
            return None
        height, width = text.removeprefix(mark).split(" ")
        return int(height), int(width)
    except (FrameError, ValueError):
        return None


@dataclass(frozen=True)
class _Done:
    """The result of one frame. ``sizes``: the frame's (H, W) by the crop's index in the subset.
    ``kept``: number of crops that existed already.
    """

    sizes: dict[int, Size]
    kept: int
    faults: tuple[Fault, ...]


def _write(root: Folder, crop: Crop, frame: Frame, mark: str) -> Size:
    """Cut one crop and publish it; returns the frame's (H, W)."""
    height, width = frame.shape[:2]
    if crop.stated is not None and crop.stated != (height, width):
        raise FrameError(
            "size_mismatch",
            f"the frame is {width}x{height}, orig_shape says "
            f"{crop.stated[1]:.0f}x{crop.stated[0]:.0f}",
        )
    pixels = crop_box(frame, crop.cx, crop.cy, crop.side)
    folder, name = posixpath.split(crop.path)
    root.child(folder).write(name, encode_crop(pixels, mark, (height, width)))
    return height, width


def _cut(root: Folder, frames: Frames, path: str, crops: Sequence[Crop]) -> _Done:
    """Write those crops of one frame that do not exist. The frame is decoded at most once."""
    try:
        data = frames.read(path)
        digest = hashlib.sha256(data).digest()
        marks = {crop.index: _mark(crop, digest) for crop in crops}
        found = {crop.index: _existing(root, crop, marks[crop.index]) for crop in crops}
        sizes = {index: size for index, size in found.items() if size is not None}
        wanted = [crop for crop in crops if crop.index not in sizes]
        frame = decode_frame(data).pixels if wanted else np.zeros((0, 0, 3), np.uint8)
    except FrameError as error:
        return _Done({}, 0, tuple(Fault(c.row, path, error.reason, str(error)) for c in crops))
    kept = len(sizes)
    faults = []
    for crop in wanted:
        try:
            sizes[crop.index] = _write(root, crop, frame, marks[crop.index])
        except FrameError as error:
            faults.append(Fault(crop.row, path, error.reason, str(error)))
    return _Done(sizes, kept, tuple(faults))


def _make_folders(plan: SubsetPlan, root: Folder) -> None:
    """Create the crops' folders, and delete temporary files of a killed run in them."""
    paths = {posixpath.dirname(crop.path) for crops in plan.crops.values() for crop in crops}
    for path in sorted(paths):
        folder = root.child(path)
        folder.create()
        for name in folder.names():
            if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
                folder.remove(name)


def _cut_all(plan: SubsetPlan, root: Folder, on_rows: Callable[[int], None]) -> list[_Done]:
    """Cut every frame's crops, in threads, because nearly all of the work releases the
    interpreter's lock.
    """
    done = []
    workers = plan.request.workers
    packed = find_packed(root, list(plan.crops), root.child(CROPS_FOLDER).child(LISTS_FOLDER))
    frames = Frames(root, packed.members(plan.crops))
    pool = ThreadPoolExecutor(available_cores() if workers is None else max(1, workers))
    try:
        futures = {
            pool.submit(_cut, root, frames, path, crops): len(crops)
            for path, crops in plan.crops.items()
        }
        for future in as_completed(futures):
            done.append(future.result())
            on_rows(futures[future])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return done


def make_subset(plan: SubsetPlan, on_rows: Callable[[int], None]) -> SubsetSummary:
    """Cut the crops that do not exist yet and, if every row has one, write the npz. If stopped, the
    same call continues.

    ``on_rows``: called with the number of rows that were finished since the last call.

    Raises:
        StorageError: a file could not be written.
        UsageError: another run is writing the same crops.
    """
    request = plan.request
    root = open_folder(request.root, "PW3D_ROOT")
    crops_folder = root.child(CROPS_FOLDER)
    crops_folder.create()
    with build_lock(crops_folder, "another subset-3dpw is writing there; wait for it"):
        _make_folders(plan, root)
        done = _cut_all(plan, root, on_rows)
        faults = sorted((fault for one in done for fault in one.faults), key=lambda f: f.row)
        if not faults:
            sizes = {index: size for one in done for index, size in one.sizes.items()}
            _write_npz(plan, [sizes[index] for index in range(plan.rows)])
    kept = sum(one.kept for one in done)
    return SubsetSummary(
        npz=str(request.target),
        crops=crops_folder.url,
        source_rows=plan.source_rows,
        rows=plan.rows,
        frames=len(plan.crops),
        written=sum(len(one.sizes) for one in done) - kept,
        kept=kept,
        faults=tuple(faults),
    )


def _write_npz(plan: SubsetPlan, sizes: Sequence[Size]) -> None:
    names = {crop.index: crop.path for crops in plan.crops.values() for crop in crops}
    columns = plan.columns | {
        "imgname": np.array([names[index] for index in range(plan.rows)], NAME_DTYPE),
        "orig_shape": np.array(sizes, np.int64),
    }
    target = plan.request.target
    folder = open_folder(target.parent, "npz of 3dpw_test_sub in DATASET_FILES")
    folder.create()
    with folder.publish(target.name) as stream:
        write_npz(stream, {key: [values] for key, values in columns.items()})
