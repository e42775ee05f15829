"""Writes the index of the chosen rows as one Parquet file for each dataset."""

from collections.abc import Callable

import pyarrow as pa
from pyarrow import parquet

from refit_shard.converter.export.plan import Part, SetExport
from refit_shard.converter.export.reading import read_rows
from refit_shard.shards_spec.fields import Field, arrow_schema
from refit_shard.shards_spec.storage.folder import Folder

_ADDED = (
    Field(name="dataset", dtype="string", doc="the name of the dataset"),
    Field(name="shard", dtype="string", doc="the shard's name: the JPEG is in SET/SHARD.tar"),
)


def parquet_name(chosen: SetExport) -> str:
    """The name of a dataset's Parquet file."""
    return f"{chosen.dataset}.parquet"


def write_parquet(chosen: SetExport, folder: Folder, on_rows: Callable[[int], None]) -> None:
    """Write the Parquet file of a dataset, some shards at a time, and rename it once it is
    complete.

    The columns are ``dataset``, ``shard`` and those of the shards' indexes, with their types.
    ``on_rows``: called with the number of rows that were written since the last call.

    Raises:
        ShardError: an index is damaged.
        StorageError: reading or writing failed.
    """
    schema = arrow_schema((*_ADDED, *chosen.manifest.fields))
    with (
        folder.publish(parquet_name(chosen)) as stream,
        parquet.ParquetWriter(stream, schema) as writer,
    ):
        for index, parts in enumerate(chosen.files):
            batches = [_batch(chosen, part, schema) for part in parts]
            writer.write_table(pa.Table.from_batches(batches))
            on_rows(chosen.rows_of(index))


def _batch(chosen: SetExport, part: Part, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of one shard."""
    rows = read_rows(chosen.data_set.folder, chosen.manifest, part)
    texts = (chosen.dataset, chosen.manifest.shards[part.shard].name)
    added = [pa.repeat(text, rows.num_rows) for text in texts]
    return pa.record_batch([*added, *rows.columns], schema=schema)
