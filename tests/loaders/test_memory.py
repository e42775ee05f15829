"""Memory that is lent: it comes back when nobody holds it, and never before.

A batch is its holder's for good: as views, in a child that was forked meanwhile, and as copies that
went through pickle or a queue.
"""

import copy
import gc
import io
import json
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refit_shard import StreamOptions
from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.stream.memory import BatchMemory
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.streams import Batch, all_items, items, stream

SHAPE = (6, 4, 4, 3)

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
    lambda tensor: tensor.__dlpack__(),
    lambda tensor: torch.utils.dlpack.from_dlpack(tensor.numpy()[1:]),
    lambda tensor: tensor.numpy()[1:].data[2:],
    lambda tensor: np.asarray(tensor[2:].numpy().data.cast("B")),
    lambda tensor: torch.frombuffer(tensor.numpy(), dtype=torch.uint8)[5:],
    lambda tensor: torch.empty(0).set_(tensor.untyped_storage()),
    lambda tensor: tensor.view(torch.int32)[0, ::2],
    lambda tensor: np.lib.stride_tricks.sliding_window_view(tensor.numpy(), 2, axis=0),
    copy.copy,
    lambda tensor: iter(tensor.unbind()),
    lambda tensor: lambda: tensor[0],
    lambda tensor: {"kept": [tensor[:1]]},
]


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_piece_is_free_once_all_that_shares_it_is_gone(
    hold: Callable[[torch.Tensor], Any],
) -> None:
    """By reference counts alone: nobody calls the collector in a training loop."""
    memory = BatchMemory(1, SHAPE, torch.float32)
    gc.disable()
    try:
        tensor = memory.take(5)
        piece = tensor.data_ptr()
        held = hold(tensor)
        assert memory.take(6).data_ptr() != piece
        del tensor
        assert memory.take(6).data_ptr() != piece
        del held
        assert memory.take(6).data_ptr() == piece
    finally:
        gc.enable()


def test_a_copy_holds_nothing() -> None:
    memory = BatchMemory(1, SHAPE, torch.float32)
    tensor = memory.take(6)
    piece = tensor.data_ptr()
    copies = [tensor.clone(), tensor.numpy().copy(), tensor + 1, tensor.tolist()]
    copies += [pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor)]  # noqa: S301
    del tensor
    assert memory.take(6).data_ptr() == piece
    assert copies


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_what_is_lent_is_of_the_shape_that_was_asked_for(dtype: torch.dtype) -> None:
    """And of the type; pieces do not overlap, and when there is none left memory is new."""
    memory = BatchMemory(3, SHAPE, dtype)
    lent = [memory.take(2 + number) for number in range(5)]
    for number, tensor in enumerate(lent):
        tensor.fill_(number + 1)
    for number, tensor in enumerate(lent):
        assert tensor.shape == (2 + number, *SHAPE[1:])
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert (tensor == number + 1).all()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_size_beyond_all_memory_hurts_no_smaller_batch(
    shards: Path, num_workers: int
) -> None:
    """Such as all rows in one batch, by a size that no dataset has."""
    loader = stream(shards, batch_size=1 << 20, drop_last=False, num_workers=num_workers, res=256)
    (batch,) = loader
    assert len(batch["img"]) == len(loader._maker.sources[0].shards)


def test_a_batch_that_no_memory_holds_is_one_line() -> None:
    memory = BatchMemory(2, (1 << 40, 3, 256, 256), torch.uint8)
    assert memory.take(2).shape == (2, 3, 256, 256)
    with pytest.raises(UsageError, match=r"batch_size: the images of .* samples have .* GB.*lower"):
        memory.take(1 << 40)


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


