"""Items from the tars alone, for pipelines of webdataset."""

import io
from collections.abc import Callable, Mapping, Sequence
from tokenize import TokenError
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from refit_shard.loaders.items.draws import Draws, neutral
from refit_shard.loaders.items.making import Batch, make_item
from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.options import RenderOptions
from refit_shard.loaders.items.own import declared
from refit_shard.loaders.items.policy import AugmentationPolicy, draw
from refit_shard.shards_spec.errors import ShardError, UsageError
from refit_shard.shards_spec.fields import (
    EXTRINSICS,
    RECORD_CRC,
    Field,
    is_whole_record,
    npy_dtype,
    standard_fields,
)

# A call's position in the random stream consists of the worker's seed, the key's CRC and the number
# of the call.
_KEY_BITS = 32
_CALL_BITS = 64
_MAX_NPY_BYTES = 1 << 20


class TarSample:
    """One sample of a tar, with the interface of :class:`refit_shard.shards_spec.Sample`."""

    def __init__(self, sample: Mapping[str, Any], own: Sequence[Field] = ()) -> None:
        self.own = own
        self.key = str(sample.get("__key__", ""))
        try:
            data, record = sample["jpg"], sample["npy"]
        except KeyError as error:
            raise ShardError(f"{self.key}: has no member {error}; is this tar a shard?") from None
        if not isinstance(data, bytes):
            raise UsageError(
                "webdataset_item: leave the images encoded: .decode() without an image handler, "
                "or no .decode() at all"
            )
        self.jpeg: bytes | memoryview = data
        self._record: Any = _load_npy(record, self.key) if isinstance(record, bytes) else record
        if not _is_record(self._record):
            raise ShardError(f"{self.key}: its .npy is damaged (not a record of this format)")
        declared(own, self._record, self.key)

    def __getitem__(self, name: str) -> Any:
        if name not in (self._record.dtype.names or ()):
            raise KeyError(name)
        value: Any = self._record[name][()]
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def check(self) -> None:
        """Check the labels against the checksum in their record.

        Raises:
            ShardError: the checksum differs.
        """
        if not is_whole_record(self._record.tobytes()):
            raise ShardError(f"{self.key}: the labels are damaged (crc32c); run refit-shard verify")


def _is_record(record: Any) -> bool:
    """True if it is one record with the field table's columns and, after them, any own labels."""
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
    return [*names, *own, RECORD_CRC] == list(fields) and all(
        record.dtype[name] == expected[name] for name in (*names, RECORD_CRC)
    )


def _load_npy(data: bytes, key: str) -> NDArray[Any]:
    if len(data) > _MAX_NPY_BYTES:
        raise ShardError(
            f"{key}: its .npy has {len(data)} bytes, at most {_MAX_NPY_BYTES} are read"
        )
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except (
        ValueError,
        SyntaxError,
        TokenError,
        Warning,
    ) as error:  # numpy parses the header as a Python literal
        raise ShardError(f"{key}: its .npy is damaged ({error})") from error
    if shape or dtype.hasobject or dtype.itemsize != len(data) - stream.tell():
        raise ShardError(f"{key}: its .npy is damaged (not one record)")
    record: NDArray[Any] = np.frombuffer(data, dtype, offset=stream.tell()).reshape(())
    return record


def _worker_seed() -> int:
    """The seed of this DataLoader worker, 0 outside of workers. PyTorch draws new ones whenever it
    starts workers.
    """
    worker = get_worker_info()
    return 0 if worker is None else worker.seed


class _Items:
    """The function of :func:`webdataset_item`; it can be pickled for spawned workers."""

    def __init__(
        self,
        policy: AugmentationPolicy | None,
        seed: int,
        options: RenderOptions,
        occluders: Occluders | None,
        labels: Sequence[Field],
    ) -> None:
        self._labels = tuple(labels)
        self._policy = policy
        self._seed = seed
        self._options = options
        self._occluders = occluders
        self._calls = 0

    def _draw(self, key: str) -> Draws:
        if self._policy is None:
            return neutral(1)
        place = (_worker_seed() << _KEY_BITS | crc32c(key.encode())) << _CALL_BITS | self._calls
        objects = 0 if self._occluders is None else len(self._occluders)
        return draw(self._policy, self._seed, place, 1, objects=objects, res=self._options.res)

    def __call__(self, sample: Mapping[str, Any]) -> Batch:
        stored = TarSample(sample, self._labels)
        draws = self._draw(stored.key)
        self._calls += 1
        try:
            made = make_item(stored, draws, self._options, self._occluders)
        except UsageError as error:
            raise UsageError(f"webdataset_item: {stored.key}: {error}") from error
        return made | {"dataset_name": stored.key.rsplit("-", 1)[0]}


def webdataset_item(
    policy: AugmentationPolicy | None = None,
    *,
    seed: int = 0,
    options: RenderOptions | None = None,
    occluders: Occluders | None = None,
    labels: Sequence[Field] = (),
) -> Callable[[Mapping[str, Any]], Batch]:
    """A function for ``wds.WebDataset(urls).decode().map(…)``: ReFit's items from the tars alone.

    An item's augmentation is a function of the seed, the sample's key, the
    number of the call in this process and, in a worker of PyTorch's DataLoader, the worker's seed.
    PyTorch draws that seed whenever it starts workers, so each epoch and each worker augments
    differently, also with persistent workers. ``torch.manual_seed`` before the first epoch (or a
    ``generator`` for the DataLoader) repeats a run.

    Args:
        policy: Distributions of the augmentation's parameters; None for no augmentation.
        seed: Seed of the augmentation.
        options: Type and size of the image; None for the defaults.
        occluders: Cut-outs to paste; None for none.
        labels: The dataset's own labels that items get, as ``ShardSet.own`` gives them. Labels that
            are not named here are left out, because a tar does not state how to augment them.

    Returns:
        A function from a sample (``__key__``, ``jpg`` and ``npy`` as bytes, or ``npy`` decoded) to
        the item that :func:`refit_shard.render` makes, with ``dataset_name``.

    Raises:
        ShardError, FrameError: from the function: a member of the tar is damaged.
        UsageError: from the function: the policy is wider than the stored crop, the image was
            decoded before, or a label has another type than ``labels`` declare.
    """
    return _Items(policy, seed, options or RenderOptions(), occluders, labels)
