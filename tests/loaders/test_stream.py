"""The stream is a function of (seed, position): workers, ranks and epochs change nothing."""

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from refit_shard.loaders.philox import PhiloxStreams
from refit_shard.loaders.stream import order
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.streams import all_items, all_names, check_passes, names, stream

ROWS = {"bedlam": 40, "agora": 9, "coco": 19}


@pytest.mark.parametrize("mixing", ["exact", "iid"])
@pytest.mark.parametrize("image", ["normalized", "bfloat16", "uint8"])
def test_workers_and_prefetch_change_nothing(shards: Path, mixing: str, image: str) -> None:
    """Two epochs, byte for byte, whatever works ahead; also with more workers than shards."""

    def two_epochs(**how: Any) -> list[str]:
        loader = stream(shards, mixing=mixing, image=image, **how)
        return all_items(loader) + all_items(loader)

    expected = two_epochs(num_workers=0)
    assert len(expected) == 72
    assert len(set(expected)) == 72
    for how in (
        {"num_workers": 1},
        {"num_workers": 3, "prefetch": 1},
        {"num_workers": 3, "prefetch": 20},
        {"num_workers": 40},
    ):
        assert two_epochs(**how) == expected


@pytest.mark.parametrize("mixing", ["exact", "iid"])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_the_one_process_stream(shards: Path, mixing: str, world_size: int) -> None:
    """With the same global batch, the ranks' slices of each step make up its batch, in order."""
    expected = [all_items([batch]) for batch in stream(shards, mixing=mixing)]
    ranks = [
        stream(
            shards,
            mixing=mixing,
            batch_size=12 // world_size,
            rank=rank,
            world_size=world_size,
            num_workers=rank,
        )
        for rank in range(world_size)
    ]
    found = [
        [item for batch in step for item in all_items([batch])] for step in zip(*ranks, strict=True)
    ]
    assert found == expected
    assert {len(rank) for rank in ranks} == {len(expected)} == {3}


def test_the_first_samples_of_seed_0(shards: Path) -> None:
    """Literally these rows, so that no version changes the stream unseen."""
    found = names(next(iter(stream(shards))))
    assert found == [
        *[("bedlam", 31), ("coco", 5), ("bedlam", 6), ("agora", 1), ("bedlam", 7), ("bedlam", 13)],
        *[("coco", 11), ("bedlam", 27), ("coco", 3), ("bedlam", 10), ("bedlam", 35), ("coco", 9)],
    ]


def test_a_windowed_stream_is_a_stream_like_any_other(shards: Path) -> None:
    """Other rows, each once a pass, whatever the workers; one of all shards changes nothing."""
    loader = stream(shards, window=2, num_workers=2)
    found = [all_names(loader) for _ in range(8)]
    check_passes([name for epoch in found for name in epoch], ROWS)
    assert found[0] == all_names(stream(shards, window=2))
    assert found[0] != all_names(stream(shards))
    assert all_items(stream(shards, window=1000)) == all_items(stream(shards))


def test_a_windowed_stream_resumes(shards: Path) -> None:
    """From the state after a batch the rest follows."""
    loader = stream(shards, window=2)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    resumed = stream(shards, window=2)
    resumed.load_state_dict(state)
    assert all_items(resumed) == all_items(iterator)


def test_seeds_differ(shards: Path) -> None:
    """Another seed gives other rows and other parameters."""
    first = [next(iter(stream(shards, seed=seed))) for seed in (0, 1)]
    assert names(first[0]) != names(first[1])
    assert first[0]["rot"].tolist() != first[1]["rot"].tolist()


