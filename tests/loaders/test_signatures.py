"""Options are written out where they are given, documented one by one, and print themselves."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import refit_shard
from refit_shard import AugmentationPolicy, EvaluationLoader, StreamingLoader, StreamOptions
from tests.loaders.streams import stream

# What ReFit's YAML may state; None for that.
OF_THE_CONFIG = {"res", "batch_size", "seed", "num_workers", "policy"}


def unchanged(batch: dict[str, Any], draws: Any) -> dict[str, Any]:
    """A transform that does nothing."""
    del draws
    return batch


def entries(doc: str | None) -> list[str]:
    """The names that a docstring's ``Args:`` document, in their order."""
    section = re.search(r"\n +Args:\n(.*?)(\n\n|\Z)", doc or "", re.DOTALL)
    assert section is not None, doc
    indent = len(section[1]) - len(section[1].lstrip())
    return re.findall(rf"^ {{{indent}}}(\w+): \S", section[1], re.MULTILINE)


def test_from_config_has_each_option_with_its_type_and_default() -> None:
    """In the options' order, after the config and the shards."""
    options = inspect.signature(StreamOptions).parameters
    given = dict(inspect.signature(StreamingLoader.from_config).parameters)
    assert list(given) == ["config", "shards", *options]
    for name, option in options.items():
        one = given[name]
        assert one.kind is inspect.Parameter.KEYWORD_ONLY
        if name in OF_THE_CONFIG:
            assert one.annotation == option.annotation | None
            assert one.default is None
        else:
            assert one.annotation == option.annotation
            assert one.default == option.default


def test_each_option_reaches_the_loader(shards: Path, tmp_path: Path) -> None:
    """One that is given goes before the config, one that is not leaves the config's."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "DATASET: {LIST: [coco], PARTITION: [1]}\nIMG_RES: 48\nSEED_VALUE: -1\n"
        "augmentation: {gray: 1}\n"
    )
    given: dict[str, Any] = {
        "image": "uint8", "res": 32, "compat": "refit", "batch_size": 3, "seed": 4,
        "epoch_samples": 9, "num_workers": 1, "prefetch": 3, "rank": 1, "world_size": 2,
        "mixing": "iid", "augment": False, "policy": AugmentationPolicy(flip=0.0),
        "transform": refit_shard.BatchTransform(name="none", function=unchanged),
        "occluders": "required", "on_error": "replace", "drop_last": False,
        "where": {"coco": None}, "split": ("train", 0.5, 3), "window": 1,
        "cache": str(tmp_path / "cache"), "cache_bytes": "1GB",
    }  # fmt: skip
    assert given.keys() == {field.name for field in fields(StreamOptions)}
    loader = StreamingLoader.from_config(config, shards=shards, **given)
    assert loader.options == StreamOptions(**given)
    for name, value in given.items():
        assert getattr(loader.options, name) == value != getattr(StreamOptions(), name)


def test_each_option_has_an_entry() -> None:
    """And no other name has."""
    for one in (StreamOptions, refit_shard.RenderOptions, refit_shard.BatchTransform):
        assert entries(one.__doc__) == [field.name for field in fields(one)]
    for function in (StreamingLoader, EvaluationLoader, refit_shard.get_dataloaders):
        assert entries(function.__doc__) == list(inspect.signature(function).parameters)


def test_no_public_callable_takes_whatever_comes() -> None:
    """An editor can complete each name."""
    public = [getattr(refit_shard, name) for name in refit_shard.__all__]
    methods = [member for one in public if inspect.isclass(one) for member in vars(one).values()]
    found = [getattr(one, "__func__", one) for one in (*public, *methods)]
    callables = [one for one in found if inspect.isfunction(one) or inspect.isclass(one)]
    assert len(callables) > 30
    for one in callables:
        kinds = {parameter.kind for parameter in inspect.signature(one).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, one


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (StreamOptions(), "StreamOptions()"),
        (
            StreamOptions(batch_size=8, image="uint8", policy=AugmentationPolicy(flip=0.0)),
            "StreamOptions(image='uint8', batch_size=8, policy=AugmentationPolicy(flip=0.0))",
        ),
        (StreamOptions(split=["val", 0.9]), "StreamOptions(split=('val', 0.9, 0))"),  # type: ignore[arg-type]
        (
            StreamOptions(transform=refit_shard.BatchTransform(name="a", function=unchanged)),
            "StreamOptions(transform=BatchTransform(name='a'))",
        ),
        (refit_shard.RenderOptions(res=64), "RenderOptions(res=64)"),
    ],
)
def test_options_print_what_is_not_the_default(options: Any, printed: str) -> None:
    """As Python would write it."""
    assert str(options) == printed


def test_a_loader_says_what_it_reads_and_where_it_is(shards: Path) -> None:
    """Sources with rows and ratios, batch, rank, workers, epoch and position."""
    few = {"coco": pc.field("source_row") < 7}
    loader = stream(shards, {"bedlam": 0.75, "coco": 0.25}, where=few)
    next(iter(loader))
    assert repr(loader).splitlines() == [
        "StreamingLoader(",
        f"  bedlam: 40 rows, {shards}/bedlam, ratio 0.75",
        f"  coco: 7 of 19 rows, {shards}/coco, ratio 0.25",
        "  batch_size 12 on rank 0 of 1, num_workers 0",
        "  epoch 0 from position 0, now at 12",
        ")",
    ]
    options = StreamOptions(batch_size=5, num_workers=2, rank=1, world_size=2)
    assert repr(EvaluationLoader("agora", shards / "agora", options)).splitlines() == [
        "EvaluationLoader(",
        f"  agora: 9 rows, {shards}/agora",
        "  rows 4 to 8 on rank 1 of 2, batch_size 5, num_workers 2",
        ")",
    ]
