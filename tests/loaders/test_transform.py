"""A transform of the user's own: part of the stream, whatever makes it, and named in its state."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from refit_shard import BatchTransform, EvaluationLoader, StreamOptions
from refit_shard.loaders.stream.transform import DrawFunction
from refit_shard.shards_spec.errors import TransformError, UsageError
from tests.loaders.streams import Batch, all_items, items, stream


def darker(batch: Batch, draws: DrawFunction) -> Batch:
    """In place: darker images, and what was drawn, beside them."""
    batch["img"] *= 0.5 + draws(1)[:, :, None, None] / 2
    batch["drawn"] = draws(5)
    return batch


def darker_anew(batch: Batch, draws: DrawFunction) -> Batch:
    """The same in a new dict of new tensors."""
    images = batch["img"] * (0.5 + draws(1)[:, :, None, None] / 2)
    return {**batch, "img": images, "drawn": draws(5)}


def named(function: Callable[..., Any], name: str = "darker-1") -> BatchTransform:
    """A transform."""
    return BatchTransform(name=name, function=function)


@pytest.fixture(scope="module")
def expected(shards: Path) -> list[str]:
    """Two epochs without workers."""
    loader = stream(shards, transform=named(darker))
    return all_items(loader) + all_items(loader)


@pytest.mark.parametrize("function", [darker, darker_anew])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
def test_threads_change_nothing(
    shards: Path, expected: list[str], function: Callable[..., Any], num_workers: int
) -> None:
    """Byte for byte, with batches that are all held until the end."""
    loader = stream(shards, transform=named(function), num_workers=num_workers, prefetch=3)
    held = [*loader, *loader]
    assert all_items(held) == expected
    plain = list(stream(shards))
    for one, other in zip(held, plain, strict=False):
        assert float(one.pop("drawn").max()) < 1
        assert not torch.equal(one.pop("img"), other.pop("img"))
    assert all_items(held[:3]) == all_items(plain)


def test_ranks_share_the_stream(shards: Path, expected: list[str]) -> None:
    """The parts of two ranks, in order, are the batches of one."""
    ranks = [
        stream(shards, transform=named(darker), batch_size=6, rank=rank, world_size=2)
        for rank in range(2)
    ]
    found = [item for step in zip(*ranks, strict=True) for batch in step for item in items(batch)]
    assert found == expected[:36]


def test_resumes_in_the_middle(shards: Path, expected: list[str]) -> None:
    """Another loader, with other threads, goes on with the same numbers."""
    loader = stream(shards, transform=named(darker))
    iterator = iter(loader)
    next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["transform"] == "darker-1"
    resumed = stream(shards, transform=named(darker_anew), num_workers=3)
    resumed.load_state_dict(state)
    assert all_items(resumed) + all_items(resumed) == expected[12:]


def uniform(seed: int, call: int, position: int, count: int) -> NDArray[np.float64]:
    """The numbers of a sample as docs/how/streaming.md describes them, made one by one."""
    digest = hashlib.sha256(f"{seed}/transform/{call}".encode()).digest()
    words = -(-count // 4) * 4
    place = np.random.Philox(
        key=int.from_bytes(digest[:16], "little"), counter=position * words // 4
    )
    return np.asarray((place.random_raw(count) >> np.uint64(40)) * 2.0**-24, np.float64)


def test_draws_are_a_function_of_seed_call_and_position(shards: Path) -> None:
    """As described, for each sample, also of a last, smaller batch."""
    seen: list[tuple[torch.Tensor, ...]] = []

    def look(batch: Batch, draws: DrawFunction) -> Batch:
        seen.append((draws(1), draws(7), draws(8)))
        return batch

    assert len(all_items(stream(shards, seed=5, drop_last=False, transform=named(look)))) == 40
    assert [len(one[0]) for one in seen] == [12, 12, 12, 4]
    for call, count in enumerate((1, 7, 8)):
        drawn = torch.cat([one[call] for one in seen])
        assert drawn.dtype == torch.float32
        assert drawn.shape == (40, count)
        assert 0 <= float(drawn.min()) < float(drawn.max()) < 1
        wanted = [uniform(5, call, position, count) for position in range(40)]
        assert np.array_equal(drawn.numpy().astype(np.float64), np.stack(wanted))


def test_it_runs_in_the_background(shards: Path) -> None:
    """In the threads that draw, not in the loop's own."""
    seen = set()

    def look(batch: Batch, draws: DrawFunction) -> Batch:
        del draws
        seen.add(threading.current_thread().name.rpartition("-")[0])
        return batch

    all_items(stream(shards, transform=named(look), num_workers=2))
    assert seen == {"refit-shard-draw"}


