"""Draws a random seed for loaders without a given seed, the same on every rank."""

import logging
import secrets

import torch

from refit_shard.loaders.stream.ranks import Rank
from refit_shard.shards_spec.errors import UsageError

logger = logging.getLogger(__name__)

_BITS = 32  # as numpy.random.seed accepts, so that a config can state the seed later


def drawn_seed(rank: Rank) -> int:
    """A random seed, which is logged; all ranks get the seed that rank 0 has drawn.

    Raises:
        UsageError: there are several ranks but no process group for broadcasting the seed.
    """
    seed = secrets.randbits(_BITS)
    if rank.world_size > 1:
        seed = _of_rank_0(seed, rank)
    logger.info("seed: %d, drawn at random; SEED_VALUE: %d repeats this stream", seed, seed)
    return seed


def _of_rank_0(seed: int, rank: Rank) -> int:
    import torch.distributed as dist  # noqa: PLC0415

    together = dist.is_available() and dist.is_initialized()
    if not together or dist.get_world_size() != rank.world_size:
        raise UsageError(
            f"SEED_VALUE: a random seed must be the same on all ranks, and {rank} cannot receive "
            "it from rank 0: call torch.distributed.init_process_group first, or state a seed of "
            "at least 0"
        )
    # NCCL sends only tensors on a GPU.
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    told = torch.tensor([seed], dtype=torch.int64, device=device)
    dist.broadcast(told, src=0)
    return int(told.item())
