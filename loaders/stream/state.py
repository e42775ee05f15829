"""Saved states: everything that decides the stream's items, and a position. JSON values.

``on_error`` is not part of a state: whether a damaged sample is an error or is replaced may be
changed when one is met.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from refit_shard.loaders.items.occluders import Occluders
from refit_shard.loaders.items.policy import AugmentationPolicy
from refit_shard.loaders.stream.mix import FARTHEST, Mixer, Origin, make_mixer
from refit_shard.loaders.stream.options import StreamOptions, check_ratios
from refit_shard.loaders.stream.source import Source
from refit_shard.shards_spec.errors import UsageError

STATE_VERSION = 3
CHANGEABLE = ("policy", "transform", "ratios", "labels")


class _Missing:
    """Stands for a value that a state or a loader does not have; equal to no value."""

    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()
Json = Any
Identity = dict[str, Json]

_MEANING = {
    "content": " (a hash of the shards' content)",
    "labels": " (a hash of the shards' content; only your own labels differ, not rows or images)",
    "filter": " (a hash of the rows that where= and split= keep)",
    "window": " (number of shards that are mixed at a time, None for all; pass window=)",
    "occluders": " (a hash of the file's cut-outs, None for no occlusion)",
}


class Place(NamedTuple):
    """A position of the stream, in an epoch that began at ``epoch_start``."""

    epoch: int
    epoch_start: int
    position: int
    origin: Origin


def identify(
    options: StreamOptions, sources: Sequence[Source], occluders: Occluders | None
) -> Identity:
    """Everything that decides the items of a stream."""
    return {
        "mixing": options.mixing,
        "seed": options.seed,
        "sources": [source.identity for source in sources],
        "image": options.image,
        "res": options.res,
        "compat": options.compat,
        "augment": options.augment,
        "policy": _policy_fields(options.policy) if options.augment else None,
        "transform": None if options.transform is None else options.transform.name,
        "occluders": None if occluders is None else occluders.content_hash,
    }


def _policy_fields(policy: AugmentationPolicy) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for field in fields(policy):
        value = getattr(policy, field.name)
        found[field.name] = (
            [float(one) for one in value] if isinstance(value, Iterable) else float(value)
        )
    return found


def make_state(identity: Identity, place: Place, mixer: Mixer) -> dict[str, Json]:
    """The state at a place, with the number of draws of each source before its position."""
    return {
        "version": STATE_VERSION,
        **identity,
        "origin": {"position": place.origin.position, "draws": list(place.origin.draws)},
        "epoch": place.epoch,
        "epoch_start": place.epoch_start,
        "position": place.position,
        "draws": mixer.counts(place.position).tolist(),
    }


def read_state(state: Any, identity: Identity, changed: Collection[str]) -> Place:
    """The place of a state, for a stream of this identity.

    If the ratios were ``changed``, the place's origin is its position: the new ratios apply from
    there on.

    Raises:
        UsageError: the state is damaged or from another stream, or ``changed`` names something that
            may not change.
    """
    given = isinstance(changed, Collection) and not isinstance(changed, (str, bytes))
    if not given or not all(one in CHANGEABLE for one in changed):
        raise UsageError(f"load_state_dict: changed= may name {CHANGEABLE}, got {changed!r:.80}")
    if not isinstance(state, Mapping) or not _equal(state.get("version"), STATE_VERSION):
        raise UsageError(
            "load_state_dict: not a loader's state, or one of another version than "
            f"{STATE_VERSION}, which this release reads"
        )
    different = False
    for found in _differences(state, identity):
        if not found.is_allowed(state, identity, changed):
            raise UsageError(f"load_state_dict: {found}")
        different |= found.changes == "ratios"
    place, draws = _read_place(state, identity)
    return place._replace(origin=Origin(place.position, draws)) if different else place


def seed_of(state: Any, otherwise: int) -> int:
    """The seed of a state, or ``otherwise`` if the state has no valid seed."""
    seed = state.get("seed") if isinstance(state, Mapping) else None
    return seed if type(seed) is int and 0 <= seed < 2**63 else otherwise


class _Difference(NamedTuple):
    """A value that differs between a state and this loader."""

    name: str
    stated: Any
    own: Any

    @property
    def changes(self) -> str | None:
        """Which of :data:`CHANGEABLE` the value belongs to, or None.

        A value that the state does not have belongs to none, except a policy's field, since
        policies of older releases have fewer fields.
        """
        if self.name.startswith("policy."):
            return "policy"
        if self.stated is _MISSING:
            return None
        last = {"transform": "transform", "ratio": "ratios", "labels": "labels"}
        return last.get(self.name.rpartition(".")[2])

    def is_allowed(
        self, state: Mapping[str, Any], identity: Identity, changed: Collection[str]
    ) -> bool:
        """True if ``changed`` allows it; a changed policy may also turn occlusion on or off."""
        if self.name == "occluders" and "policy" in changed and self.stated is not _MISSING:
            return _never_occludes(state) or _never_occludes(identity)
        return self.changes in changed

    def __str__(self) -> str:
        said = f"changed=({self.changes!r},))"
        hint = (
            f"; if the change is intended: load_state_dict(state, {said}, with ReFit's trainer "
            f"get_dataloaders(cfg, {said}"
        )
        return (
            f"the state's {self.name} is {_short(self.stated)}, this loader's is "
            f"{_short(self.own)}{_MEANING.get(self.name.rpartition('.')[2], '')}"
            f"{hint if self.changes else ''}"
        )


def _never_occludes(state: Mapping[str, Any]) -> bool:
    policy = state.get("policy")
    return isinstance(policy, Mapping) and _equal(policy.get("occlude"), 0)


def _short(value: Any) -> str:
    """A value in one short line; of a long string, such as a hash, only the beginning."""
    text = " ".join(repr(value).split())
    if isinstance(value, str) and len(value) > 40:
        return f"{text[:17]}…'"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _equal(stated: Any, own: Any) -> bool:
    """True if a state's value equals this loader's; False if they cannot be compared."""
    try:
        return bool(stated == own)
    except (ValueError, RuntimeError):  # an array or a tensor
        return False


def _differences(state: Mapping[str, Any], identity: Identity) -> Iterator[_Difference]:
    """All values that differ, one by one; sources by their names."""
    stated, listed = dict(state), state.get("sources")
    own = dict(identity)
    if isinstance(listed, Sequence) and all(isinstance(one, Mapping) for one in listed):
        names = [one.get("name") for one in listed]
        own_names = [one["name"] for one in identity["sources"]]
        if not _equal(names, own_names):
            yield _Difference("sources", names, own_names)
            return
        pairs = [_labels_apart(*pair) for pair in zip(listed, identity["sources"], strict=True)]
        stated["sources"] = {name: pair[0] for name, pair in zip(names, pairs, strict=True)}
        own["sources"] = {name: pair[1] for name, pair in zip(names, pairs, strict=True)}
    for name, value in own.items():
        yield from _compare(name, stated.get(name, _MISSING), value)


def _labels_apart(
    stated: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A source as the state and as this loader have it.

    ``content`` is renamed to ``labels`` if the images are the same, because then only own labels
    can differ.
    """
    if not _equal(stated.get("images"), own["images"]):
        return stated, own
    first, second = (
        {"labels" if key == "content" else key: value for key, value in source.items()}
        for source in (stated, own)
    )
    return first, second


