"""Memory that is lent: it comes back when nobody holds it, and never before."""

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders.memory import BatchMemory
from tests.loaders.streams import all_items, items, stream

SHAPE = (6, 4, 4, 3)
FLOAT = np.dtype(np.float32)

HOLDERS: list[Callable[[torch.Tensor], Any]] = [
    lambda tensor: tensor,
    lambda tensor: tensor[1:3],
    lambda tensor: tensor[2, 3],
    lambda tensor: tensor.permute(0, 3, 1, 2),
    lambda tensor: tensor.flatten(),
    lambda tensor: tensor.detach(),
    lambda tensor: list(tensor)[-1],
    lambda tensor: tensor.requires_grad_(True).flatten().sum(),
    lambda tensor: tensor.untyped_storage(),
    lambda tensor: tensor.numpy(),
    lambda tensor: tensor.numpy()[::2, 1],
    lambda tensor: tensor.numpy().reshape(-1).view(np.uint8),
    lambda tensor: torch.from_numpy(tensor.numpy()[3:]),
    lambda tensor: tensor.numpy().data,
    np.from_dlpack,
    lambda tensor: {"kept": [tensor[:1]]},
]


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_piece_is_free_once_all_that_shares_it_is_gone(
    hold: Callable[[torch.Tensor], Any],
) -> None:
    """By reference counts alone: nobody calls the collector in a training loop."""
    memory = BatchMemory(1, SHAPE, FLOAT)
    number = memory.take()
    assert number == 0
    gc.disable()
    try:
        tensor = memory.lend(number, 5)
        held = hold(tensor)
        assert memory.take() is None
        del tensor
        assert memory.take() is None
        del held
        assert memory.take() == 0
    finally:
        gc.enable()


def test_a_copy_holds_nothing() -> None:
    memory = BatchMemory(1, SHAPE, FLOAT)
    tensor = memory.lend(memory.take() or 0, 6)
    copies = [tensor.clone(), tensor.numpy().copy(), tensor + 1, tensor.tolist()]
    del tensor
    assert memory.take() == 0
    assert copies


def test_what_is_lent_is_the_piece_itself() -> None:
    """Of the shape, type and length asked for; pieces do not overlap."""
    memory = BatchMemory(3, SHAPE, FLOAT)
    numbers = [memory.take() for _ in range(3)]
    assert sorted(numbers) == [0, 1, 2]  # type: ignore[type-var]
    assert memory.take() is None
    for number in range(3):
        memory.array(number, 6)[:] = number + 1
    lent = [memory.lend(number, 2 + number) for number in range(3)]
    for number, tensor in enumerate(lent):
        assert tensor.shape == (2 + number, *SHAPE[1:])
        assert tensor.dtype == torch.float32
        assert (tensor == number + 1).all()


def test_a_child_writes_where_its_parent_reads() -> None:
    memory = BatchMemory(2, SHAPE, np.dtype(np.uint8))

    def work() -> None:
        memory.array(1, 6)[:] = 9

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert (memory.lend(1, 6) == 9).all()
    assert (memory.lend(0, 6) == 0).all()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("keep", ["all", "some", "views"])
def test_what_the_loop_keeps_is_not_written_to(shards: Path, num_workers: int, keep: str) -> None:
    """Thirty batches, more than there are pieces: kept whole, every third, or as a view."""
    expected = all_items(stream(shards, epoch_samples=360))
    kept: list[tuple[Any, Any]] = []
    found: list[str] = []
    for step, batch in enumerate(stream(shards, num_workers=num_workers, epoch_samples=360)):
        found += items(batch)
        if keep == "all" or (keep == "some" and step % 3 == 0):
            kept.append((batch, items(batch)))
        elif keep == "views":
            kept.append((batch["img"][7].numpy()[:, ::2], batch["img"][7, :, ::2].clone().numpy()))
    assert found == expected
    assert len(kept) == (10 if keep == "some" else 30)
    for now, then in kept:
        assert np.array_equal(now, then) if keep == "views" else items(now) == then


def test_what_the_loop_writes_is_not_seen_again(shards: Path) -> None:
    """A loop may work in place, on images and labels."""
    found = []
    for batch in stream(shards, num_workers=2, epoch_samples=360):
        found += items(batch)
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.fill_(1)
    assert found == all_items(stream(shards, epoch_samples=360))


def test_a_loop_that_keeps_nothing_uses_few_pieces(shards: Path) -> None:
    """Memory is used again, without workers nearly at once."""
    loader = stream(shards, num_workers=0, epoch_samples=600)
    assert len({batch["img"].data_ptr() for batch in loader}) <= 2
    loader = stream(shards, num_workers=2, prefetch=2, epoch_samples=600)
    assert len({batch["img"].data_ptr() for batch in loader}) <= 2 * 2 + 2
