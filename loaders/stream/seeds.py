"""A random seed for loaders that are given none: drawn once, logged, and the same on every rank."""

import logging
import secrets

import torch

from refit_shard.loaders.stream.ranks import Rank
from refit_shard.shards_spec.errors import UsageError

logger = logging.getLogger(__name__)

_BITS = 32  # what numpy.random.seed takes, so that a config may state it afterwards


def drawn_seed(rank: Rank) -> int:
    """A random seed, which is logged; on all ranks the one that rank 0 drew.

    Raises:
        UsageError: there are several ranks and no process group in which rank 0 can tell it.
    """
    seed = secrets.randbits(_BITS)
    if rank.world_size > 1:
        seed = _of_rank_0(seed, rank)
    logger.info("seed: %d, drawn as none is given; SEED_VALUE: %d repeats this stream", seed, seed)
    return seed


def _of_rank_0(seed: int, rank: Rank) -> int:
    import torch.distributed as dist  # noqa: PLC0415

    together = dist.is_available() and dist.is_initialized()
    if not together or dist.get_world_size() != rank.world_size:
        raise UsageError(
            f"SEED_VALUE: a seed is to be drawn, and {rank} cannot hear from rank 0 which: call "
            "torch.distributed.init_process_group first, or state a seed of at least 0"
        )
    # NCCL moves what is on a GPU alone.
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    told = torch.tensor([seed], dtype=torch.int64, device=device)
    dist.broadcast(told, src=0)
    return int(told.item())
