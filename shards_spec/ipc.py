"""Reads untrusted Arrow files, without allocating more memory than the file has bytes."""

import struct

import pyarrow as pa

_INT, _UINT, _SHORT = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<H")
# Numbers of fields in the flatbuffers tables of Arrow's messages.
_MESSAGE_HEADER, _BATCH_COMPRESSION = 2, 3


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Position of a field in a flatbuffers table; None if the field is absent."""
    places = table - _INT.unpack_from(data, table)[0]
    at = 4 + 2 * number
    offset = (
        _SHORT.unpack_from(data, places + at)[0] if at < _SHORT.unpack_from(data, places)[0] else 0
    )
    return table + offset if offset else None


def _is_compressed(message: pa.Message) -> bool:
    """True if the buffers of a record batch are compressed. pyarrow must have checked the
    message.
    """
    data = memoryview(message.metadata)
    header = _field(data, _UINT.unpack_from(data)[0], _MESSAGE_HEADER)
    if header is None:
        return False
    batch = header + _UINT.unpack_from(data, header)[0]
    return _field(data, batch, _BATCH_COMPRESSION) is not None


def _has_nulls(column: pa.Array) -> bool:
    parts = [column, column.values] if pa.types.is_fixed_size_list(column.type) else [column]
    return any(part.null_count for part in parts)


def read_batch(data: pa.Buffer) -> pa.RecordBatch:
    """The only record batch of an Arrow file, as views into the file's memory. It is validated in
    full, because pyarrow would read outside the memory if offsets are wrong.

    The messages are read in sequence, because a damaged footer may point at other places.

    Raises:
        ValueError: the file has another number of batches, is compressed, or has a null value.
        pa.ArrowException, OSError, UnicodeDecodeError: the file is damaged.
    """
    count = pa.ipc.open_file(data).num_record_batches
    if count != 1:
        raise ValueError(f"must hold one record batch, holds {count}")
    messages = pa.ipc.MessageReader.open_stream(data.slice(8))  # after the magic and its padding
    first, message = messages.read_next_message(), messages.read_next_message()
    if first.type != "schema":  # Arrow does not verify messages of an unknown kind
        raise ValueError(f"must begin with a schema, begins with {first.type}")
    schema = pa.ipc.read_schema(first)
    if message.type != "record batch" or _is_compressed(message):
        raise ValueError("must hold one record batch that is not compressed")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    _ = batch.schema.names  # decodes the names, which raises an error if they are not UTF-8
    if any(map(_has_nulls, batch.columns)):
        raise ValueError("a value is missing")
    return batch
