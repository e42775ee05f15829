"""Loader for evaluation: each row once, in the order of the npz, without augmentation."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from refit_shard.loaders.refit.bodies import Bodies
from refit_shard.loaders.stream.batches import BatchMaker
from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.loaders.stream.ranks import find_rank
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import AnyPath, location

Batch = dict[str, Any]

NO_REGRESSOR = (
    "the H36M joint regressor is missing, which ReFit's validation needs: put J_regressor_h36m.npy "
    "of SPIN's data package into data/smpl, or pass its path as joint_regressor="
)


class EvaluationSet:
    """The ``dataset`` of the test loader, whose length and regressor ReFit's trainer reads."""

    def __init__(self, rows: int, regressor: torch.Tensor | None) -> None:
        self._rows = rows
        self._regressor = regressor

    @property
    def J_regressor(self) -> torch.Tensor:  # noqa: N802
        """The H36M joint regressor, float32 (17, V).

        Raises:
            UsageError: none was given.
        """
        if self._regressor is None:
            raise UsageError(f"test_loader.dataset.J_regressor: {NO_REGRESSOR}")
        return self._regressor

    def __len__(self) -> int:
        return self._rows


class EvaluationLoader:
    """Batches of all rows of one dataset, each row once, in order; the last batch may be smaller.

    The rows are divided into nearly equal consecutive parts, one for each rank. Options that would
    change which rows are evaluated are ignored: there is no augmentation, transform, mixing or
    ``drop_last``, and a damaged sample always raises, because a replacement would be counted twice.
    ``where`` and ``split`` apply.

    Args:
        name: Name of the dataset in batches and errors.
        url: Path or URL of its shards.
        options: Options of the stream.
        bodies: SMPL models, from which ``pose_3d`` becomes the 17 H36M joints (B, 17, 4) and
            ``gt_verts`` (B, V, 3) the vertices of each row's mesh, metres. None for ``pose_3d`` as
            in training.
        regressor: The value of ``dataset.J_regressor`` if ``bodies`` is None.

    Raises:
        UsageError: the shards are missing or an option is wrong.
    """

    def __init__(
        self,
        name: str,
        url: AnyPath,
        options: StreamOptions,
        bodies: Bodies | None = None,
        regressor: torch.Tensor | None = None,
    ) -> None:
        self._options = replace(
            options,
            augment=False,
            transform=None,
            drop_last=False,
            mixing="exact",
            window=None,
            on_error="raise",
        )
        self._rank = find_rank(options)
        self._maker = BatchMaker({name: (location(url), 1.0)}, self._options, sequential=True)
        self._bodies = bodies
        rows = self._maker.largest
        rank, world_size = self._rank
        self._begin = rows * rank // world_size
        self._end = rows * (rank + 1) // world_size
        self.dataset = EvaluationSet(rows, regressor if bodies is None else bodies.regressor.cpu())

    def __repr__(self) -> str:
        (source,) = self._maker.sources
        rows = f"rows {self._begin} to {self._end - 1} on {self._rank}"
        sizes = f"batch_size {self._options.batch_size}, num_workers {self._options.num_workers}"
        return f"{type(self).__name__}(\n  {source}\n  {rows}, {sizes}\n)"

    def __len__(self) -> int:
        return len(range(self._begin, self._end, self._options.batch_size))

    def _slices(self) -> Iterator[tuple[int, int]]:
        for begin in range(self._begin, self._end, self._options.batch_size):
            yield begin, min(self._end, begin + self._options.batch_size)

    def _finish(self, batch: Batch) -> Batch:
        if self._bodies is not None:
            joints, vertices = self._bodies.joints_and_vertices(
                batch["pose"], batch["betas"], batch["gender"]
            )
            batch |= {"pose_3d": joints.cpu(), "gt_verts": vertices.cpu()}
        return batch

    def __iter__(self) -> Iterator[Batch]:
        self._rank.check_unchanged(self._options)
        with closing(self._maker.batches(self._slices())) as batches:
            for batch, _ in batches:
                yield self._finish(batch)
