"""The cases of :mod:`benchmarks.bench_peers` as functions: each loader on the same crops.

Each measurement runs in a fresh process.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.build_cases import made_by, process
from benchmarks.crops import Crops
from benchmarks.peers import records
from benchmarks.peers.records import LoaderOptions
from benchmarks.peers.transform import RES, Kind, Transform
from refit_shard import StreamingLoader, StreamOptions

Batch = dict[str, Any]

OURS = "ours"
REFIT = "refit"
_EPOCH_SAMPLES = 200_000


@dataclass(frozen=True)
class Peer:
    """A loader with its own format. ``package``: its import name; ``module``: our module that uses
    it.
    """

    title: str
    package: str
    module: str

    @property
    def sources(self) -> list[Path]:
        """The code and versions that its copy of the crops depends on."""
        folder = Path(records.__file__).parent
        return [folder / f"{self.module.rpartition('.')[2]}.py", folder / "records.py"]


PEERS = {
    "webdataset": Peer("webdataset", "webdataset", "benchmarks.peers.webdataset_peer"),
    "mosaic": Peer("MosaicML streaming", "streaming", "benchmarks.peers.mosaic_peer"),
    "spdl": Peer("SPDL", "spdl", "benchmarks.peers.spdl_peer"),
    "litdata": Peer("litData", "litdata", "benchmarks.peers.litdata_peer"),
}
TITLES = {
    OURS: "StreamingLoader",
    **{name: peer.title for name, peer in PEERS.items()},
    REFIT: "ReFit's way, whole frames",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement."""

    contender: str
    image: Kind
    workers: int


# ---------------------------------------------------------------------------------------- data


def _copy_of(name: str, crops: Crops) -> Path:
    """Folder of a peer's copy of the crops."""
    return crops.shards.parent / f"{name}-{made_by(PEERS[name].sources)}"


def _write(name: str, crops: Crops) -> str:
    """Write a peer's copy of the crops once; returns why the peer cannot be used, or ''."""
    try:
        module = import_module(PEERS[name].module)
    except Exception as error:
        return f"does not import: {error}"
    folder = _copy_of(name, crops)
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        module.write(str(crops.shards), partial)
        partial.rename(folder)
    return ""


def prepare(name: str, crops: Crops) -> str:
    """Write a peer's copy of the crops once, in another process.

    Returns why the peer cannot be used, or an empty text.
    """
    if find_spec(PEERS[name].package) is None:
        return "not installed"
    with process() as pool:
        return pool.submit(_write, name, crops).result()


# ----------------------------------------------------------------------------------- measuring


def open_loader(case: Case, crops: Crops, batch: int) -> Iterable[Batch]:
    """The batches of a case, more than a measurement takes."""
    options = LoaderOptions(batch=batch, workers=case.workers, samples=_EPOCH_SAMPLES)
    if case.contender == OURS:
        stream = StreamOptions(
            image=case.image,
            batch_size=batch,
            num_workers=case.workers,
            epoch_samples=_EPOCH_SAMPLES,
            occluders=str(crops.occluders),
        )
        return StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, stream)
    if case.contender == REFIT:
        refit = import_module("benchmarks.peers.refit_style")
        made: Iterable[Batch] = refit.load(crops, options)
        return made
    module = import_module(PEERS[case.contender].module)
    transform = Transform(crops.occluders, case.image)
    loaded: Iterable[Batch] = module.load(_copy_of(case.contender, crops), transform, options)
    return loaded


def check(case: Case, batch: Batch, size: int) -> None:
    """Check that a loader's batch has the expected shape and dtype.

    Raises:
        RuntimeError: it has not.
    """
    shape, dtype = (size, 3, RES, RES), torch.float32
    if case.image == "uint8":
        shape, dtype = (size, RES, RES, 3), torch.uint8
    image = batch["img"]
    if image.shape != shape or image.dtype != dtype or batch["keypoints"].shape != (size, 49, 3):
        raise RuntimeError(f"{case}: gave {image.dtype} {tuple(image.shape)}")


def rate(case: Case, crops: Crops, batch: int, seconds: float) -> float:
    """Steady samples/s over at least ``seconds``, once each worker has made two batches.

    Workers deliver in turns, so only whole turns of all workers are counted.
    """
    batches = iter(open_loader(case, crops, batch))
    for _ in range(2 * case.workers):
        check(case, next(batches), batch)
    count, elapsed = 0, 0.0
    begin = time.perf_counter()
    while elapsed < seconds or count < 2:
        for _ in range(case.workers):
            next(batches)
        count += 1
        elapsed = time.perf_counter() - begin
    return count * case.workers * batch / elapsed


def measure(case: Case, crops: Crops, batch: int, seconds: float) -> float:
    """:func:`rate` in a fresh process."""
    with process() as pool:
        return pool.submit(rate, case, crops, batch, seconds).result()
