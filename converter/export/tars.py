"""Writes tars of ``KEY.jpg`` and ``KEY.json`` in webdataset's layout, which most readers
support.
"""

from collections.abc import Iterator

from crc32c import crc32c

from refit_shard.converter.export.plan import Part, SetExport
from refit_shard.converter.export.reading import read_rows
from refit_shard.shards_spec.errors import ShardError
from refit_shard.shards_spec.fields import RECORD_CRC
from refit_shard.shards_spec.json_rows import json_rows
from refit_shard.shards_spec.names import sample_key
from refit_shard.shards_spec.reader import Shard
from refit_shard.shards_spec.storage.folder import Folder
from refit_shard.shards_spec.writer import TarStream


def write_tar(chosen: SetExport, index: int, folder: Folder) -> None:
    """Write one tar, and rename it once it is complete.

    Raises:
        ShardError: a sample is damaged.
        StorageError: reading or writing failed.
    """
    with folder.publish(f"{chosen.stem(index)}.tar") as stream:
        tar = TarStream(stream)
        for part in chosen.files[index]:
            for key, jpeg, labels in _samples(chosen, part):
                tar.add(f"{key}.jpg", jpeg)
                tar.add(f"{key}.json", labels.encode())
        tar.finish()


def _samples(chosen: SetExport, part: Part) -> Iterator[tuple[str, bytes, str]]:
    """Key, JPEG and labels (JSON) of the rows of one shard, with checksums verified."""
    manifest = chosen.manifest
    entry = manifest.shards[part.shard]
    with chosen.data_set.folder.local_copy(f"{entry.name}.arrow", f"{entry.name}.tar") as local:
        shard = Shard(local, entry, manifest.fields)
        rows = read_rows(local, manifest, part)
        labels = [one for one in manifest.fields if one.in_npy and one.name != RECORD_CRC]
        texts = json_rows(
            rows.select([one.name for one in labels]), {one.name: one.shape for one in labels}
        )
        names = ("key", "source_row", "jpg_crc32c")
        stated = zip(*(rows.column(name).to_pylist() for name in names), strict=True)
        for row, text, (key, source_row, crc) in zip(
            part.rows.tolist(), texts, stated, strict=True
        ):
            if key != sample_key(chosen.dataset, source_row):
                raise ShardError(f"{shard.where}.arrow: row {row}: its key is damaged")
            jpeg = bytes(shard.jpeg(row))
            if crc32c(jpeg) != crc:
                raise ShardError(
                    f"{shard.where}.tar: row {row}: the JPEG is damaged (crc32c); build the "
                    "dataset again, then export"
                )
            yield key, jpeg, text
