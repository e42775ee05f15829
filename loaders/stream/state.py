"""A saved state: everything that decides the stream's items, and a place in it. JSON values.

``on_error`` does not decide an item, so it is no part of it: a damaged sample is an error, or its
place holds another row, and which of the two one wants may change when one is met.
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
    """What a state or a loader has in place of a value that it lacks; equal to no value."""

    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()
Json = Any
Identity = dict[str, Json]

_MEANING = {
    "content": " (what the shards hold)",
    "labels": " (labels of your own in the shards; the rows and images are the same)",
    "filter": " (the rows that where= and split= keep)",
    "window": " (shards that are mixed at a time, None for all; pass window=)",
    "occluders": " (what the file holds, None for no occlusion)",
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
    """The state at a place; the draws of each source are those before its position."""
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

    If the ratios are ``changed``, those of now begin to hold at its position: its origin is there.

    Raises:
        UsageError: the state is damaged or of another stream, or what may not change shall.
    """
    given = isinstance(changed, Collection) and not isinstance(changed, (str, bytes))
    if not given or not all(one in CHANGEABLE for one in changed):
        raise UsageError(f"load_state_dict: changed= may name {CHANGEABLE}, got {changed!r:.80}")
    if not isinstance(state, Mapping) or not _equal(state.get("version"), STATE_VERSION):
        raise UsageError("load_state_dict: not a state of this loader's version")
    different = False
    for found in _differences(state, identity):
        if not found.is_allowed(state, identity, changed):
            raise UsageError(f"load_state_dict: {found}")
        different |= found.changes == "ratios"
    place, draws = _read_place(state, identity)
    return place._replace(origin=Origin(place.position, draws)) if different else place


def seed_of(state: Any, otherwise: int) -> int:
    """The seed of a state, or ``otherwise`` if it has none."""
    seed = state.get("seed") if isinstance(state, Mapping) else None
    return seed if type(seed) is int and 0 <= seed < 2**63 else otherwise


class _Difference(NamedTuple):
    """One value of a state that is not this loader's."""

    name: str
    stated: Any
    own: Any

    @property
    def changes(self) -> str | None:
        """Which of :data:`CHANGEABLE` it belongs to; a value that the state lacks to none, but of a
        policy, of which another release's may have less.
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
        """Whether the caller meant it: with a policy, occlusion may begin or end, too."""
        if self.name == "occluders" and "policy" in changed and self.stated is not _MISSING:
            return _never_occludes(state) or _never_occludes(identity)
        return self.changes in changed

    def __str__(self) -> str:
        said = f"changed=({self.changes!r},))"
        hint = (
            f"; a deliberate change: load_state_dict(state, {said}, with ReFit's trainer "
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
    """A value on a line; a hash by its beginning."""
    text = " ".join(repr(value).split())
    if isinstance(value, str) and len(value) > 40:
        return f"{text[:17]}…'"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _equal(stated: Any, own: Any) -> bool:
    """Whether a value of a saved state is this loader's; one that cannot be compared is not."""
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
    """A source in a state and in this loader, with ``labels`` in place of ``content`` where rows
    and images are the same, as only labels of one's own can differ then.
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
    """So many whole numbers that positions may be."""
    if (
        not isinstance(values, list | tuple)
        or len(values) != count
        or not all(type(one) is int and 0 <= one < FARTHEST for one in values)
    ):
        raise _damaged(f"{what} must be {count} whole numbers, got {_short(values)}")
    return tuple(values)


def _read_place(state: Mapping[str, Any], identity: Identity) -> tuple[Place, tuple[int, ...]]:
    """The place, and the draws of each source before it, which must be those of the mixing."""
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
        raise _damaged("its positions do not fit each other")
    try:
        check_ratios(names, ratios)
    except UsageError as error:
        raise _damaged(str(error)) from error
    place = Place(epoch, epoch_start, position, Origin(begin, before))
    mixer = make_mixer(identity["mixing"], ratios, identity["seed"], place.origin)
    if tuple(mixer.counts(position).tolist()) != draws:
        raise _damaged(f"{draws} are not the draws before position {position}")
    return place, draws