class Child:
    """A process that is forked here and now, and says at any later time what ``look`` gives."""

    def __init__(self, look: Callable[[], list[str]]) -> None:
        (asked, self._ask), (self._said, say) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                while os.read(asked, 1) == b"?":
                    os.write(say, f"{len(found := json.dumps(look())):8}{found}".encode())
            finally:
                os._exit(1)
        os.close(asked)
        os.close(say)

    def says(self) -> list[str]:
        """What the child finds now."""
        os.write(self._ask, b"?")
        with os.fdopen(os.dup(self._said), "rb") as said:
            found: list[str] = json.loads(said.read(int(said.read(8))))
        return found

    def end(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)  # nothing of the parent's is torn down twice
        os.waitpid(self.pid, 0)
        os.close(self._ask)
        os.close(self._said)


@contextmanager
def child(look: Callable[[], list[str]]) -> Iterator[Child]:
    """A forked process, until the end of the block."""
    forked = Child(look)
    try:
        yield forked
    finally:
        forked.end()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_forked_child_keeps_the_batches_that_were_held(shards: Path, num_workers: int) -> None:
    """Whatever the loop goes on to do: it lets go of them, or writes to them, and receives more."""
    batches = iter(stream(shards, num_workers=num_workers, epoch_samples=480))
    dropped, written, kept = next(batches), next(batches), next(batches)
    view = kept["img"][3].numpy()[:, ::2]
    held = [dropped, written, kept]
    then = [item for batch in held for item in items(batch)] + [str(view.tobytes())]

    def look() -> list[str]:
        return [item for batch in held for item in items(batch)] + [str(view.tobytes())]

    with child(look) as forked:
        del dropped
        held.pop(0)
        written["img"].fill_(7)
        received = 0
        for batch in batches:
            received += len(batch["imgname"])
            batch["img"].fill_(9)
        assert received == 480 - 36
        assert forked.says() == then
        assert items(kept) == then[24:36], "and the parent keeps its own"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_of_many_children_keeps_its_batch(shards: Path, num_workers: int) -> None:
    """Forked one after the other while the loop goes on; in the end only they hold their batch."""
    expected = all_items(stream(shards, epoch_samples=288))
    found: list[str] = []
    forked: list[tuple[Child, list[str]]] = []
    for batch in stream(shards, num_workers=num_workers, epoch_samples=288):
        found += items(batch)
        forked.append((Child(lambda batch=batch: items(batch)), items(batch)))  # type: ignore[misc]
    assert found == expected, "the loop's own batches are those of a loop that forks nothing"
    del batch
    gc.collect()
    for one, then in forked:
        assert one.says() == then
        one.end()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_a_child_writes_is_its_own(shards: Path, num_workers: int) -> None:
    """The parent's batch stays as it was, and so do those that follow."""
    batches = iter(stream(shards, num_workers=num_workers, epoch_samples=240))
    batch = next(batches)
    before = items(batch)

    def look() -> list[str]:
        batch["img"].numpy()[:] = 5  # torch's threads are not in the child
        return items(batch)

    with child(look) as forked:
        assert forked.says() != before
        assert items(batch) == before
        rest = all_items(batches)
    assert before + rest == all_items(stream(shards, epoch_samples=240))


def test_a_child_that_goes_on_with_the_loop_has_its_own_batches(shards: Path) -> None:
    """Without workers the iterator itself goes on in both; neither writes into the other's."""
    batches = iter(stream(shards, epoch_samples=120))
    first = next(batches)
    expected = all_items(stream(shards, epoch_samples=120))
    mine: list[Batch] = []

    def look() -> list[str]:
        mine.extend(batches)
        return [item for batch in [first, *mine] for item in items(batch)]

    with child(look) as forked:
        ours = [first, *batches]
        assert forked.says() == expected
        assert [item for batch in ours for item in items(batch)] == expected
        mine.clear()


def test_forks_of_another_thread_are_no_less_safe() -> None:
    """A batch that is lent while a thread forks is kept in the child too."""
    memory = BatchMemory(2, SHAPE, torch.float32)
    held: list[torch.Tensor] = []
    forked: list[Child] = []

    def fork() -> None:
        forked.append(Child(lambda: [str(float(tensor.sum())) for tensor in held]))

    for number in range(2):
        held.append(memory.take(6).fill_(number + 1))
    pieces = {tensor.data_ptr() for tensor in held}
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join(60)
    held.clear()
    again = [memory.take(6).fill_(100) for _ in range(2)]
    assert {tensor.data_ptr() for tensor in again} == pieces
    assert forked[0].says() == [str(float((number + 1) * 6 * 48)) for number in range(2)]
    forked[0].end()


