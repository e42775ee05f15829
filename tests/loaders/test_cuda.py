"""Page-locked memory, where CUDA is in use: by a fake of the places that ask for it, and by a GPU
where there is one.
"""

import mmap
from pathlib import Path
from typing import Any

import pytest
import torch

from refit_shard import finalize
from refit_shard.loaders.items import making
from refit_shard.loaders.stream import memory, workers
from tests.loaders.streams import all_items, items, stream


def test_without_cuda_nothing_is_asked_of_it(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even how many devices there are: that would begin to use the driver."""

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError

    for name in ("init", "_lazy_init", "device_count", "current_device", "device"):
        monkeypatch.setattr(torch.cuda, name, fail)
    monkeypatch.setattr(memory, "page_locked", fail)
    for num_workers in (0, 2):
        for batch in stream(shards, num_workers=num_workers, image="uint8"):
            finalize(batch, "cpu")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("image", ["uint8", "bfloat16"])
def test_images_are_made_in_page_locked_memory(
    shards: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int, image: str
) -> None:
    """Of the loop's device, one piece a batch, as PyTorch gives it; no pages of our own."""
    asked: list[tuple[Any, ...]] = []
    given: list[torch.Tensor] = []

    def page_locked(*what: Any) -> torch.Tensor:
        asked.append(what)
        given.append(torch.empty(what[0], dtype=what[1]))
        return given[-1]

    expected = all_items(stream(shards, image=image))
    monkeypatch.setattr(memory, "page_locked", page_locked)
    monkeypatch.setattr(mmap, "mmap", None)
    monkeypatch.setattr(workers, "device_in_use", lambda: 3)
    received = list(stream(shards, image=image, num_workers=num_workers))
    assert all_items(received) == expected
    shape, dtype = tuple(received[0]["img"].shape), received[0]["img"].dtype
    assert asked == [(shape, dtype, 3)] * len(received)
    assert {id(batch["img"]) for batch in received} == {id(tensor) for tensor in given}


def test_the_device_is_that_of_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.device_in_use() is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    assert memory.device_in_use() == 5


class FakeTensor:
    """What is done with a tensor on its way to a device."""

    def __init__(self, *, is_cuda: bool = False, pinned: bool = False) -> None:
        self.is_cuda = is_cuda
        self.done: list[Any] = []
        self._pinned = pinned

    def is_pinned(self) -> bool:
        """Whether it is in page-locked memory."""
        return self._pinned

    def pin_memory(self) -> "FakeTensor":
        """A copy that is."""
        self.done.append("pin")
        self._pinned = True
        return self

    def to(self, device: Any, *, non_blocking: bool) -> "FakeTensor":
        """A copy on the device."""
        self.done.append((str(device), non_blocking))
        return self


@pytest.mark.parametrize(
    ("tensor", "device", "done"),
    [
        (FakeTensor(), None, []),
        (FakeTensor(), "cpu", [("cpu", True)]),
        (FakeTensor(), "cuda:1", ["pin", ("cuda:1", True)]),
        (FakeTensor(), torch.device("cuda"), ["pin", ("cuda", True)]),
        (FakeTensor(pinned=True), "cuda", [("cuda", True)]),
        (FakeTensor(is_cuda=True), "cuda", [("cuda", True)]),
    ],
)
def test_what_is_sent_to_cuda_is_page_locked(
    tensor: FakeTensor, device: Any, done: list[Any]
) -> None:
    """Small labels too: one pageable tensor would make the loop wait."""
    making._sent(tensor, device)  # type: ignore[arg-type]
    assert tensor.done == done


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_on_a_gpu_batches_are_whole(shards: Path, num_workers: int) -> None:
    """Page-locked, and right on the device though the loop lets go of each at once and the device
    is behind.
    """
    torch.zeros(1, device="cuda")
    how: dict[str, Any] = {"image": "uint8", "res": 128, "epoch_samples": 480}
    expected = [finalize(batch) for batch in stream(shards, **how)]
    busy = torch.rand(4096, 4096, device="cuda")
    found = []
    for batch in stream(shards, num_workers=num_workers, **how):
        assert batch["img"].is_pinned()
        busy = busy @ busy / 4096
        found.append(finalize(batch, "cuda"))
        del batch
    torch.cuda.synchronize()
    for one, other in zip(found, expected, strict=True):
        here = {key: one[key].cpu() if torch.is_tensor(one[key]) else one[key] for key in one}
        labels = {key: value for key, value in here.items() if key != "img"}
        assert items(labels) == items({key: other[key] for key in labels})
        assert (here["img"] - other["img"]).abs().max() < 0.02
