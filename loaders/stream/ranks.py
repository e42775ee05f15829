"""This process's rank: from the options, torch.distributed, or a launcher's environment."""

import os
from typing import NamedTuple

from refit_shard.loaders.stream.options import StreamOptions
from refit_shard.shards_spec.errors import UsageError

# Variables with the number of processes that a launcher without RANK has started. Only variables
# that launchers set for their own processes are used; Slurm's SLURM_NTASKS and SLURM_PROCID are
# also set in a batch script, which is a single process.
_LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "MV2_COMM_WORLD_SIZE": "MVAPICH's mpirun",
    "PMI_SIZE": "an MPI launcher",
}


class Rank(NamedTuple):
    """The number of this process among the ``world_size`` processes that share a stream."""

    rank: int
    world_size: int

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size}"

    def check_unchanged(self, options: StreamOptions) -> None:
        """Raise if the rank of this process has changed since the loader was made.

        Raises:
            UsageError: the rank or the world size is now another.
        """
        now = find_rank(options)
        if now != self:
            raise UsageError(
                f"this loader was made by {self}, now this process is {now}; make the loader after "
                "torch.distributed.init_process_group, or pass rank= and world_size="
            )


def find_rank(options: StreamOptions) -> Rank:
    """The rank from the options, else from torch.distributed, else the environment, else 0 of 1.

    Raises:
        UsageError: RANK and WORLD_SIZE are not valid, or a launcher has started several processes
            and nothing tells the rank of this one.
    """
    if options.rank is not None and options.world_size is not None:
        return Rank(options.rank, options.world_size)
    import torch.distributed as dist  # noqa: PLC0415

    if dist.is_available() and dist.is_initialized():
        return Rank(dist.get_rank(), dist.get_world_size())
    stated = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    if stated == {"RANK": None, "WORLD_SIZE": None}:
        _check_alone()
        return Rank(0, 1)
    try:
        found = Rank(int(stated["RANK"] or ""), int(stated["WORLD_SIZE"] or ""))
    except ValueError:
        found = Rank(-1, -1)
    if not 0 <= found.rank < found.world_size:
        said = " of ".join(f"{name}={value or ''}" for name, value in stated.items())
        raise UsageError(
            f"environment: {said} is not valid; set both, or pass rank= and world_size="
        )
    return found


def _check_alone() -> None:
    for variable, launcher in _LAUNCHERS.items():
        text = os.environ.get(variable, "")
        if text.isdecimal() and int(text) > 1:
            raise UsageError(
                f"environment: {variable}={text}: {launcher} has started {text} processes, and "
                "nothing says which rank this one is; call torch.distributed.init_process_group "
                "first, or pass rank= and world_size= (rank=0, world_size=1 for a stream of its "
                "own)"
            )
