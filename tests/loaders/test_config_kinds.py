"""Options and configs as other libraries give them: numpy's numbers, Path, yacs, OmegaConf."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from yacs.config import CfgNode

from refit_shard import AugmentationPolicy, Occluders, StreamingLoader, StreamOptions
from refit_shard.loaders.items.occluders import occluder_bytes
from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.refit.trainer import get_dataloaders
from refit_shard.loaders.stream.config import parse_config, read_config
from refit_shard.loaders.stream.options import parse_bytes
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.streams import all_items

PLAIN: dict[str, Any] = {
    "DATASET": {"LIST": ["bedlam", "agora"], "PARTITION": [0.75, 0.25]},
    "TRAIN": {"BATCH_SIZE": 6},
    "NUM_WORKERS": 0,
    "SEED_VALUE": 11,
    "IMG_RES": 16,
    "augmentation": {"rot_sigma": 15, "occluder_size": [0.2, 0.5]},
    "MODEL": {"X": [1, {"Y": None}]},
}


def as_namespace(content: Any) -> Any:
    """Nested objects with attributes, as argparse makes."""
    if not isinstance(content, dict):
        return content
    return SimpleNamespace(**{key: as_namespace(value) for key, value in content.items()})


def with_interpolations(content: Any) -> Any:
    """An OmegaConf config whose values refer to one another; one that is not read is not set."""
    more = {"size": 6, "TRAIN": {"BATCH_SIZE": "${size}"}, "OPTIMIZER": {"LR": "???"}}
    return OmegaConf.merge(OmegaConf.create(content), OmegaConf.create(more))


def in_numpy(content: Any) -> Any:
    """Numbers as numpy has them."""
    content = copy.deepcopy(content)
    content["DATASET"]["PARTITION"] = np.array([0.75, 0.25], np.float32)
    content["TRAIN"]["BATCH_SIZE"] = np.int64(6)
    content["SEED_VALUE"] = np.uint8(11)
    return content


KINDS: list[Callable[[Any], Any]] = [
    *(copy.deepcopy, CfgNode, OmegaConf.create, with_interpolations, as_namespace, in_numpy)
]


@pytest.mark.parametrize("make", KINDS)
def test_a_config_of_any_kind_says_the_same(make: Callable[[Any], Any], shards: Path) -> None:
    content = copy.deepcopy(PLAIN)
    content["DATASET"]["SHARDS"] = str(shards)
    read = parse_config(make(content), "cfg")
    assert read == parse_config(PLAIN, "cfg")
    policy = AugmentationPolicy(rot_sigma=15.0, occluder_size=(0.2, 0.5))
    assert StreamOptions(**read.stated) == StreamOptions(
        batch_size=6, num_workers=0, seed=11, res=16, policy=policy
    )
    with pytest.raises(UsageError, match="3dpw_test_sub: no finished shards"):
        get_dataloaders(make(content), eval_joints="none")  # the training set was opened


@pytest.mark.parametrize("make", [CfgNode, OmegaConf.create])
def test_what_such_a_config_refuses_is_one_line(make: Callable[[Any], Any]) -> None:
    for section, said in (
        ({"LIST": ["a"]}, "DATASET.PARTITION must be a list"),
        ({"LIST": "a", "PARTITION": [1.0]}, "DATASET.LIST must be a list, got 'a'"),
        ({"LIST": ["a", "a"], "PARTITION": [0.5, 0.5]}, "name each dataset once"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_config(make({"DATASET": section}), "cfg")
    for content in ({"DATASET": [1]}, {"DATASET": "a"}, {}):
        with pytest.raises(UsageError, match="must hold DATASET"):
            parse_config(make(content), "cfg")


def test_a_value_that_omegaconf_cannot_give_is_one_line() -> None:
    for value in ("???", "${nowhere}"):
        content = copy.deepcopy(PLAIN)
        content["TRAIN"]["BATCH_SIZE"] = value
        with pytest.raises(UsageError, match=r"cfg: TRAIN\.BATCH_SIZE: ") as caught:
            parse_config(OmegaConf.create(content), "cfg")
        assert "\n" not in str(caught.value)
        content = copy.deepcopy(PLAIN)
        content["DATASET"]["PARTITION"][1] = value
        with pytest.raises(UsageError, match=r"cfg: DATASET\.PARTITION"):
            parse_config(OmegaConf.create(content), "cfg")
        content = copy.deepcopy(PLAIN)
        content["augmentation"]["rot_sigma"] = value
        with pytest.raises(UsageError, match=r"cfg: augmentation\.rot_sigma: "):
            parse_config(OmegaConf.create(content), "cfg")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ([1], "augmentation must hold fields of AugmentationPolicy, got"),
        ("refit", "augmentation must hold fields of AugmentationPolicy, got 'refit'"),
        ({"rot": 3}, "augmentation.rot is no field of AugmentationPolicy; known: rot_sigma, "),
        ({1: 3}, "augmentation.1 is no field"),
        ({"flip": 2}, "augmentation: AugmentationPolicy: flip"),
        ({"flip": None}, "augmentation: AugmentationPolicy: flip"),
        ({"flip": [0.5]}, "augmentation: AugmentationPolicy: flip"),
        ({"occluder_size": 1}, "augmentation: "),
        ({"occluder_size": [0.1, 0.2, 0.3]}, "augmentation: "),
    ],
)
def test_a_policy_that_a_config_cannot_mean_is_one_line(section: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({**PLAIN, "augmentation": section}, "cfg")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_policy_the_options_own_one_stays() -> None:
    content = {name: value for name, value in PLAIN.items() if name != "augmentation"}
    assert "policy" not in parse_config(content, "cfg").stated


def test_numpys_numbers_are_taken_for_what_they_are() -> None:
    """And held as Python's, so that states and hashes are the same."""
    whole = ["batch_size", "seed", "epoch_samples", "num_workers", "prefetch", "window", "res"]
    stated: dict[str, Any] = dict.fromkeys(whole, 17) | {"rank": 1, "world_size": 2}
    plain = StreamOptions(**stated, augment=False, drop_last=True)
    for kind in (np.int64, np.uint8, np.int32):
        given = {name: kind(value) for name, value in stated.items()}
        options = StreamOptions(**given, augment=np.False_, drop_last=np.True_)  # type: ignore[arg-type]
        assert options == plain
        assert {type(getattr(options, name)) for name in stated} == {int}
        assert (options.augment, options.drop_last) == (False, True)
        assert pickle.loads(pickle.dumps(options)) == plain  # noqa: S301
    drawn: dict[str, Any] = {"rot_sigma": np.float32(0.5), "flip": np.int64(1)}
    policy = AugmentationPolicy(**drawn, occluder_size=tuple(np.array([0.25, 0.5])))
    assert policy == AugmentationPolicy(rot_sigma=0.5, flip=1.0, occluder_size=(0.25, 0.5))
    assert {type(value) for value in asdict(policy).values()} == {float, tuple}
    assert parse_bytes("cache_bytes", np.int64(2000)) == parse_bytes("cache_bytes", "2kB") == 2000


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": np.float64(8)}, "batch_size: must be a whole number"),
        ({"batch_size": np.True_}, "batch_size: must be a whole number"),
        ({"batch_size": np.array([8])}, "batch_size: must be a whole number"),
        ({"seed": np.int64(-1)}, "seed: must be .* got"),
        ({"augment": np.int64(1)}, "augment: must be one of True, False"),
        ({"augment": 1}, "augment: must be one of True, False"),
        ({"cache": 3, "cache_bytes": 1}, "cache: must be a path"),
        ({"cache": "s3://b", "cache_bytes": 1}, "cache: must be on this machine"),
        ({"cache": Path("s3://b"), "cache_bytes": 1}, "a URL has two slashes"),
        ({"cache": "x", "cache_bytes": np.float64(0.5)}, "cache_bytes: must be a number of bytes"),
        ({"cache": "x", "cache_bytes": True}, "cache_bytes: must be a number of bytes"),
        ({"occluders": 3}, "occluders: must be a path"),
    ],
)
def test_what_is_no_such_number_or_place_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        StreamOptions(**changed)


