"""An index of the chosen rows as one Parquet file a set."""

from collections.abc import Callable

import pyarrow as pa
from pyarrow import parquet

from refit_shard.converter.export.plan import SetExport
from refit_shard.converter.export.reading import read_rows
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.fields import Field, arrow_schema
from refit_shard.shards_spec.storage.folder import Folder

_ADDED = (
    Field(name="dataset", dtype="string", doc="the name of the set"),
    Field(name="shard", dtype="string", doc="the shard's name: the JPEG is in SET/SHARD.tar"),
)


def parquet_name(chosen: SetExport) -> str:
    """The file of a set."""
    return f"{chosen.dataset}.parquet"


def write_parquet(chosen: SetExport, folder: Folder, on_rows: Callable[[int], None]) -> None:
    """Write the index of a set, a shard at a time; it appears whole. ``on_rows`` hears how many
    more rows are written.

    The columns are ``dataset``, ``shard`` and those of the shards' indexes, in their types.

    Raises:
        UsageError: a label of the set's own is called as one of the two columns.
        ShardError: an index is damaged.
        StorageError: reading or writing failed.
    """
    manifest, standing = chosen.manifest, chosen.data_set.folder
    names = {field.name for field in _ADDED}
    clash = next((field.name for field in manifest.own if field.name in names), None)
    if clash is not None:
        raise UsageError(f"{standing.url}: has a label called {clash!r}, as a column that is added")
    schema = arrow_schema((*_ADDED, *manifest.fields))
    with (
        folder.publish(parquet_name(chosen)) as stream,
        parquet.ParquetWriter(stream, schema) as writer,
    ):
        for part in chosen.parts:
            rows = read_rows(standing, manifest, part)
            texts = (chosen.dataset, manifest.shards[part.shard].name)
            added = [pa.repeat(text, rows.num_rows) for text in texts]
            writer.write_batch(pa.record_batch([*added, *rows.columns], schema=schema))
            on_rows(len(part.rows))