def _compare(name: str, stated: Any, own: Any) -> Iterator[_Difference]:
    if isinstance(own, Mapping) and isinstance(stated, Mapping):
        for key in dict.fromkeys([*own, *stated]):
            yield from _compare(f"{name}.{key}", stated.get(key, _MISSING), own.get(key, _MISSING))
    elif not _equal(stated, own):
        yield _Difference(name, stated, own)


def _damaged(what: str) -> UsageError:
    return UsageError(f"load_state_dict: the state is damaged: {what}")


def _whole(what: str, values: Any, count: int) -> tuple[int, ...]:
    """The values, checked to be ``count`` whole numbers in the range of positions."""
    if (
        not isinstance(values, list | tuple)
        or len(values) != count
        or not all(type(one) is int and 0 <= one < FARTHEST for one in values)
    ):
        raise _damaged(f"{what} must be {count} whole numbers, got {_short(values)}")
    return tuple(values)


def _read_place(state: Mapping[str, Any], identity: Identity) -> tuple[Place, tuple[int, ...]]:
    """The place, and the number of draws of each source before it, checked against the mixing."""
    names = [source["name"] for source in identity["sources"]]
    ratios = [source["ratio"] for source in state["sources"]]
    origin = state.get("origin")
    if not isinstance(origin, Mapping):
        raise _damaged(f"origin is {_short(origin)}")
    places = [state.get("epoch"), state.get("epoch_start"), state.get("position")]
    epoch, epoch_start, position, begin = _whole(
        "epoch, epoch_start, position and origin", [*places, origin.get("position")], 4
    )
    before = _whole("the draws before the origin", origin.get("draws"), len(names))
    draws = _whole("draws", state.get("draws"), len(names))
    if position < max(begin, epoch_start) or sum(before) != begin:
        raise _damaged("its positions contradict each other")
    try:
        check_ratios(names, ratios)
    except UsageError as error:
        raise _damaged(str(error)) from error
    place = Place(epoch, epoch_start, position, Origin(begin, before))
    mixer = make_mixer(identity["mixing"], ratios, identity["seed"], place.origin)
    if tuple(mixer.counts(position).tolist()) != draws:
        raise _damaged(f"{draws} are not the draws before position {position}")
    return place, draws
