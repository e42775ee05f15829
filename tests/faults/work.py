"""What is done with shards besides building them, as functions of a list of strings."""

import hashlib
from pathlib import Path

from refit_shard import ShardSet
from refit_shard.console import say
from refit_shard.loaders.remote.cache import Cache, Fetched, Slot
from refit_shard.shards_spec.errors import RefitShardError
from refit_shard.shards_spec.records import OpenTars, RecordReader


def _contents(data_set: ShardSet) -> str:
    """A hash of every sample, read by the stream's reader."""
    reader = RecordReader(data_set, OpenTars())
    digest = hashlib.sha256()
    for index in range(len(data_set)):
        stored = reader.read(index)
        digest.update(stored.jpeg + stored.record)
    return digest.hexdigest()


def read(args: list[str]) -> int:
    """Read all samples of SHARDS twice, by the stream's reader and mapped; print their hash."""
    try:
        data_set = ShardSet.open(args[0])
        print(_contents(data_set))
        digest = hashlib.sha256()
        for index in range(len(data_set)):
            sample = data_set[index]
            digest.update(sample.jpeg)
            digest.update(str(sample["pose"]).encode())
        print(digest.hexdigest())
    except RefitShardError as error:
        say(f"refit-shard: {error}", error=True)
        return error.exit_code
    return 0


def fill_cache(args: list[str]) -> int:
    """Bring SHARDS into CACHE, which has room for half of them, one after the other, and print a
    hash of the samples of each.
    """
    try:
        far = ShardSet.open(args[0])
        sizes = [entry.tar_bytes + entry.arrow_bytes for entry in far.manifest.shards]
        cache = Cache(args[1], sum(sizes) // 2 + 1)
        folder = cache.folder(far.manifest)
        for number, entry in enumerate(far.manifest.shards):
            slot = Slot(far.folder, Path(folder.path), entry)
            held = cache.hold(slot)
            while held is None:
                fetched = cache.fetch(slot, number, lambda _: float("inf"), lambda: False)
                assert fetched is Fetched.THERE
                held = cache.hold(slot)
            shard = ShardSet(folder, far.manifest).shard(number)
            data = b"".join(bytes(shard.jpeg(row)) for row in range(len(shard)))
            print(entry.name, hashlib.sha256(data).hexdigest())
            cache.release(held)
    except RefitShardError as error:
        say(f"refit-shard: {error}", error=True)
        return error.exit_code
    return 0