def test_a_batch_outlives_its_loader_in_both_processes(shards: Path) -> None:
    """The iteration is over, its memory is held by the batch alone, and then the fork comes."""
    *_, batch = stream(shards, num_workers=2, epoch_samples=48)
    then = items(batch)
    gc.collect()
    with child(lambda: items(batch)) as forked:
        batch["img"].fill_(3)
        assert forked.says() == then


def test_workers_of_another_loader_take_no_memory_away(shards: Path) -> None:
    """A validation every few steps forks workers while a batch is held: memory is still used
    again, so its cost does not grow with a long epoch.
    """
    options = StreamOptions(batch_size=4, res=32, num_workers=1, rank=0, world_size=1)
    validation = EvaluationLoader("agora", str(shards / "agora"), options)
    places = set()
    for step, batch in enumerate(stream(shards, num_workers=2, prefetch=2, epoch_samples=600)):
        places.add(batch["img"].data_ptr())
        if step % 5 == 0:
            assert sum(len(one["imgname"]) for one in validation) == 9
    assert len(places) <= 2 * 2 + 2


def through_pickle(batch: Batch) -> Batch:
    """Pickled and back."""
    found: Batch = pickle.loads(pickle.dumps(batch))  # noqa: S301
    return found


def through_torch_save(batch: Batch) -> Batch:
    """Saved and loaded."""
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    found: Batch = torch.load(file, weights_only=True)
    return found


def through_queue(module: Any) -> Callable[[Batch], Batch]:
    """Through a queue of a multiprocessing module."""
    queue = module.get_context("fork").Queue()

    def send(batch: Batch) -> Batch:
        queue.put(batch)
        found: Batch = queue.get(timeout=60)
        return found

    return send


WAYS: dict[str, Callable[[], Callable[[Batch], Batch]]] = {
    "pickle": lambda: through_pickle,
    "torch.save": lambda: through_torch_save,
    "deepcopy": lambda: copy.deepcopy,
    "torch's queue": lambda: through_queue(torch.multiprocessing),
    "the standard library's queue": lambda: through_queue(multiprocessing),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # torch 2.0 itself
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_copies_stay_what_they_were(shards: Path, num_workers: int, way: str) -> None:
    """Of each batch and of a view of it, while the loop goes on without the batch itself."""
    send = WAYS[way]()
    kept: list[tuple[Batch, list[str]]] = []
    for batch in stream(shards, num_workers=num_workers, epoch_samples=240):
        then = items(batch)
        kept.append((send(batch), then))
        part = {name: values[2:5] for name, values in batch.items()}
        kept.append((send(part), then[2:5]))
        assert items(batch) == then, "nor does sending change the batch itself"
    for now, then in kept:
        assert items(now) == then


@pytest.mark.parametrize("module", [multiprocessing, torch.multiprocessing])
def test_what_a_queue_brought_to_another_process_stays(shards: Path, module: Any) -> None:
    """The receiver keeps the batches; the sender's loop goes on."""
    context = module.get_context("fork")
    queue, answers = context.Queue(), context.Queue()

    def receive() -> None:
        kept = [queue.get(timeout=60) for _ in range(12)]
        queue.get(timeout=60)  # the sender's loop is over
        answers.put([items(batch) for batch in kept])

    receiver = context.Process(target=receive)
    receiver.start()
    expected: list[list[str]] = []
    for batch in stream(shards, num_workers=2, epoch_samples=480):
        if len(expected) < 12:
            queue.put(batch)
            expected.append(items(batch))
    queue.put(None)
    assert answers.get(timeout=60) == expected
    receiver.join(60)
