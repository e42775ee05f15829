"""Epochs as a continuous stream, on all ranks: nothing lost, nothing twice, nobody without a batch.

Random sequences of what training scripts do, searched on the parts that decide which rows a rank
gets and when, and sampled on the loader itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from refit_shard import StreamingLoader, StreamOptions
from refit_shard.loaders.stream.epochs import Epochs, EpochShape
from refit_shard.loaders.stream.mix import make_mixer
from refit_shard.loaders.stream.order import Passes
from refit_shard.loaders.stream.state import Place, make_state, read_state
from tests.loaders.streams import Name, check_passes, names
from tests.searches import examples
from tests.small import own

ROWS = {"a": 50, "b": 7, "c": 23}
SEED = 3

mixes = st.lists(st.sampled_from([0.0, 0.05, 0.2, 1.0, 3.0]), min_size=3, max_size=3).filter(any)


class Rank(Protocol):
    """One rank of a run."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Name]]: ...

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], changed: Sequence[str]) -> None: ...


class Pure:
    """A rank's loader without its pixels and processes."""

    def __init__(self, shape: EpochShape, rank: int, mixing: str, ratios: list[float]) -> None:
        self._shape = shape
        self._rank = rank
        self._ratios = ratios
        self._identity: dict[str, Any] = {
            "mixing": mixing,
            "seed": SEED,
            "sources": [
                {"name": name, "images": "", "ratio": ratio}
                for name, ratio in zip(ROWS, ratios, strict=True)
            ],
        }
        self._mixer = make_mixer(mixing, ratios, SEED)
        self._passes = [Passes([rows], SEED, name) for name, rows in ROWS.items()]
        self._epochs = Epochs(shape)

    def __len__(self) -> int:
        return self._epochs.coming

    def __iter__(self) -> Iterator[list[Name]]:
        return self._batches(*self._epochs.start())

    def _batches(self, first: int, end: int) -> Iterator[list[Name]]:
        for begin, finish in self._shape.slices(first, end, self._rank):
            which, draws = self._mixer.assign(begin, finish - begin)
            self._epochs.receive()
            yield [
                (list(ROWS)[source], int(self._passes[source].locate(np.array([draw]))[0]))
                for source, draw in zip(which.tolist(), draws.tolist(), strict=True)
            ]
        self._epochs.finish()

    def set_epoch(self, epoch: int) -> None:
        self._epochs.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        now = self._epochs
        place = Place(now.epoch, now.begin, now.position, self._mixer.origin)
        return make_state(self._identity, place, self._mixer)

    def load_state_dict(self, state: dict[str, Any], changed: Sequence[str]) -> None:
        place = read_state(state, self._identity, changed)
        self._mixer = make_mixer(self._identity["mixing"], self._ratios, SEED, place.origin)
        self._epochs.resume(place.epoch, place.epoch_start, place.position, place.origin.position)


class Whole:
    """A rank's loader."""

    def __init__(
        self, shards: Path, shape: EpochShape, rank: int, mixing: Any, ratios: list[float]
    ) -> None:
        places = {
            name: (str(shards / name / "shards" / "own"), ratio)
            for name, ratio in zip(ROWS, ratios, strict=True)
        }
        options = StreamOptions(
            batch_size=shape.batch_size,
            seed=SEED,
            epoch_samples=shape.samples,
            num_workers=0,
            rank=rank,
            world_size=shape.world_size,
            mixing=mixing,
            drop_last=shape.drop_last,
            image="uint8",
            res=16,
        )
        loader = StreamingLoader(places, options)
        self.set_epoch = loader.set_epoch
        self.state_dict = loader.state_dict
        self.load_state_dict = loader.load_state_dict
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Name]]:
        return map(names, self._loader)


