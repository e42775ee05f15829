"""Your own function that changes each batch, called in the thread that makes the batch.

Its random numbers are a function of the loader's seed and of each sample's position in the stream,
so batches are the same for any number of workers and ranks, and after a resume.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from refit_shard.loaders.philox import WORDS, uniforms
from refit_shard.shards_spec.errors import TransformError, UsageError
from refit_shard.shards_spec.values import hold, whole

if TYPE_CHECKING:
    import torch

Batch = dict[str, Any]
DrawFunction = Callable[[int], "torch.Tensor"]

MAX_NAME = 100
_MAX_DRAWS = 1 << 20
_STEPS = 1 << 24  # of [0, 1), each exact in float32


@dataclass(frozen=True, kw_only=True)
class BatchTransform:
    """Your own function that changes a batch, such as an augmentation or targets for a loss.

    Args:
        name: Name of the transform in saved states, 1 to 100 characters. A state with another name
            is refused, so change the name whenever you change what the function does.
        function: Called as ``function(batch, draws)`` with the finished batch. It returns the
            batch, changed in place, or a new dict. ``draws(n)`` returns n random numbers for each
            sample, uniform in [0, 1), as a float32 tensor (B, n); each call returns other numbers.
            Several threads call the function at once, so it must not keep state between calls.

    Raises:
        UsageError: the name is not such a text, or the function is not callable.
    """

    name: str
    function: Callable[[Batch, DrawFunction], Batch] = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME:
            raise UsageError(
                f"BatchTransform: name must be a text of 1 to {MAX_NAME} characters, got "
                f"{self.name!r:.80}"
            )
        hold(self, name=str(self.name))
        if not callable(self.function):
            raise UsageError(
                "BatchTransform: function must be called as function(batch, draws), got "
                f"{self.function!r:.80}"
            )

    def apply(self, batch: Batch, seed: int, first: int, count: int) -> Batch:
        """The batch after the function has changed it.

        Args:
            batch: A finished batch.
            seed: Seed of the stream.
            first: Position of the batch's first sample in the stream.
            count: Number of samples in the batch.

        Raises:
            TransformError: the function failed, or returned no dict.
        """
        try:
            changed = self.function(batch, _Draws(seed, first, count))
        except Exception as error:  # whatever the user's own code raises
            raise TransformError(
                f"transform {self.name!r}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(changed, dict):
            raise TransformError(
                f"transform {self.name!r}: must return the batch, a dict, got "
                f"{type(changed).__name__}; end the function with: return batch"
            )
        return changed


class _Draws:
    """The random numbers of one batch."""

    def __init__(self, seed: int, first: int, count: int) -> None:
        self._seed = seed
        self._first = first
        self._count = count
        self._calls = 0

    def __call__(self, n: int) -> "torch.Tensor":
        import torch  # noqa: PLC0415

        n = whole("draws(n): n", n, 1, _MAX_DRAWS)
        words = -(-n // WORDS) * WORDS
        purpose = f"transform/{self._calls}"
        self._calls += 1
        values = uniforms(self._seed, purpose, self._first, self._count, words)[:, :n]
        return torch.from_numpy((np.floor(values * _STEPS) / _STEPS).astype(np.float32))
