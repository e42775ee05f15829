"""States: small, exact anywhere, valid on other ranks, refused where they do not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loaders import StreamingLoader, StreamOptions
from shards_spec.errors import UsageError
from shards_spec.manifest import plan_hash
from tests.loaders.streams import MIX, all_items, all_names, items, sources, stream


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it comes back from a checkpoint file."""
    loaded: dict[str, Any] = json.loads(json.dumps(state))
    return loaded


@pytest.mark.parametrize("mixing", ["exact", "iid"])
@pytest.mark.parametrize("num_workers", [0, 3])
def test_resumes_at_every_step(shards: Path, mixing: str, num_workers: int) -> None:
    """From the state after any batch, the rest of the epoch and the next one follow."""
    loader = stream(shards, mixing=mixing, num_workers=num_workers, prefetch=5)
    states = [loader.state_dict()]
    seen: list[str] = []
    for batch in loader:
        seen += items(batch)
        states.append(loader.state_dict())
    following = all_items(loader)
    for step, state in enumerate(states[:-1]):
        resumed = stream(shards, mixing=mixing, num_workers=3 - num_workers)
        resumed.load_state_dict(through_json(state))
        assert all_items(resumed) == seen[12 * step :]
        assert all_items(resumed) == following
    at_end = stream(shards, mixing=mixing)
    at_end.load_state_dict(through_json(states[-1]))
    assert all_items(at_end) == following


def test_state_is_of_what_was_received_not_prefetched(shards: Path) -> None:
    """Many batches are ready; the state counts the one that the loop holds."""
    loader = stream(shards, num_workers=4, prefetch=50, epoch_samples=600)
    iterator = iter(loader)
    for step in range(1, 5):
        next(iterator)
        assert loader.state_dict()["position"] == 12 * step
    iterator.close()  # type: ignore[attr-defined]
    assert loader.state_dict()["position"] == 48


def test_resuming_in_the_same_object(shards: Path) -> None:
    """A state may be loaded into the loader that gave it, also after it went further."""
    loader = stream(shards)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    rest = all_items(iterator)
    all_items(loader)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert all_items(loader) == rest


