"""Reading untrusted Arrow files without allocating more memory than the file has bytes."""

import struct

import pyarrow as pa

_INT, _UINT, _SHORT = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<H")
# Places of fields in the tables of Arrow's messages.
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
    """Whether the buffers of a record batch are compressed; pyarrow has checked the message."""
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
    """The only record batch of an Arrow file, as views into the file's memory, validated in full:
    pyarrow would read outside its memory where offsets are wrong.

    The messages are read in sequence, because the file's footer may point at others.

    Raises:
        ValueError: the file has another number of batches, is compressed, or has a null value.
        pa.ArrowException, OSError, UnicodeDecodeError: it is damaged.
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
    _ = batch.schema.names  # decodes them
    if any(map(_has_nulls, batch.columns)):
        raise ValueError("a value is missing")
    return batch
