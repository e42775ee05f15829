"""Splits a dataset into training and validation rows, by whole sequences.

The side of a sequence is a function of the dataset's name, the sequence's name and a seed, so rows
that are added or left out later do not move other rows to the other side. The only exception is a
side that would have no sequence at all.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.values import as_float, whole

# What to remove from a frame's name to get the name of its sequence: the first of these that gives
# more than one sequence.
_LEFT_OUT = (
    ("folder", r"[^/]*$"),
    ("name without its number", r"[0-9]*(\.[^./]*)?$"),
)


class Side(NamedTuple):
    """One side of a split: ``rows`` (n,), True for rows on this side; ``sequences`` on this side
    ``of`` so many; ``by``, the part of the name that frames of one sequence share.
    """

    rows: NDArray[np.bool_]
    sequences: int
    of: int
    by: str


class Split(NamedTuple):
    """A split: ``side``, ``"train"`` or ``"val"``; ``share`` of the sequences that are in train;
    ``seed``, which chooses these sequences.
    """

    side: str
    share: float
    seed: int = 0

    @classmethod
    def parse(cls, value: Any) -> "Split":
        """The split for a user's value: ``("train", 0.9)``, or with a seed ``("train", 0.9, 1)``.

        Raises:
            UsageError: the value has another form.
        """
        if not isinstance(value, (tuple, list)) or not 2 <= len(value) <= 3:
            raise UsageError(
                "split: must be ('train', share) or ('val', share), with a seed as an optional "
                f"third entry, got {value!r:.80}"
            )
        side, share, seed = value if len(value) == 3 else (*value, 0)
        if side not in ("train", "val"):
            raise UsageError(f"split: must begin with 'train' or 'val', got {side!r:.80}")
        number = as_float(share)
        if not 0 < number < 1:
            raise UsageError(
                "split: train's share must be a number between 0 and 1, the same for 'train' and "
                f"'val', got {share!r:.80}"
            )
        return cls(str(side), number, whole("split: the seed", seed, 0, 2**63 - 1))

    def takes(self, dataset: str, sequences: Sequence[str]) -> NDArray[np.bool_]:
        """True for the sequences of a dataset that are on this side (n,).

        The hash of its name decides the side of each sequence. If all would be on one side, the one
        whose hash is closest to the threshold is moved to the other side.
        """
        of = f"split/{self.seed}/{dataset}"
        digests = [hashlib.sha256(f"{of}/{one}".encode()).digest() for one in sequences]
        places = np.array([int.from_bytes(one[:8], "big") for one in digests], np.uint64)
        train = places < np.uint64(int(self.share * 2.0**64))
        if len(train) > 1 and train.all():
            train[places.argmax()] = False
        elif len(train) > 1 and not train.any():
            train[places.argmin()] = True
        return train if self.side == "train" else ~train

    def keep(self, dataset: str, frames: Sequence[pa.DictionaryArray]) -> Side:
        """The rows of a dataset that are on this side; ``frames``: their names, shard by shard."""
        starts = np.cumsum([0, *(len(one.dictionary) for one in frames)])
        frame_of_row = np.concatenate(
            [start + one.indices.to_numpy() for start, one in zip(starts, frames, strict=False)]
        )
        names = pa.chunked_array([one.dictionary for one in frames], pa.string())
        by, sequences = _sequences(names)
        sequence_of_frame = np.concatenate([one.indices.to_numpy() for one in sequences.chunks])
        taken = self.takes(dataset, sequences.chunk(0).dictionary.to_pylist())
        rows = taken[sequence_of_frame][frame_of_row]
        return Side(rows, int(np.count_nonzero(taken)), len(taken), by)


def _sequences(names: pa.ChunkedArray) -> tuple[str, pa.ChunkedArray]:
    """The sequence of each frame, dictionary-encoded, and what frames of one sequence share.

    That is the folder; if all frames are in one folder, the name without the number at its end; if
    that too is the same for all, each frame is a sequence.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - of no use without a split

    for by, left_out in _LEFT_OUT:
        shorter = pc.replace_substring_regex(names, left_out, "").dictionary_encode()
        if len(shorter.chunk(0).dictionary) > 1:
            return by, shorter
    return "frame", names.dictionary_encode()