def test_three_ranks_from_a_state_of_two(shards: Path) -> None:
    """Their union goes on as the one-process stream."""
    expected = stream(shards)
    one_process = [*map(items, expected), *map(items, expected)]
    pair = [stream(shards, batch_size=6, rank=rank, world_size=2) for rank in range(2)]
    iterators = [iter(loader) for loader in pair]
    assert [*items(next(iterators[0])), *items(next(iterators[1]))] == one_process[0]
    states = [loader.state_dict() for loader in pair]
    assert states[0] == states[1]
    three = [stream(shards, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    for loader in three:
        loader.load_state_dict(through_json(states[0]))
    rest = [[items(batch) for batch in loader] + [items(b) for b in loader] for loader in three]
    union = [[item for batch in step for item in batch] for step in zip(*rest, strict=True)]
    assert union == one_process[1:]


def test_state_is_small_and_restores_far_away(shards: Path) -> None:
    """Under 1 KB of JSON for seven sources at the end of the longest run, and usable there."""
    folders = ["bedlam", "agora", "coco", "h36m", "bedlam", "coco", "bedlam"]
    seven = {
        f"{name}-a-rather-long-name-{index}": (str(shards / name), 1 / 7)
        for index, name in enumerate(folders)
    }
    for mixing in ("exact", "iid"):
        options = StreamOptions(
            batch_size=12, res=16, num_workers=0, rank=0, world_size=1, mixing=mixing,
            epoch_samples=10**9,
        )  # fmt: skip
        loader = StreamingLoader(seven, options)
        next(iter(loader))
        state = loader.state_dict()
        far = 250_000 * 64
        share, over = divmod(far, 7)
        state |= {"position": far, "draws": [share + (index < over) for index in range(7)]}
        assert len(json.dumps(state).encode()) < 1024
        resumed = StreamingLoader(seven, options)
        resumed.load_state_dict(through_json(state))
        assert len(next(iter(resumed))["imgname"]) == 12
        after = resumed.state_dict()
        assert after["position"] == far + 12
        assert sum(after["draws"]) == far + 12


@pytest.mark.parametrize(
    ("mix", "changed", "named"),
    [
        (None, {"seed": 5}, r"seed is 0, this loader's is 5"),
        (None, {"mixing": "iid"}, r"mixing is 'exact', this loader's is 'iid'"),
        (None, {"window": 2}, r"windows is \[None, None, None\], this loader's is \[2, None, 2\]"),
        ({"bedlam": 0.5, "agora": 0.2, "coco": 0.3}, {}, r"sources is .*0\.6.*0\.5"),
        ({"bedlam": 0.6, "coco": 0.4}, {}, r"sources is .*agora.*plan of its shards"),
        ({"agora": 0.1, "bedlam": 0.6, "coco": 0.3}, {}, r"sources is "),
    ],
)
def test_a_state_of_another_stream_is_refused(
    shards: Path, mix: dict[str, float] | None, changed: dict[str, Any], named: str
) -> None:
    """The line says what differs, and the loader stays where it was."""
    state = stream(shards).state_dict()
    other = stream(shards, mix, **changed)
    before = other.state_dict()
    with pytest.raises(UsageError, match=named):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_a_state_of_other_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    """The same name built from another plan is not the same data."""
    shutil.copytree(shards, tmp_path / "shards")
    manifest = tmp_path / "shards" / "agora" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["plan"]["seed"] = 77
    content["plan_hash"] = plan_hash(content["plan"])
    manifest.write_text(json.dumps(content))
    state = stream(shards).state_dict()
    with pytest.raises(UsageError, match=content["plan_hash"][:16]):
        stream(tmp_path / "shards").load_state_dict(state)
    moved = shutil.copytree(shards, tmp_path / "moved")
    stream(moved).load_state_dict(state)  # the same shards in another place are


@pytest.mark.parametrize(
    "state",
    [{}, {"version": 99}, None, [1, 2], "state", {"epoch": 0, "position": 3}],
)
def test_what_is_no_state_is_refused(shards: Path, state: Any) -> None:
    """One clear line, not a KeyError."""
    with pytest.raises(UsageError, match="load_state_dict"):
        stream(shards).load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        {"position": -1},
        {"position": "12"},
        {"epoch": None},
        {"epoch_start": 3.5},
        {"draws": None},
        {"draws": [1, 2]},
        {"draws": [1, 2, "x"]},
        {"draws": [0, 0, 0]},
        {"position": 5, "epoch_start": 40},
    ],
)
def test_a_damaged_state_is_refused(shards: Path, damage: dict[str, Any]) -> None:
    """Nothing is taken over from it."""
    loader = stream(shards, mixing="iid")
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(UsageError, match="damaged"):
        loader.load_state_dict({**state, **damage})
    assert loader.state_dict() == state


def test_a_state_is_taken_with_a_filter_and_refused_with_another(shards: Path) -> None:
    """The rows that a filter keeps are part of what must agree."""
    import pyarrow.compute as pc

    kept = {"bedlam": pc.field("source_row") < 20}
    state = stream(shards, where=kept).state_dict()
    again = stream(shards, where=kept)
    again.load_state_dict(state)
    with pytest.raises(UsageError, match=r"sources is .*20.*40"):
        stream(shards).load_state_dict(state)


def test_torch_saves_a_state(shards: Path, tmp_path: Path) -> None:
    """A checkpoint file that torch reads back with weights_only, its safe default."""
    import torch

    loader = stream(shards)
    iterator = iter(loader)
    next(iterator)
    torch.save({"loader": loader.state_dict()}, tmp_path / "checkpoint.pt")
    restored = stream(shards)
    restored.load_state_dict(torch.load(tmp_path / "checkpoint.pt")["loader"])
    assert all_items(restored) == all_items(iterator)


def test_state_holds_no_path(shards: Path) -> None:
    """A state is valid on a machine where the shards lie elsewhere."""
    assert str(shards) not in json.dumps(stream(shards).state_dict())
    assert sources(shards).keys() == MIX.keys()


def test_epochs_are_counted_through_a_resume(shards: Path) -> None:
    """After a resume in epoch 2 the epoch that follows is 3."""
    loader = stream(shards)
    epochs = [all_names(loader) for _ in range(4)]
    again = stream(shards)
    again.set_epoch(2)
    next(iter(again))
    resumed = stream(shards)
    resumed.load_state_dict(again.state_dict())
    resumed.set_epoch(2)  # as a script does; it must not rewind
    assert all_names(resumed) == epochs[2][12:]
    assert resumed.state_dict()["epoch"] == 2
    resumed.set_epoch(3)
    assert all_names(resumed) == epochs[3]