@pytest.mark.parametrize("num_workers", [0, 1, 7])
@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        ({}, [12, 12, 12]),
        ({"drop_last": False}, [12, 12, 12, 4]),
        ({"epoch_samples": 25}, [12, 12]),
        ({"epoch_samples": 25, "drop_last": False}, [12, 12, 1]),
        ({"epoch_samples": 5, "drop_last": False}, [5]),
        ({"epoch_samples": 24, "drop_last": False}, [12, 12]),
        ({"epoch_samples": 100}, [12] * 8),
        ({"batch_size": 40}, [40]),
        ({"batch_size": 64, "drop_last": False}, [40]),
    ],
)
def test_length_of_an_epoch(
    shards: Path, num_workers: int, how: dict[str, Any], sizes: list[int]
) -> None:
    """The largest source by default; ``len`` is the batches that come, whatever the workers."""
    loader = stream(shards, num_workers=num_workers, **how)
    for _ in range(2):
        assert [len(batch["imgname"]) for batch in loader] == sizes
        assert len(loader) == len(sizes)


@pytest.mark.parametrize("world_size", [2, 3])
def test_last_batch_is_shared_by_all_ranks(shards: Path, world_size: int) -> None:
    """Without drop_last every rank has the same number of batches, and none of them is empty."""
    how: dict[str, Any] = {"batch_size": 4, "world_size": world_size, "drop_last": False}
    ranks = [stream(shards, rank=rank, **how) for rank in range(world_size)]
    batches = [[names(batch) for batch in rank] for rank in ranks]
    assert {len(found) for found in batches} == {len(ranks[0])}
    assert all(len(batch) > 0 for found in batches for batch in found)
    steps = [name for step in zip(*batches, strict=True) for batch in step for name in batch]
    assert steps == all_names(stream(shards, batch_size=4 * world_size, drop_last=False))
    assert len(steps) == 40


@pytest.mark.parametrize("drop_last", [True, False])
def test_no_row_repeats_or_is_left_out_across_epochs(shards: Path, drop_last: bool) -> None:
    """Passes go on from epoch to epoch, also where an epoch's last batch was dropped."""
    loader = stream(shards, drop_last=drop_last, res=16)
    found = [all_names(loader) for _ in range(8)]
    check_passes([name for epoch in found for name in epoch], ROWS)
    assert len({tuple(epoch) for epoch in found}) == 8