class Training(RuleBasedStateMachine):
    """Ranks in step, iterated, left, saved, and gone on with as others.

    ``received``: what all positions before the present one held.
    """

    most_ranks = 5

    def rank(self, shape: EpochShape, rank: int, mixing: str, ratios: list[float]) -> Rank:
        """A rank of the run."""
        return Pure(shape, rank, mixing, ratios)

    @initialize(
        samples=st.sampled_from([1, 5, 16, 30, 50, 61]),
        mixing=st.sampled_from(["exact", "iid"]),
        weights=mixes,
    )
    def begin(self, samples: int, mixing: str, weights: list[float]) -> None:
        self.samples = samples
        self.mixing = mixing
        self.ratios = [one / sum(weights) for one in weights]
        self.received: list[Name] = []
        self.saved: list[tuple[dict[str, Any], list[Name], list[float]]] = []
        self.iterators: list[Iterator[list[Name]]] = []
        self.restart(1, 1, drop_last=False)

    def restart(self, batch_size: int, world_size: int, *, drop_last: bool) -> None:
        """New processes, as many as an epoch has samples for."""
        world_size = min(world_size, self.samples, self.most_ranks)
        batch_size = min(batch_size, self.samples // world_size)
        self.shape = EpochShape(
            samples=self.samples,
            batch_size=batch_size,
            world_size=world_size,
            drop_last=drop_last,
        )
        self.ranks = [
            self.rank(self.shape, rank, self.mixing, self.ratios) for rank in range(world_size)
        ]
        self.iterators = []

    @property
    def state(self) -> dict[str, Any]:
        """The state, which is the same on all ranks."""
        first, *others = [rank.state_dict() for rank in self.ranks]
        assert all(one == first for one in others)
        return first

    @rule()
    def iterate(self) -> None:
        """Begin an iteration, which takes the place of one that is going on."""
        lengths = {len(rank) for rank in self.ranks}
        assert len(lengths) == 1
        self.iterators = [iter(rank) for rank in self.ranks]
        self.left = lengths.pop()

    @rule(steps=st.sampled_from([1, 2, 3, 7, 20, 60]))
    def step(self, steps: int) -> None:
        """Some steps, or as many as there are."""
        if not self.iterators:
            self.iterate()
        for _ in range(steps):
            batches = [next(one, None) for one in self.iterators]
            if self.left == 0:
                assert batches == [None] * len(self.ranks)
                self.iterators = []
                return
            self.left -= 1
            sizes = [len(batch) for batch in batches if batch is not None]
            assert len(sizes) == len(self.ranks)
            assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1 <= self.shape.batch_size + 1
            assert not self.shape.drop_last or sum(sizes) == self.shape.step
            self.received += [name for batch in batches if batch is not None for name in batch]

    @precondition(lambda self: self.iterators)
    @rule()
    def leave(self) -> None:
        self.iterators = []

    @rule()
    def save(self) -> None:
        self.saved.append((self.state, list(self.received), self.ratios))

    @precondition(lambda self: self.saved)
    @rule(
        data=st.data(),
        batch_size=st.sampled_from([1, 3, 4, 9]),
        world_size=st.sampled_from([1, 2, 3, 5]),
        drop_last=st.booleans(),
        weights=st.none() | mixes,
    )
    def load(
        self,
        data: st.DataObject,
        batch_size: int,
        world_size: int,
        drop_last: bool,
        weights: list[float] | None,
    ) -> None:
        """Go on from a state as other ranks, perhaps with other ratios."""
        state, received, self.ratios = data.draw(st.sampled_from(self.saved))
        self.received = list(received)
        if weights is not None:
            self.ratios = [one / sum(weights) for one in weights]
        self.restart(batch_size, world_size, drop_last=drop_last)
        for rank in self.ranks:
            rank.load_state_dict(state, () if weights is None else ("ratios",))
        if data.draw(st.booleans()):  # as scripts do; it must not go back
            for rank in self.ranks:
                rank.set_epoch(state["epoch"])

    @precondition(lambda self: self.state["position"] > self.state["epoch_start"])
    @rule()
    def next_epoch(self) -> None:
        """Begin the next epoch by its number, wherever one is in this one."""
        for rank in self.ranks:
            rank.set_epoch(rank.state_dict()["epoch"] + 1)
        self.iterators = []
        assert self.state["epoch_start"] == len(self.received)

    @precondition(lambda self: self.state["epoch_start"] >= self.state["origin"]["position"])
    @rule()
    def repeat(self) -> None:
        """Begin this epoch again: what was received of it comes once more."""
        before = self.state
        for rank in self.ranks:
            rank.set_epoch(before["epoch"])
        if self.state["position"] != before["position"]:
            assert self.state["position"] == before["epoch_start"]
            del self.received[before["epoch_start"] :]
            self.iterators = []

    @invariant()
    def nothing_lost_nothing_twice(self) -> None:
        """Each source's rows came as whole passes; exact ratios hold since they last changed."""
        state = self.state
        assert state["position"] == len(self.received)
        check_passes(self.received, ROWS)
        origin = state["origin"]
        since = np.subtract(state["draws"], origin["draws"])
        assert since.sum() == len(self.received) - origin["position"]
        if self.mixing == "exact":
            assert np.abs(since - since.sum() * np.array(self.ratios)).max() <= 1.5


def test_random_sequences() -> None:
    """Of all that a script may do, on up to five ranks."""
    run_state_machine_as_test(
        Training, settings=settings(max_examples=examples(200), stateful_step_count=40)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny datasets."""
    made = tmp_path_factory.mktemp("epochs")
    for name, rows in ROWS.items():
        tree = own(made / name, rows=rows, per_frame=5)
        assert tree.build("--samples-per-shard", 20).code == 0
    return made


def test_random_sequences_of_the_loader(folder: Path) -> None:
    """A few of them, with batches."""

    class WholeTraining(Training):
        most_ranks = 2

        def rank(self, shape: EpochShape, rank: int, mixing: str, ratios: list[float]) -> Rank:
            return Whole(folder, shape, rank, mixing, ratios)

    run_state_machine_as_test(
        WholeTraining, settings=settings(max_examples=examples(15), stateful_step_count=25)
    )