def fails(batch: Batch, draws: DrawFunction) -> Batch:
    """Raises at once."""
    del batch, draws
    raise ZeroDivisionError("no light")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_it_raises_reaches_the_loop(shards: Path, num_workers: int) -> None:
    """With its name, and with the user's own lines as the cause."""
    loader = stream(shards, transform=named(fails), num_workers=num_workers)
    with pytest.raises(
        TransformError, match=r"^transform 'darker-1': ZeroDivisionError: no light$"
    ) as caught:
        next(iter(loader))
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    last = cause.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None
    assert last.tb_frame.f_code.co_name == "fails"
    assert loader.state_dict()["position"] == 0


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "NoneType"), ([1], "list"), (torch.zeros(2), "Tensor")]
)
def test_what_is_no_batch_is_refused(shards: Path, returned: Any, said: str) -> None:
    """A function that changes a batch in place must return it too."""
    loader = stream(shards, transform=named(lambda *_: returned), num_workers=1)
    with pytest.raises(TransformError, match=f"must return the batch, a dict, got {said}; end"):
        next(iter(loader))


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "3", 2**30])
def test_wrong_numbers_of_draws(shards: Path, n: Any) -> None:
    """By name, with the bounds."""

    def draw(batch: Batch, draws: DrawFunction) -> Batch:
        draws(n)
        return batch

    with pytest.raises(TransformError, match=r"'darker-1': .*draws\(n\): n: must be a whole"):
        next(iter(stream(shards, transform=named(draw))))


@pytest.mark.parametrize(
    ("make", "named_in_error"),
    [
        (lambda: StreamOptions(transform=darker), "BatchTransform, which names the function"),  # type: ignore[arg-type]
        (lambda: StreamOptions(transform="darker"), "must be a BatchTransform"),  # type: ignore[arg-type]
        (lambda: BatchTransform(name="", function=darker), "name must be a text of 1 to 100"),
        (lambda: BatchTransform(name="a" * 101, function=darker), "name must be a text of 1 to"),
        (lambda: BatchTransform(name=3, function=darker), "name must be a text .* got 3"),  # type: ignore[arg-type]
        (lambda: BatchTransform(name="a", function=3), "function must be called as function"),  # type: ignore[arg-type]
    ],
)
def test_wrong_transforms(make: Callable[[], object], named_in_error: str) -> None:
    """A bare function has no name that a state could hold."""
    with pytest.raises(UsageError, match=named_in_error):
        make()


def test_a_state_of_another_transform_is_refused(shards: Path) -> None:
    """By its name; it may be changed, begun or ended on purpose."""
    states = {
        "one": stream(shards, transform=named(darker, "one")).state_dict(),
        "None": stream(shards).state_dict(),
    }
    loaders = {
        "two": stream(shards, transform=named(darker, "two")),
        "None": stream(shards),
    }
    for had, has in (("one", "two"), ("one", "None"), ("None", "two")):
        said = f"transform is '?{had}'?, this loader's is '?{has}'?; if the change is intended: "
        with pytest.raises(UsageError, match=said + r".*changed=\('transform',\)"):
            loaders[has].load_state_dict(states[had])
        with pytest.raises(UsageError, match="transform is"):
            loaders[has].load_state_dict(states[had], changed=("policy", "ratios"))
        loaders[has].load_state_dict(states[had], changed=("transform",))


def test_an_evaluation_has_none(shards: Path) -> None:
    """Each row as it is, whatever the options say."""
    options = StreamOptions(res=32, num_workers=0, rank=0, world_size=1, transform=named(fails))
    assert len(all_items(EvaluationLoader("agora", str(shards / "agora"), options))) == 9
