"""Hostile saved states of a loader, as from somebody else's checkpoint."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard import StreamingLoader, StreamOptions
from refit_shard.shards_spec.errors import UsageError
from tests.searches import examples
from tests.small import own

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**53 - 3, max_value=2**65)
    | st.floats()
    | st.text(max_size=4)
    | st.just(np.arange(3))
    | st.just(torch.arange(3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module", params=["exact", "iid"])
def loader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loader of two datasets after one batch."""
    trees = [own(tmp_path_factory.mktemp(name)) for name in ("a", "b")]
    assert all(tree.build().code == 0 for tree in trees)
    sources = {f"s{number}": (str(tree.out), 0.5) for number, tree in enumerate(trees)}
    options: dict[str, Any] = {"batch_size": 2, "res": 16, "num_workers": 0}
    made = StreamingLoader(
        sources, StreamOptions(**options, rank=0, world_size=1, mixing=request.param)
    )
    next(iter(made))
    return made


def accepted(loader: StreamingLoader, state: Any, changed: tuple[str, ...] = ()) -> bool:
    """True if the loader accepts the state; if it refuses the state, it must be unchanged."""
    before = loader.state_dict()
    try:
        loader.load_state_dict(state, changed)
    except UsageError:
        assert loader.state_dict() == before
        return False
    assert next(iter(loader))["img"].shape == (2, 3, 16, 16)
    loader.load_state_dict(before)
    return True


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_value_is_taken_or_refused(loader: StreamingLoader, data: st.DataObject) -> None:
    state: Any = copy.deepcopy(loader.state_dict())
    key = data.draw(st.sampled_from(sorted(state)))
    state[key] = data.draw(VALUES)
    inner = loader.state_dict()[key]
    if isinstance(inner, list | dict) and data.draw(st.booleans()):
        places = list(range(len(inner))) if isinstance(inner, list) else sorted(inner)
        place = data.draw(st.sampled_from(places))
        inner[place] = data.draw(VALUES)
        state[key] = inner
    accepted(loader, state, data.draw(st.sampled_from([(), ("policy",), ("policy", "ratios")])))


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_value_of_a_source_is_refused(
    loader: StreamingLoader, data: st.DataObject
) -> None:
    state: Any = loader.state_dict()
    source = state["sources"][data.draw(st.integers(0, 1))]
    key = data.draw(st.sampled_from(sorted(source)))
    before = source[key]
    source[key] = data.draw(VALUES)
    if accepted(loader, state, data.draw(st.sampled_from([(), ("ratios",)]))):
        assert source[key] == before


@pytest.mark.parametrize("state", [None, 3, [], "x", {}, np.zeros(3), {"version": np.zeros(2)}])
def test_what_is_no_state_is_refused(loader: StreamingLoader, state: Any) -> None:
    assert not accepted(loader, state)


@pytest.mark.parametrize("far", [2**53, 2**62, 2**63, 10**30])
def test_a_place_beyond_all_streams_is_refused(loader: StreamingLoader, far: int) -> None:
    """A wrong position is refused even if the numbers of draws add up to it."""
    state = loader.state_dict()
    wild = {"epoch_start": far, "position": far, "draws": [far // 2, far - far // 2]}
    assert not accepted(loader, state | wild)
    assert not accepted(loader, state | {"epoch": 10**30})
    assert accepted(loader, state)