def test_every_path_of_the_loaders_may_be_a_path_or_below_the_home_folder(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sets").symlink_to(shards)
    (tmp_path / "c.yaml").write_text(
        "DATASET: {LIST: [agora], PARTITION: [1]}\nTRAIN: {BATCH_SIZE: 4}\nIMG_RES: 16\n"
    )
    (tmp_path / "o.arrow").write_bytes(occluder_bytes([np.full((8, 8, 4), 255, np.uint8)]))
    assert len(Occluders(tmp_path / "o.arrow")) == len(Occluders("~/o.arrow")) == 1
    assert read_config(tmp_path / "c.yaml") == read_config("~/c.yaml")
    seen = []
    for kind in (str, Path):
        for place in (tmp_path, "~"):

            def at(name: str, kind: Any = kind, place: Any = place) -> Any:
                return kind(f"{place}/{name}")

            loader = StreamingLoader.from_config(
                at("c.yaml"),
                shards=at("sets"),
                occluders=at("o.arrow"),
                cache=at("cache"),
                cache_bytes="1MB",
                num_workers=0,
            )
            assert loader.options.occluders == str(tmp_path / "o.arrow")
            assert loader.options.cache == str(tmp_path / "cache")
            ratio: Any = np.float32(1)
            direct = StreamingLoader({"agora": (at("sets/agora"), ratio)}, loader.options)
            test = EvaluationLoader("agora", at("sets/agora"), loader.options)
            seen.append([all_items(one) for one in (loader, direct, test)])
    assert all(one == seen[0] for one in seen)
    assert not Path("~").exists()
