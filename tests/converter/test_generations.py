"""Decisions about the files of a folder, whatever stands in it: nothing published is touched."""

from hypothesis import given
from hypothesis import strategies as st

from refit_shard.converter.build.generations import (
    Existing,
    Note,
    candidates,
    choose_target,
    leftovers,
    name_of,
    parse_note,
    superseded,
)
from refit_shard.shards_spec.geometry import FULL_ENVELOPE
from refit_shard.shards_spec.manifest import Manifest, ShardEntry
from refit_shard.shards_spec.names import attempt_name, generation_of, quarantine_name, shard_stem

SHARDS = 3
PLANS = [{"plan": number} for number in range(3)]


def manifest_of(plan: int, generations: list[int], generation: int) -> Manifest:
    """A manifest of one shard a generation."""
    stems = [shard_stem("own", index, one) for index, one in enumerate(generations)]
    return Manifest(
        dataset="own",
        plan=PLANS[plan],
        generation=generation,
        fields=(),
        envelope=FULL_ENVELOPE,
        box_px=256,
        quality=90,
        restart_interval=1,
        seed=0,
        source_sha256="",
        source_rows=SHARDS,
        left_out=(),
        rows=SHARDS,
        frames=SHARDS,
        quarantined={},
        warned={},
        shards=tuple(
            ShardEntry(
                name=stem, rows=1, tar_bytes=1, tar_sha256="", arrow_bytes=1, arrow_sha256=""
            )
            for stem in stems
        ),
    )


GENERATIONS = st.integers(0, 4)
FILES = st.builds(
    lambda index, generation, ending: shard_stem("own", index, generation) + ending,
    st.integers(0, SHARDS),
    GENERATIONS,
    st.sampled_from([".tar", ".arrow"]),
)
USERS = frozenset({"own-notes.tar", "other-000000.tar", "README", "own-000001.tar.bak"})


@st.composite
def existing_files(draw: st.DrawFn) -> Existing:
    """A folder's state: any files, maybe a manifest whose files are there, maybe a note."""
    names = draw(st.sets(FILES, max_size=14)) | USERS
    names |= {attempt_name(name, "0a1b") for name in draw(st.sets(FILES, max_size=3))}
    names |= {quarantine_name(one) for one in draw(st.sets(GENERATIONS, max_size=2))}
    manifest, note = None, None
    if draw(st.booleans()):
        generations = draw(st.lists(GENERATIONS, min_size=SHARDS, max_size=SHARDS))
        generation = draw(st.integers(max(generations), 4))
        manifest = manifest_of(draw(st.integers(0, 2)), generations, generation)
        names |= {entry.name + end for entry in manifest.shards for end in (".tar", ".arrow")}
        names |= {"manifest.json", quarantine_name(generation)}
    if draw(st.booleans()):
        plan = manifest_of(draw(st.integers(0, 2)), [0], 0).plan_hash
        note = Note(generation=draw(GENERATIONS), plan_hash=plan)
        names.add(".overwrite.json")
    return Existing(dataset="own", names=frozenset(names), manifest=manifest, note=note)


PLAN = manifest_of(0, [0], 0).plan_hash


@given(existing_files(), st.booleans(), st.data())
def test_no_decision_touches_what_is_published_and_whole(
    existing: Existing, overwrite: bool, data: st.DataObject
) -> None:
    target = choose_target(existing, PLAN, overwrite=overwrite)
    kept = candidates(existing, target)
    named = []
    for index in range(SHARDS):
        whole = data.draw(st.sets(st.sampled_from(kept.get(index, ("none",)))))
        stem = name_of(existing, target, index, whole)
        named.append(stem)
        generation = generation_of("own", f"{stem}.tar")
        assert generation is not None
        assert generation >= target.floor
        assert stem not in existing.published & whole
        assert target.hidden is None or generation != target.hidden or stem in existing.published
        if overwrite and existing.note is None and existing.published:
            assert stem not in existing.published
    assert len(set(named)) == SHARDS
    new = manifest_of(0, [0] * SHARDS, 0)
    gone = set(superseded(existing, target, new))
    assert not gone & {entry.name + end for entry in new.shards for end in (".tar", ".arrow")}
    assert not gone & (USERS | {"manifest.json"})
    assert gone <= set(existing.names)
    if overwrite:
        files = {name for name in existing.names if generation_of("own", name) is not None}
        assert gone >= files - {e.name + end for e in new.shards for end in (".tar", ".arrow")}
    assert set(leftovers(existing)) <= {name for name in existing.names if name.endswith(".tmp")}


@given(existing_files())
def test_the_same_overwrite_goes_on_and_another_begins_above_all_that_stands(
    existing: Existing,
) -> None:
    target = choose_target(existing, PLAN, overwrite=True)
    assert target.note is not None
    begun = Existing(
        dataset="own", names=existing.names, manifest=existing.manifest, note=target.note
    )
    assert choose_target(begun, PLAN, overwrite=True).floor == target.floor
    other = choose_target(begun, manifest_of(1, [0], 0).plan_hash, overwrite=True)
    assert other.floor > target.floor
    assert other.floor > max((generation_of("own", name) or 0) for name in existing.names)


@given(GENERATIONS)
def test_a_note_is_read_as_it_was_written(generation: int) -> None:
    note = Note(generation=generation, plan_hash="ab")
    assert parse_note(note.to_json(), "here") == note
