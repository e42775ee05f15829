"""Measures bare decoding of whole crops by simplejpeg, with which the stream is compared."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

import numpy as np

from refit_shard.shards_spec import jpeg


def decode_for(seconds: float, jpegs: Sequence[bytes]) -> int:
    """Decode JPEGs in turn to RGB, into reused memory; returns the number decoded.

    Each JPEG is decoded at least once.

    Raises:
        FrameError: a JPEG is damaged, or larger than a crop may be.
    """
    sizes = [jpeg.size(data) for data in jpegs]
    for data, (height, width) in zip(jpegs, sizes, strict=True):
        jpeg.check_size(data, height, width)
    memory = np.empty(max(height * width * 3 for height, width in sizes), np.uint8)
    outs = [memory[: h * w * 3].reshape(h, w, 3) for h, w in sizes]
    begin, count = time.perf_counter(), 0
    for data, out in cycle(zip(jpegs, outs, strict=True)):
        jpeg.decode(data, out)
        count += 1
        if count >= len(jpegs) and time.perf_counter() - begin >= seconds:
            break
    return count


def decoding_rate(jpegs: Sequence[bytes], *, threads: int, seconds: float) -> float:
    """JPEGs decoded per second by ``threads`` threads, each on its own part of the JPEGs, after a
    warm-up that decodes each JPEG once. There must be at least as many JPEGs as threads.
    """
    parts = [jpegs[number::threads] for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(partial(decode_for, 0.0), parts))
        begin = time.perf_counter()
        count = sum(pool.map(partial(decode_for, seconds), parts))
        return count / (time.perf_counter() - begin)
