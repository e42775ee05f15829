"""The cases of :mod:`benchmarks.bench_load` as functions; each runs in a fresh process."""

import os
import time
from dataclasses import dataclass

import cv2

from benchmarks.build_cases import process
from benchmarks.crops import Crops
from benchmarks.harness import cores
from benchmarks.peers.transform import Kind
from refit_shard import ShardSet, StreamingLoader, StreamOptions
from refit_shard.converter.frames.encode import encoder_options
from refit_shard.loaders.measure import decoding
from refit_shard.shards_spec import jpeg
from refit_shard.shards_spec.records import OpenTars, RecordReader

_EPOCH_SAMPLES = 1 << 40  # so long that no epoch ends during a measurement


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Bare decoding of the stored JPEGs in ``threads`` threads; with ``markers`` False, of the same
    crops encoded again without restart markers.
    """

    threads: int
    markers: bool = True


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The loader, with as many workers as the process may use cores."""

    image: Kind
    cores: int


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Length of a measurement: ``warm_up`` batches before it, then at least ``seconds``."""

    batch: int
    warm_up: int
    seconds: float


def options(image: Kind, crops: Crops, batch: int, workers: int) -> StreamOptions:
    """A stream's options with ReFit's augmentation and the crops' occluders."""
    return StreamOptions(
        image=image,
        batch_size=batch,
        num_workers=workers,
        epoch_samples=_EPOCH_SAMPLES,
        occluders=str(crops.occluders),
    )


def pin(count: int) -> None:
    """Limit this process and its children to ``count`` cores."""
    os.sched_setaffinity(0, set(cores()[-count:]))
    cv2.setNumThreads(1)


# ---------------------------------------------------------------------------------- bare decode


def stored_jpegs(crops: Crops) -> list[bytes]:
    """The bytes of every stored JPEG."""
    reader = RecordReader(ShardSet.open(str(crops.shards)), OpenTars())
    return [reader.read(row).jpeg for row in range(crops.rows)]


def without_markers(data: bytes, quality: int) -> bytes:
    """A JPEG decoded and encoded again with the same options, but without restart markers."""
    bgr = cv2.cvtColor(jpeg.decode(data), cv2.COLOR_RGB2BGR)
    plain = (*encoder_options(quality), cv2.IMWRITE_JPEG_RST_INTERVAL, 0)
    return cv2.imencode(".jpg", bgr, plain)[1].tobytes()


def decoding_rate(case: Decoding, crops: Crops, amounts: Amounts) -> float:
    """Samples/s of bare decoding, each thread on its own part, on as many cores as threads."""
    pin(case.threads)
    jpegs = stored_jpegs(crops)
    if not case.markers:
        quality = ShardSet.open(str(crops.shards)).manifest.quality
        jpegs = [without_markers(data, quality) for data in jpegs]
    return decoding.decoding_rate(jpegs, threads=case.threads, seconds=amounts.seconds)


# ------------------------------------------------------------------------------------- loading


def loading_rate(case: Loading, crops: Crops, amounts: Amounts) -> float:
    """Samples/s of the loader after a warm-up, because the first use of a batch's memory is slow.

    Workers deliver in turns, so only whole turns of all workers are counted. The process may use as
    many cores as it has workers.
    """
    pin(case.cores)
    made = options(case.image, crops, amounts.batch, case.cores)
    loader = StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, made)
    batches = iter(loader)
    for _ in range(amounts.warm_up):
        next(batches)
    turns, elapsed = 0, 0.0
    begin = time.perf_counter()
    while elapsed < amounts.seconds or turns == 0:
        for _ in range(case.cores):
            next(batches)
        turns += 1
        elapsed = time.perf_counter() - begin
    return turns * case.cores * amounts.batch / elapsed


def measure(case: Decoding | Loading, crops: Crops, amounts: Amounts) -> float:
    """Samples/s of a case in a fresh process."""
    with process() as pool:
        if isinstance(case, Decoding):
            return pool.submit(decoding_rate, case, crops, amounts).result()
        return pool.submit(loading_rate, case, crops, amounts).result()
