"""``--remap``: what it may say, and what a name becomes."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refit_shard.converter.annotations.remaps import parse_remaps, remapped
from refit_shard.shards_spec.errors import UsageError


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("images/=Images/", "images/images/a.jpg", "Images/images/a.jpg"),
        ("images/=Images/", "x/images/a.jpg", None),
        ("train2014/=", "train2014/a.jpg", "a.jpg"),
        ("a=b=c/", "a/x.jpg", "b=c//x.jpg"),
        ("*=sub/*", "a.jpg", "sub/a.jpg"),
        ("*.png=*.jpg", "a/b.png", "a/b.jpg"),
        ("*.png=*.jpg", "a/b.png.bak", None),
        ("*.png=*", "a/b.png", "a/b"),
        ("pre_*.png=new/*.jpg", "pre_a/b.png", "new/a/b.jpg"),
        ("pre_*.png=new/*.jpg", "a/b.png", None),
        ("aba*aba=x*y", "aba", None),
        ("aba*aba=x*y", "abaaba", "xy"),
        ("*/frame_*=*/*", "S1/frame_9/frame_000619.jpg", "S1/frame_9/000619.jpg"),
        ("*/*=*/frame_*", "a/b/000619.jpg", "a/b/frame_000619.jpg"),
        ("*/frame_*=*/*", "frame_000619.jpg", None),
        ("a/*/b/*.png=*_*.jpg", "a/x/b/y.png", "x_y.jpg"),
        ("*_TakingPhoto_*=*_Photo_*", "images/S1_TakingPhoto_1.jpg", "images/S1_Photo_1.jpg"),
    ],
)
def test_a_name_becomes_what_the_remap_says(text: str, name: str, wanted: str | None) -> None:
    remaps = parse_remaps(shlex.split(shlex.quote(text)))
    assert remaps[0].apply(name) == wanted
    assert remapped(name, remaps) == (name if wanted is None else wanted)
    assert parse_remaps([remaps[0].text]) == remaps


def test_the_first_that_fits_is_used() -> None:
    remaps = parse_remaps(["a/*.png=x/*.jpg", "a/=y/", "*.png=*.gif"])
    names = ["a/1.png", "a/1.jpg", "b/1.png", "b/1.jpg"]
    assert [remapped(n, remaps) for n in names] == ["x/1.jpg", "y/1.jpg", "b/1.gif", "b/1.jpg"]


@pytest.mark.parametrize("text", ["nothing", "=new", "", "*.png=.jpg", "a=*", "**=*x*", "*a*=*"])
def test_what_is_no_remap_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--remap .*: (must be OLD=NEW|OLD and NEW must hold)"):
        parse_remaps([text])


@given(
    old=st.lists(st.text("ab/", min_size=1, max_size=3), min_size=2, max_size=4),
    kept=st.lists(st.text("cd/", max_size=3), min_size=3, max_size=3),
)
def test_what_the_stars_stand_for_is_kept(old: list[str], kept: list[str]) -> None:
    """A name made of the old parts fits, and a remap to the same parts changes nothing."""
    kept = kept[: len(old) - 1]
    name = "".join(part + rest for part, rest in zip(old, [*kept, ""], strict=True))
    (same,) = parse_remaps([f"{'*'.join(old)}={'*'.join(old)}"])
    assert same.apply(name) == name
    (marked,) = parse_remaps([f"{'*'.join(old)}={'*'.join('X' for _ in old)}"])
    made = marked.apply(name)
    assert made is not None
    assert made.count("X") == len(old)
