"""States: small, exact anywhere, valid on other ranks, refused where they do not fit."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from refit_shard import AugmentationPolicy, StreamingLoader, StreamOptions
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.loaders.stream.mix import make_mixer
from refit_shard.loaders.stream.state import CHANGEABLE
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.manifest import plan_hash
from tests.loaders.streams import (
    MIX,
    all_items,
    all_names,
    check_passes,
    items,
    names,
    sources,
    stream,
)


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
    iterator.close()
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


@pytest.mark.parametrize("mixing", ["exact", "iid"])
def test_state_is_small_and_restores_far_away(
    shards: Path, mixing: Literal["exact", "iid"]
) -> None:
    """Under 4 KB of JSON for seven sources at the end of the longest run, and usable there."""
    folders = ["bedlam", "agora", "coco", "h36m", "bedlam", "coco", "bedlam"]
    seven = {
        f"{name}-a-rather-long-name-{index}": (str(shards / name), 1 / 7)
        for index, name in enumerate(folders)
    }
    options = StreamOptions(
        batch_size=12, res=16, num_workers=0, rank=0, world_size=1, mixing=mixing,
        epoch_samples=10**9, where=dict.fromkeys(seven, pc.field("source_row") > 0),
    )  # fmt: skip
    loader = StreamingLoader(seven, options)
    far = 250_000 * 64
    draws = make_mixer(mixing, [1 / 7] * 7, 0).counts(far).tolist()
    state = loader.state_dict() | {"position": far, "draws": draws}
    assert len(json.dumps(state).encode()) < 4096
    resumed = StreamingLoader(seven, options)
    resumed.load_state_dict(through_json(state))
    assert len(next(iter(resumed))["imgname"]) == 12
    after = resumed.state_dict()
    assert after["position"] == far + 12
    assert sum(after["draws"]) == far + 12


CHANGE = r"; if the change is intended: load_state_dict\(state, changed=\('{}',\)\)"


@pytest.mark.parametrize(
    ("mix", "changed", "named"),
    [
        (None, {"seed": 5}, r"seed is 0, this loader's is 5"),
        (None, {"mixing": "iid"}, r"mixing is 'exact', this loader's is 'iid'"),
        (None, {"window": 2}, r"sources\.bedlam\.window is None, this loader's is 2 \(number of"),
        (None, {"res": 16}, r"res is 32, this loader's is 16"),
        (None, {"image": "uint8"}, r"image is 'normalized', this loader's is 'uint8'"),
        (None, {"image": "bfloat16"}, r"image is 'normalized', this loader's is 'bfloat16'"),
        (None, {"compat": "refit"}, r"compat is None, this loader's is 'refit'"),
        (None, {"augment": False}, r"augment is True, this loader's is False"),
        (
            None,
            {"policy": AugmentationPolicy(rot_sigma=20.0)},
            r"policy\.rot_sigma is 30\.0, this loader's is 20\.0" + CHANGE.format("policy"),
        ),
        (
            None,
            {"policy": AugmentationPolicy(occluder_size=(0.1, 0.2))},
            r"policy\.occluder_size is \[0\.2, 1\.0\], this loader's is \[0\.1, 0\.2\]",
        ),
        (
            {"bedlam": 0.5, "agora": 0.2, "coco": 0.3},
            {},
            r"sources\.bedlam\.ratio is 0\.6, this loader's is 0\.5" + CHANGE.format("ratios"),
        ),
        (
            {"bedlam": 0.6, "coco": 0.4},
            {},
            r"sources is \['bedlam', 'agora', 'coco'\], this loader's is \['bedlam', 'coco'\]$",
        ),
        ({"agora": 0.1, "bedlam": 0.6, "coco": 0.3}, {}, r"sources is \['bedlam', 'agora'"),
    ],
)
def test_a_state_of_another_stream_is_refused(
    shards: Path, mix: dict[str, float] | None, changed: dict[str, Any], named: str
) -> None:
    """The line says what differs, and the loader stays where it was."""
    state = stream(shards).state_dict()
    other = stream(shards, mix, **changed)
    before = other.state_dict()
    with pytest.raises(UsageError, match=named) as caught:
        other.load_state_dict(through_json(state))
    assert "\n" not in str(caught.value)
    assert other.state_dict() == before


def test_a_state_of_other_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    """The same name built from another plan is not the same data."""
    shutil.copytree(shards, tmp_path / "shards")
    manifest = tmp_path / "shards" / "agora" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["plan"]["paths_sha256"] = "0" * 64
    content["plan_hash"] = plan_hash(content["plan"])
    manifest.write_text(json.dumps(content))
    state = stream(shards).state_dict()
    with pytest.raises(UsageError, match=r"sources\.agora\.content is '\w{16}…', .*content"):
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
        {"draws": [8, 1, 3.0]},
        {"position": 5, "epoch_start": 40},
        {"origin": None},
        {"origin": {"position": 12, "draws": [6, 2, 3]}},
        {"origin": {"position": 24, "draws": [8, 8, 8]}},
        {"origin": {"position": True, "draws": [1, 0, 0]}},
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


def places(values: Any) -> Iterator[tuple[Any, ...]]:
    """Where each key of nested dictionaries and lists stands: the keys that lead to it."""
    inner = enumerate(values) if isinstance(values, list) else values.items()
    for key, value in inner:
        if isinstance(values, dict):
            yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places(value))


@pytest.mark.parametrize("changed", [(), ("policy",), CHANGEABLE])
@pytest.mark.parametrize("augment", [True, False])
def test_a_state_that_lacks_a_value_is_refused(
    shards: Path, augment: bool, changed: tuple[str, ...]
) -> None:
    """Also one that is None here, such as ``compat``: lacking is not None."""
    loader = stream(shards, augment=augment)
    next(iter(loader))
    state = loader.state_dict()
    tried = 0
    for place in places(state):
        lacking: Any = copy.deepcopy(state)
        *outer, key = place
        inner = lacking
        for one in outer:
            inner = inner[one]
        del inner[key]
        if place[0] == "policy" and len(place) > 1 and "policy" in changed:
            loader.load_state_dict(lacking, changed)  # a policy that is replaced may have less
        else:
            with pytest.raises(UsageError, match="load_state_dict"):
                loader.load_state_dict(lacking, changed)
        assert loader.state_dict() == state
        tried += 1
    assert tried >= 30


def rows_of(*rows: int) -> dict[str, Any]:
    """A filter that keeps some rows of bedlam by a list of them."""
    return {"bedlam": pc.field("source_row").isin(pa.array(rows))}


def test_a_filter_counts_by_the_rows_that_it_keeps(shards: Path) -> None:
    """Not by its text, which pyarrow abbreviates, and which may say the same in two ways."""
    most = [row for row in range(40) if row != 15]
    state = stream(shards, where=rows_of(*most)).state_dict()
    for same in (rows_of(*most, 77), {"bedlam": pc.field("source_row") != 15}):
        stream(shards, where=same).load_state_dict(through_json(state))
    other = [row for row in range(40) if row != 21]
    assert str(rows_of(*other)["bedlam"]) == str(rows_of(*most)["bedlam"])
    with pytest.raises(
        UsageError, match=r"sources\.bedlam\.filter is '\w{16}…'.*where= and split= keep"
    ):
        stream(shards, where=rows_of(*other)).load_state_dict(state)
    with pytest.raises(UsageError, match=r"sources\.bedlam\.rows is 39, this loader's is 40"):
        stream(shards).load_state_dict(state)


def test_a_filter_that_keeps_all_rows_is_none(shards: Path) -> None:
    """The items are the same, so a state goes both ways."""
    all_rows = {"bedlam": pc.field("source_row") >= 0}
    stream(shards).load_state_dict(stream(shards, where=all_rows).state_dict())
    stream(shards, where=all_rows).load_state_dict(stream(shards).state_dict())


def occluders(path: Path, level: int) -> str:
    """A file of two gray squares."""
    square = np.full((9, 9, 4), level, np.uint8)
    path.write_bytes(occluder_bytes([square, square[:5]]))
    return str(path)


def test_occluders_count_by_what_they_hold(shards: Path, tmp_path: Path) -> None:
    """Not by their place; a policy that begins or ends occlusion may change them with it."""
    state = stream(shards, occluders=occluders(tmp_path / "a", 90)).state_dict()
    stream(shards, occluders=occluders(tmp_path / "b", 90)).load_state_dict(state)
    other = stream(shards, occluders=occluders(tmp_path / "c", 91))
    for changed in ((), ("policy",)):
        with pytest.raises(UsageError, match=r"occluders is .*a hash of the file's cut-outs"):
            other.load_state_dict(state, changed=changed)
    with pytest.raises(UsageError, match=r"occluders is .* this loader's is None"):
        stream(shards).load_state_dict(state, changed=("policy",))
    never = stream(shards, policy=AugmentationPolicy(occlude=0.0))
    with pytest.raises(UsageError, match="changed="):
        never.load_state_dict(state)
    never.load_state_dict(state, changed=("policy",))


@pytest.mark.parametrize("how", [{"on_error": "replace"}, {"drop_last": False}, {"prefetch": 7}])
def test_what_decides_no_item_may_change(shards: Path, how: dict[str, Any]) -> None:
    """Nor do the policy and the occluders where nothing is augmented."""
    stream(shards, **how).load_state_dict(stream(shards).state_dict())
    plain = stream(shards, augment=False).state_dict()
    policy = AugmentationPolicy(flip=0.1)
    stream(shards, augment=False, policy=policy).load_state_dict(plain)


def test_another_policy_from_here_on(shards: Path) -> None:
    """The same rows, with the parameters that the new policy draws at these positions."""
    loader = stream(shards)
    next(iter(loader))
    state = loader.state_dict()
    policy = AugmentationPolicy(rot_sigma=0.0)
    changed = stream(shards, policy=policy)
    changed.load_state_dict(through_json(state), changed=("policy",))
    iterator = iter(changed)
    batch = next(iterator)
    assert not batch["rot"].any()
    kept = changed.state_dict()
    rest = all_items(iterator)
    whole = stream(shards, policy=policy)
    assert items(batch) + rest == all_items(whole)[12:]
    again = stream(shards, policy=policy)
    again.load_state_dict(through_json(kept))
    assert all_items(again) == rest


@pytest.mark.parametrize("mixing", ["exact", "iid"])
def test_other_ratios_from_here_on(shards: Path, mixing: str) -> None:
    """Each source goes on at its own draw; several changes, some of them to 0 and back."""
    mixes: list[dict[str, float]] = [
        {"bedlam": 0.6, "agora": 0.1, "coco": 0.3},
        {"bedlam": 0.2, "agora": 0.8, "coco": 0.0},
        {"bedlam": 0.0, "agora": 0.5, "coco": 0.5},
    ]
    found: list[Any] = []
    state = stream(shards, mixes[0], mixing=mixing).state_dict()
    for mix in mixes:
        loader = stream(shards, mix, mixing=mixing, epoch_samples=600, batch_size=25)
        loader.load_state_dict(through_json(state), changed=("ratios",))
        begun = loader.state_dict()
        batches = [names(batch) for _, batch in zip(range(3), loader, strict=False)]
        state = loader.state_dict()
        assert state["origin"] == begun["origin"]
        assert state["origin"] == {"position": len(found), "draws": begun["draws"]}
        since = np.subtract(state["draws"], begun["draws"])
        if mixing == "exact":
            assert np.abs(since - 75 * np.array(list(mix.values()))).max() <= 1.5
        found += [name for batch in batches for name in batch]
        resumed = stream(shards, mix, mixing=mixing, epoch_samples=600)
        resumed.load_state_dict(through_json(state))  # without saying so again
        assert resumed.state_dict() == state
        next(iter(resumed))
        if begun["position"]:
            with pytest.raises(UsageError, match=r"at position 0, before \d+, where the ratios"):
                resumed.set_epoch(0)
    check_passes(found, {"bedlam": 40, "agora": 9, "coco": 19})


def test_only_what_is_named_may_change(shards: Path) -> None:
    """By these names; and what else differs is refused also then."""
    state = stream(shards).state_dict()
    loader = stream(shards, seed=1)
    both = ("policy", "ratios")
    wrong: list[Any] = ["policy", ("seed",), ("policy", "sources"), (3,)]
    for changed in wrong:
        with pytest.raises(UsageError, match=r"changed= may name \('policy', 'transform', .*, got"):
            loader.load_state_dict(state, changed=changed)
    with pytest.raises(UsageError, match="seed is 0"):
        loader.load_state_dict(state, changed=both)
    with pytest.raises(UsageError, match="sources is"):
        stream(shards, {"bedlam": 0.6, "coco": 0.4}).load_state_dict(state, changed=both)
    with pytest.raises(UsageError, match="ratio is"):
        stream(shards, {"bedlam": 0.5, "agora": 0.2, "coco": 0.3}).load_state_dict(
            state, changed=("policy",)
        )


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


def test_set_epoch_after_a_resume_goes_on_where_the_stream_was(shards: Path) -> None:
    """Also with another global batch, which cuts all epochs elsewhere."""
    loader = stream(shards, batch_size=10)
    found = [name for _, batch in zip(range(3), loader, strict=False) for name in names(batch)]
    resumed = stream(shards, batch_size=7)
    resumed.load_state_dict(loader.state_dict())
    for epoch in range(1, 4):
        resumed.set_epoch(epoch)
        found += all_names(resumed)
    assert len(found) == 30 + 3 * 35
    check_passes(found, {"bedlam": 40, "agora": 9, "coco": 19})


@pytest.mark.parametrize(("batch_size", "left"), [(12, 0), (3, 1), (8, 0)])
def test_a_state_near_the_end_of_an_epoch(shards: Path, batch_size: int, left: int) -> None:
    """What is left of its 40 samples after 36 comes first, if it is a batch.

    A plain iteration is never empty: the next epoch comes. Who asks for the epoch by its number
    gets what is left of it, if nothing: so a script that was stopped after an epoch's last batch
    does what comes after the epoch, and goes on with the next one.
    """
    loader = stream(shards)
    found = all_names(loader)
    state = through_json(loader.state_dict())
    plain, asked = (stream(shards, batch_size=batch_size) for _ in range(2))
    plain.load_state_dict(state)
    whole = 40 // batch_size
    assert len(plain) == (left or whole)
    assert sum(1 for _ in plain) == (left or whole)
    asked.load_state_dict(state)
    asked.set_epoch(0)
    assert len(asked) == left
    found += all_names(asked)
    assert len(found) == 36 + left * batch_size
    assert len(asked) == whole
    asked.set_epoch(1)
    found += all_names(asked)
    assert asked.state_dict()["epoch"] == 1
    check_passes(found, {"bedlam": 40, "agora": 9, "coco": 19})
