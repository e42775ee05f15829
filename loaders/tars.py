"""Items from the tars alone, for people who live in webdataset."""

import io
from collections.abc import Callable, Mapping
from tokenize import TokenError
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from loaders.occluders import Occluders
from loaders.options import RenderOptions
from loaders.policy import AugmentationPolicy, draw, neutral, single
from loaders.render import Batch, render
from shards_spec.errors import ShardError, UsageError
from shards_spec.fields import (
    EXTRINSICS,
    FIELD,
    RECORD_CRC,
    STRING,
    is_whole_record,
    npy_dtype,
    standard_fields,
)

# A call's place in the random stream is its key's checksum and its number among the calls.
_CALLS = 1 << 24
_MAX_NPY_BYTES = 1 << 20


class TarSample:
    """The members of one sample of a tar, read as :class:`shards_spec.Sample` is."""

    def __init__(self, sample: Mapping[str, Any]) -> None:
        self.key = str(sample.get("__key__", ""))
        try:
            data, record = sample["jpg"], sample["npy"]
        except KeyError as error:
            raise ShardError(f"{self.key}: has no member {error}; is this a shard's tar?") from None
        if not isinstance(data, bytes):
            raise UsageError(
                "webdataset_item: leave the images encoded: .decode() without an image handler, "
                "or no .decode() at all"
            )
        self.jpeg: bytes | memoryview = data
        self._record: Any = _load_npy(record, self.key) if isinstance(record, bytes) else record
        if not _is_record(self._record):
            raise ShardError(f"{self.key}: its .npy is damaged (not a record of this format)")

    def __getitem__(self, name: str) -> Any:
        if name not in (self._record.dtype.names or ()):
            raise KeyError(name)
        value: Any = self._record[name][()]
        return value.decode(errors="replace") if FIELD[name].dtype == STRING else value


def _is_record(record: Any) -> bool:
    """Whether it is one whole record of the field table's columns, and maybe of own labels."""
    fields = dict(getattr(record, "dtype", np.dtype("f8")).fields or {})
    if np.shape(record) or not {"key", "imgname", RECORD_CRC} <= fields.keys():
        return False
    expected = npy_dtype(
        standard_fields(
            extrinsics=EXTRINSICS[0] in fields,
            key_bytes=fields["key"][0].itemsize,
            imgname_bytes=fields["imgname"][0].itemsize,
        )
    )
    own = [name for name in fields if name not in (expected.names or ())]
    names = [name for name in expected.names or () if name != RECORD_CRC]
    return (
        [*names, *own, RECORD_CRC] == list(fields)
        and all(record.dtype[name] == expected[name] for name in names)
        and is_whole_record(record.tobytes())
    )


def _load_npy(data: bytes, key: str) -> NDArray[Any]:
    if len(data) > _MAX_NPY_BYTES:
        raise ShardError(f"{key}: its .npy has {len(data)} bytes")
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TokenError) as error:  # the header is read as a literal
        raise ShardError(f"{key}: its .npy is damaged ({error})") from error
    if shape or dtype.hasobject or dtype.itemsize != len(data) - stream.tell():
        raise ShardError(f"{key}: its .npy is damaged (not one record)")
    record: NDArray[Any] = np.frombuffer(data, dtype, offset=stream.tell()).reshape(())
    return record


def webdataset_item(
    policy: AugmentationPolicy | None = None,
    *,
    seed: int = 0,
    options: RenderOptions | None = None,
    occluders: Occluders | None = None,
) -> Callable[[Mapping[str, Any]], Batch]:
    """A function for ``wds.WebDataset(urls).decode().map(…)``: ReFit's items from the tars alone.

    With ``policy=None`` nothing is augmented. The parameters follow from the seed, the sample's
    key and the number of the call, so a run is repeated by the same order of samples.
    """
    options = options or RenderOptions()
    calls = 0

    def item(sample: Mapping[str, Any]) -> Batch:
        nonlocal calls
        stored = TarSample(sample)
        drawn = neutral(1)
        if policy is not None:
            place = crc32c(stored.key.encode()) * _CALLS + calls % _CALLS
            objects = 0 if occluders is None else len(occluders)
            drawn = draw(policy, seed, place, 1, objects=objects, res=options.res)
        calls += 1
        made = render(stored, single(drawn), options, occluders=occluders)
        return made | {"dataset_name": stored.key.rsplit("-", 1)[0]}

    return item