def test_no_row_repeats_or_is_left_out_across_ranks_and_resumes(shards: Path) -> None:
    """A run that is stopped again and again, and goes on with more or fewer ranks."""
    found: list[tuple[str, int]] = []
    state = None
    for world_size, steps in ((1, 2), (2, 3), (4, 1), (3, 4), (1, 5), (2, 9)):
        how: dict[str, Any] = {"batch_size": 12 // world_size, "world_size": world_size, "res": 16}
        ranks = [stream(shards, rank=rank, **how) for rank in range(world_size)]
        for rank in ranks:
            if state is not None:
                rank.load_state_dict(state)
        done = 0
        while done < steps:
            for step in zip(*ranks, strict=True):
                found += all_names(step)
                done += 1
                if done == steps:
                    break
        state = ranks[0].state_dict()
        assert all(rank.state_dict() == state for rank in ranks)
    assert len(found) == 12 * 24
    check_passes(found, ROWS)
    whole = stream(shards, res=16)
    assert found == [name for _ in range(8) for name in all_names(whole)]


def test_set_epoch_goes_to_an_epoch(shards: Path) -> None:
    """Epochs go on by themselves; set_epoch gives the same ones, and may repeat one."""
    loader = stream(shards)
    epochs = [all_items(loader) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for epoch in (2, 0, 1):
        loader.set_epoch(epoch)
        assert all_items(loader) == epochs[epoch]
    fresh = stream(shards)
    for epoch in range(3):  # as scripts for DistributedSampler do
        fresh.set_epoch(epoch)
        assert all_items(fresh) == epochs[epoch]


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", None])
def test_set_epoch_refuses_what_is_no_epoch(shards: Path, epoch: Any) -> None:
    """One clear line, and the loader stays where it was."""
    loader = stream(shards)
    with pytest.raises(UsageError, match="set_epoch: must be a whole number"):
        loader.set_epoch(epoch)
    assert all_items(loader) == all_items(stream(shards))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_leaving_an_epoch_early_leaves_nothing_out(shards: Path, num_workers: int) -> None:
    """The next loop begins the next epoch, a whole one, with the first batch not received."""
    loader = stream(shards, num_workers=num_workers)
    found = []
    for count in (1, 2, 3, 1, 5):
        for _, batch in zip(range(count), loader, strict=False):
            found += names(batch)
    assert len(found) == 12 * (1 + 2 + 3 + 1 + 3)
    assert loader.state_dict()["epoch"] == 4
    whole = stream(shards, epoch_samples=len(found))
    assert found == all_names(whole)


def test_set_epoch_ahead_and_back(shards: Path) -> None:
    """Epochs that were left early are begun again where they began; unknown ones are computed."""
    loader = stream(shards)
    stream_names = all_names(stream(shards, epoch_samples=360))
    next(iter(loader))
    next(iter(loader))  # epoch 1
    for epoch, begin in (
        (4, 24 + 2 * 36),
        (2, 24),
        (1, 12),
        (0, 0),
        (7, 12 + 6 * 36),
        (5, 12 + 4 * 36),
    ):
        loader.set_epoch(epoch)
        loader.set_epoch(epoch)
        assert loader.state_dict()["position"] == begin
        assert len(loader) == 3
        iterator = iter(loader)
        assert names(next(iterator)) == stream_names[begin : begin + 12]
        if epoch > 2:
            loader.set_epoch(epoch)  # back to where it began, though it was left
            assert loader.state_dict()["position"] == begin
    resumed = stream(shards)
    state = stream(shards).state_dict() | {"epoch": 3}
    resumed.load_state_dict(state)
    next(iter(resumed))
    with pytest.raises(UsageError, match=r"epoch 2 would begin at position -36, before the stream"):
        resumed.set_epoch(2)
    with pytest.raises(UsageError, match=r"set_epoch: epoch \d+ is too far"):
        resumed.set_epoch(10**15)
    assert resumed.state_dict()["position"] == 12


def test_any_epoch_of_a_million_rows_is_reached_without_work(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a random number nor an order is drawn to go there, a few are for a state of it."""
    loader = stream(shards, mixing="iid", epoch_samples=10**6)
    drawn: list[int] = []
    at = PhiloxStreams.at

    def counted(places: PhiloxStreams, level: int, number: int) -> Any:
        drawn.append(level)
        return at(places, level, number)

    monkeypatch.setattr(PhiloxStreams, "at", counted)
    monkeypatch.setattr(order, "permutation", None)
    loader.set_epoch(100)
    loader.set_epoch(3)
    loader.set_epoch(10**6)
    assert not drawn
    assert loader.state_dict()["position"] == 10**6 * (10**6 - 10**6 % 12)
    assert len(drawn) < 3 * 44


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_newer_iterator_takes_the_place_of_an_older_one(shards: Path, num_workers: int) -> None:
    """The older one says so, its workers end, and the position is that of the newer one."""
    loader = stream(shards, num_workers=num_workers)
    older = iter(loader)
    found = names(next(older))
    newer = iter(loader)
    assert len(multiprocessing.active_children()) == 0
    with pytest.raises(UsageError, match=r"was ended by a newer one; .* one iterator at a time"):
        next(older)
    found += all_names(newer)
    with pytest.raises(UsageError, match="a newer one"):
        next(older)
    assert next(newer, None) is None
    assert found == all_names(stream(shards, epoch_samples=48))
    assert loader.state_dict()["position"] == 48


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_state_loaded_while_iterating_stays(shards: Path, num_workers: int) -> None:
    """The iterator that was going on ends, so that nothing moves the position but a new one."""
    loader = stream(shards, num_workers=num_workers)
    state = loader.state_dict()
    iterator = iter(loader)
    expected = [names(next(iterator)) for _ in range(2)]
    loader.load_state_dict(state)
    assert len(multiprocessing.active_children()) == 0
    with pytest.raises(UsageError, match="was ended by load_state_dict"):
        next(iterator)
    assert loader.state_dict() == state
    again = iter(loader)
    assert names(next(again)) == expected[0]
    loader.set_epoch(0)
    with pytest.raises(UsageError, match="was ended by set_epoch"):
        next(again)
    assert [names(batch) for batch in loader][:2] == expected


def test_set_epoch_of_the_epoch_that_begins_is_no_change(shards: Path) -> None:
    """Frameworks call it before and after they make the iterator."""
    loader = stream(shards)
    for epoch in range(2):
        loader.set_epoch(epoch)
        iterator = iter(loader)
        loader.set_epoch(epoch)
        assert len(all_names(iterator)) == 36


def test_an_iterator_that_gave_nothing_is_no_epoch(shards: Path) -> None:
    loader = stream(shards)
    for _ in range(3):
        iter(loader)
    assert all_items(loader) == all_items(stream(shards))
    assert loader.state_dict()["epoch"] == 0


def test_length_is_of_the_iteration_that_goes_on(shards: Path) -> None:
    """Also in a resumed epoch, whose rest is shorter; then of the next one."""
    loader = stream(shards, batch_size=5)
    iterator = iter(loader)
    for _ in range(6):
        next(iterator)
        assert len(loader) == 8
    resumed = stream(shards, batch_size=5)
    resumed.load_state_dict(loader.state_dict())
    assert len(resumed) == 2
    for _ in resumed:
        assert len(resumed) == 2
    assert len(resumed) == 8
    other = stream(shards, batch_size=3, epoch_samples=1000)
    other.load_state_dict(loader.state_dict())
    assert len(other) == (1000 - 30) // 3


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_remainder_too_small_for_all_ranks_opens_the_next_epoch(
    shards: Path, world_size: int
) -> None:
    """Without drop_last, nobody has an empty batch, and nothing is left out."""
    how: dict[str, Any] = {"batch_size": 3, "drop_last": False, "world_size": world_size}
    ranks = [stream(shards, rank=rank, epoch_samples=13, **how) for rank in range(world_size)]
    found: list[Any] = []
    for _ in range(6):
        assert len({len(rank) for rank in ranks}) == 1
        length = len(ranks[0])
        steps = list(zip(*[[names(batch) for batch in rank] for rank in ranks], strict=True))
        assert len(steps) == length
        for step in steps:
            sizes = [len(batch) for batch in step]
            assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
            found += [name for batch in step for name in batch]
    assert found == all_names(stream(shards, epoch_samples=len(found), drop_last=False))
    with pytest.raises(UsageError, match=r"epoch of 1 samples is smaller than the number of ranks"):
        stream(shards, rank=0, epoch_samples=1, **how)


def test_evaluation_draws_nothing(shards: Path) -> None:
    """With augment=False every item is the plain crop."""
    for batch in stream(shards, augment=False):
        assert not batch["rot"].any()
        assert not batch["flip"].any()
        assert not batch["occ"].any()
        assert (batch["sc"] == 1.0).all()


def test_stats_count_what_was_received(shards: Path) -> None:
    """Samples by source sum up to what came; passes are those of the whole stream."""
    loader = stream(shards, num_workers=3, prefetch=8)
    received: list[tuple[str, int]] = []
    for batch in loader:
        received += names(batch)
        stats = loader.stats()
        for source, rows in ROWS.items():
            mine = sum(name == source for name, _ in received)
            assert stats["samples"][source] == mine
            assert stats["passes"][source] == pytest.approx(mine / rows)
    stats = loader.stats()
    assert stats["replaced"] == 0
    assert stats["samples_per_second"] > 0
    assert 0 <= stats["waiting"] <= 1


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_loader_is_not_copied(shards: Path, copied: Any) -> None:
    with pytest.raises(UsageError, match="make one in each process"):
        copied(stream(shards))
