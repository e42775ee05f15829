"""Reads chosen rows of a shard's index, whose checksum is verified."""

import pyarrow as pa

from refit_shard.converter.export.plan import Part
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.manifest import Manifest
from refit_shard.shards_spec.reader import open_index, read_seal
from refit_shard.shards_spec.storage.folder import Folder


def read_rows(folder: Folder, manifest: Manifest, part: Part) -> pa.RecordBatch:
    """The rows of a part, with all columns of the index.

    Raises:
        ShardError: the index is damaged, or does not belong to the manifest.
        StorageError: the index cannot be read.
    """
    entry = manifest.shards[part.shard]
    where = f"{folder.url}/{entry.name}.arrow"
    index = open_index(folder, entry, manifest.fields)
    seal = read_seal(index, where)
    if (seal.plan_hash, seal.tar_sha256) != (manifest.plan_hash, entry.tar_sha256):
        raise ShardError(
            f"{where}: does not belong to the manifest; was the dataset built again meanwhile?"
        )
    return index.take(pa.array(part.rows))
