"""Whether a stream is the same to the bit with any number of threads and on either pixel path.

    python -m tests.loaders.stream_digest [BATCHES]

Prints the SHA-256 of 1,000 batches of 64 (images and labels, ReFit's augmentation and occluders),
with 1, 2 and 5 threads, by AVX2 and by the portable path. Exit code 1 where two differ.
"""

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.crops import Crops, CropSizes, cached_crops
from refit_shard import AugmentationPolicy, StreamingLoader, StreamOptions
from refit_shard.loaders.native import Drawer

THREADS = (1, 2, 5)
REFITS = AugmentationPolicy()


def made_crops(cache: Path) -> Crops:
    """A few dozen seeded crops."""
    return cached_crops(cache, CropSizes(frames=10, passes=2, samples_per_shard=16, occluders=12))


def digest(
    crops: Crops,
    *,
    batches: int,
    batch: int,
    threads: int,
    portable: bool,
    policy: AugmentationPolicy,
) -> str:
    """SHA-256 of all that a loop gets, key by key."""
    options = StreamOptions(
        image="uint8",
        batch_size=batch,
        num_workers=threads,
        epoch_samples=batches * batch,
        occluders=str(crops.occluders),
        policy=policy,
    )
    found = hashlib.sha256()
    # Wherever a Drawer is made: what is compared is the stream, which has no such option.
    with patch.dict(Drawer.__init__.__kwdefaults__, portable=portable):
        for one in islice(StreamingLoader({"bedlam": (str(crops.shards), 1.0)}, options), batches):
            for name, value in sorted(one.items()):
                found.update(name.encode())
                is_tensor = isinstance(value, torch.Tensor)
                found.update(value.numpy().tobytes() if is_tensor else repr(value).encode())
    return found.hexdigest()


def digests(
    crops: Crops, *, batches: int, batch: int, policy: AugmentationPolicy = REFITS
) -> Iterator[tuple[str, str]]:
    """Each way and its digest."""
    for portable in (False, True):
        for threads in THREADS:
            way = f"{'portable' if portable else 'AVX2'}, {threads} threads"
            args = {"batches": batches, "batch": batch, "threads": threads}
            yield way, digest(crops, **args, portable=portable, policy=policy)


def main(batches: str = "1000") -> int:
    """Print them."""
    found = set()
    with tempfile.TemporaryDirectory() as cache:
        for way, one in digests(made_crops(Path(cache)), batches=int(batches), batch=64):
            print(one, way, flush=True)
            found.add(one)
    return int(len(found) > 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
