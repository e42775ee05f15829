"""Every wrong option is one clear line, before anything starts."""

import json
import math
import re
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from refit_shard import StreamingLoader, StreamOptions
from refit_shard.loaders.stream.config import read_config
from refit_shard.shards_spec.errors import FormatError, UsageError
from tests.loaders.streams import all_items, sources, stream

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ONE: dict[str, Any] = {"num_workers": 0, "rank": 0, "world_size": 1, "batch_size": 8, "res": 16}


@pytest.mark.parametrize(
    ("mix", "named"),
    [
        ({"bedlam": 0.6, "agora": 0.3}, "sum to 1, they sum to 0.9"),
        ({"bedlam": 0.6, "agora": 0.4101}, r"they sum to 1\.0101"),
        ({"bedlam": 0.6, "agora": 0.3899}, r"they sum to 0\.9899"),
        ({"bedlam": 95.5, "agora": 5.6}, r"they sum to 101\.1"),
        ({"bedlam": 0, "agora": 0}, "they sum to 0"),
        ({"bedlam": 3, "agora": 0.5}, r"they sum to 3\.5"),
        ({"bedlam": 1.5, "agora": -0.5}, "agora: the ratio must be a number of at least 0"),
        ({"bedlam": math.nan, "agora": 1.0}, "bedlam: the ratio must be .* got nan"),
        ({"bedlam": math.inf, "agora": 0.0}, "bedlam: the ratio must be .* got inf"),
        ({"bedlam": "0.5", "agora": 0.5}, "bedlam: the ratio must be .* got '0.5'"),
        ({"bedlam": None, "agora": 1.0}, "bedlam: the ratio must be .* got None"),
        ({}, "sources: none given"),
    ],
)
def test_wrong_ratios(shards: Path, mix: dict[str, Any], named: str) -> None:
    """The message shows the ratio, or the sum."""
    given = {name: (str(shards / name), ratio) for name, ratio in mix.items()}
    with pytest.raises(UsageError, match=named):
        StreamingLoader(given, StreamOptions(**ONE))


def test_ratios_that_sum_to_one_as_floats_do(shards: Path) -> None:
    """Ten tenths, and a sum that is off by less than 1e-6, are one."""
    ten = {f"s{index}": (str(shards / "agora"), 0.1) for index in range(10)}
    assert len(StreamingLoader(ten, StreamOptions(**ONE))) == 1
    near = {"bedlam": 0.6, "agora": 0.4 + 9e-7}
    assert len(all_items(stream(shards, near))) == 36


@pytest.mark.parametrize(
    ("ratios", "total", "shares"),
    [
        ([3, 1], "4", [0.75, 0.25]),
        ([75, 25], "100", [0.75, 0.25]),
        ([3.0, 0], "3", [1, 0]),
        ([0.6, 0.39], "0.99", [0.6 / 0.99, 0.39 / 0.99]),
        ([0.6, 0.41], "1.01", [0.6 / 1.01, 0.41 / 1.01]),
        ([66.6, 33.3], "99.9", [2 / 3, 1 / 3]),
    ],
)
def test_ratios_that_mean_shares_are_taken_so(
    shards: Path,
    caplog: pytest.LogCaptureFixture,
    ratios: list[float],
    total: str,
    shares: list[float],
) -> None:
    """Counts, percentages and rounded shares; one line says what they became."""
    with caplog.at_level("INFO"):
        given = stream(shards, dict(zip(["bedlam", "agora"], ratios, strict=True)))
    (line,) = [one.getMessage() for one in caplog.records if "ratios" in one.getMessage()]
    said = f"bedlam {shares[0]:.4g}, agora {shares[1]:.4g}"
    assert line == f"the ratios sum to {total} and are divided by their sum: {said}"
    found = [source["ratio"] for source in given.state_dict()["sources"]]
    assert found == pytest.approx(shares, abs=1e-12)
    stream(shards, dict(zip(["bedlam", "agora"], found, strict=True))).load_state_dict(
        given.state_dict()
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 0}, "batch_size: must be a whole number from 1 .* got 0"),
        ({"batch_size": 8.0}, r"batch_size: must be a whole number .* got 8\.0"),
        ({"batch_size": True}, "batch_size: must be a whole number .* got True"),
        ({"num_workers": -1}, "num_workers: must be .* got -1"),
        ({"prefetch": 0}, "prefetch: must be .* got 0"),
        ({"window": 0}, "window: must be .* got 0"),
        ({"seed": -1}, "seed: must be .* got -1"),
        ({"seed": None}, "seed: must be .* got None"),
        ({"res": 0}, "res: must be .* got 0"),
        ({"epoch_samples": 0}, "epoch_samples: must be .* got 0"),
        ({"mixing": "exactly"}, "mixing: must be one of 'exact', 'iid', got 'exactly'"),
        (
            {"image": "float16"},
            "image: must be one of 'normalized', 'bfloat16', 'uint8', got 'float16'",
        ),
        ({"compat": "spin"}, "compat: must be one of None, 'refit', got 'spin'"),
        ({"on_error": "ignore"}, "on_error: must be one of 'raise', 'replace', got 'ignore'"),
        ({"rank": 2, "world_size": 2}, "rank: must be a whole number from 0 to 1, got 2"),
        ({"rank": -1, "world_size": 2}, "rank: must be .* got -1"),
        ({"rank": 0, "world_size": 0}, "world_size: must be .* got 0"),
        ({"rank": 1}, "rank and world_size must be given together"),
        ({"policy": None}, "policy: must be an AugmentationPolicy, got None"),
        ({"policy": {"flip": 0.5}}, "policy: must be an AugmentationPolicy"),
        ({"augment": "no"}, "augment: must be one of True, False, got 'no'"),
        ({"drop_last": 1}, "drop_last: must be one of True, False, got 1"),
        ({"where": "scale > 1"}, "where: must be a mapping"),
    ],
)
def test_options_out_of_bounds(changed: dict[str, Any], named: str) -> None:
    """By name, with the bounds and what was given."""
    with pytest.raises(UsageError, match=named):
        StreamOptions(**changed)


def test_options_are_frozen_and_keyword_only() -> None:
    """Nobody changes the options of a running loader."""
    with pytest.raises(FrozenInstanceError):
        StreamOptions().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        StreamOptions("uint8")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="batchsize"):
        StreamOptions(batchsize=64)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 64}, r"epoch of 40 samples is smaller than one batch of 64 \(all ranks\)"),
        ({"batch_size": 25, "world_size": 2}, "epoch of 40 .* one batch of 50"),
        ({"epoch_samples": 7}, "epoch of 7 samples is smaller than one batch of 8"),
        (
            {"epoch_samples": 2, "world_size": 3, "drop_last": False},
            "epoch of 2 samples is smaller than the number of ranks, 3",
        ),
    ],
)
def test_batches_that_do_not_fit_the_epoch(
    shards: Path, changed: dict[str, Any], named: str
) -> None:
    """Refused at once on every rank, rather than a rank that waits for ever."""
    with pytest.raises(UsageError, match=named):
        StreamingLoader(sources(shards), StreamOptions(**{**ONE, **changed}))


def test_missing_and_unfinished_shards(shards: Path, tmp_path: Path) -> None:
    """A folder that is not there, an empty one, and a build without its manifest."""
    (tmp_path / "empty").mkdir()
    unfinished = shutil.copytree(shards / "agora", tmp_path / "unfinished")
    (unfinished / "manifest.json").unlink()
    for name in ("nowhere", "empty", "unfinished"):
        with pytest.raises(UsageError) as caught:
            StreamingLoader({name: (str(tmp_path / name), 1.0)}, StreamOptions(**ONE))
        message = str(caught.value)
        assert str(tmp_path / name) in message
        assert f"{name}: no finished shards" in message
        assert "refit-shard build" in message
        assert "\n" not in message


def test_shards_of_another_format_version(shards: Path, tmp_path: Path) -> None:
    """Both versions are named, and what to do."""
    copy = shutil.copytree(shards / "agora", tmp_path / "agora")
    manifest = copy / "manifest.json"
    content = json.loads(manifest.read_text()) | {"format_version": 1}
    manifest.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="format_version must be 3, got 1") as caught:
        StreamingLoader({"agora": (str(copy), 1.0)}, StreamOptions(**ONE))
    assert str(copy) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_policy_wider_than_the_shards(shards: Path) -> None:
    """The source, its envelope and the policy's number; augment=False does not care."""
    from refit_shard import AugmentationPolicy

    wide = AugmentationPolicy(scale_clip=0.3)
    with pytest.raises(UsageError, match=r"bedlam: .*1\.25, .*1\.3"):
        stream(shards, policy=wide)
    assert len(all_items(stream(shards, policy=wide, augment=False))) == 36


@pytest.mark.parametrize(
    ("name", "names", "ratios"),
    [
        (
            "config.yaml",
            ("coco", "mpii", "mpi-inf-3dhp", "h36m", "3dpw"),
            (0.25, 0.05, 0.1, 0.4, 0.2),
        ),
        ("config_bedlam.yaml", ("bedlam", "agora"), (0.95, 0.05)),
        (
            "config_all.yaml",
            ("bedlam", "agora", "coco", "h36m", "3dpw"),
            (0.5, 0.05, 0.05, 0.2, 0.2),
        ),
    ],
)
def test_the_shipped_configs(name: str, names: tuple[str, ...], ratios: tuple[float, ...]) -> None:
    """ReFit's lists, ratios and sizes."""
    config = read_config(str(CONFIGS / name))
    assert config.names == names
    assert config.ratios == ratios
    assert config.stated == {"batch_size": 64, "num_workers": 12, "seed": 0, "res": 256}


def write(folder: Path, text: str) -> str:
    """A config file."""
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_from_config_reads_refits_keys(shards: Path, tmp_path: Path) -> None:
    """The file's values are taken, keywords go before them, other keys are left alone."""
    config = write(
        tmp_path,
        "DATASET: {LIST: [bedlam, agora], PARTITION: [0.9, 0.1], OTHER: 1}\n"
        "TRAIN: {BATCH_SIZE: 6, LR: 0.1}\nNUM_WORKERS: 2\nSEED_VALUE: 11\nIMG_RES: 16\n"
        "MODEL: {X: [1]}\n",
    )
    loader = StreamingLoader.from_config(config, shards=str(shards), rank=0, world_size=1)
    options = loader.options
    assert (options.batch_size, options.num_workers, options.seed) == (6, 2, 11)
    batch = next(iter(loader))
    assert batch["img"].shape == (6, 3, 16, 16)
    mix = {"bedlam": 0.9, "agora": 0.1}
    same = stream(shards, mix, batch_size=6, seed=11, res=16)
    assert all_items([batch]) == all_items([next(iter(same))])
    changed = StreamingLoader.from_config(
        config, shards=f"{shards}/", batch_size=4, seed=1, rank=0, world_size=1
    )
    assert (changed.options.batch_size, changed.options.seed) == (4, 1)
    assert changed.options.res == 16


def test_from_config_of_the_shortest_file(shards: Path, tmp_path: Path) -> None:
    """A list and its ratios are enough; ratios may be whole numbers."""
    config = write(tmp_path, "DATASET: {LIST: [bedlam], PARTITION: [1]}")
    loader = StreamingLoader.from_config(config, shards=str(shards), batch_size=10)
    assert loader.options == StreamOptions(batch_size=10)
    assert len(loader) == 4


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("DATASET: {LIST: [a, b], PARTITION: [1.0]}", "LIST has 2 names.*PARTITION 1 ratios"),
        ("DATASET: {LIST: [a, b], PARTITION: [0.5, 0.4]}", r"sum to 1, they sum to 0\.9"),
        ("DATASET: {LIST: [a, a], PARTITION: [0.5, 0.5]}", "name each dataset once"),
        ("DATASET: {LIST: [a], PARTITION: [1.0e+400]}", "a: the ratio must be .* got inf"),
        (f"DATASET: {{LIST: [a], PARTITION: [{10**400}]}}", "a: the ratio must be .* got 1000"),
        ("DATASET: {LIST: [a, 7], PARTITION: [0.5, 0.5]}", "name each dataset once"),
        ("DATASET: {LIST: a, PARTITION: 1.0}", r"DATASET\.LIST must be a list, got 'a'"),
        ("DATASET: {LIST: [a]}", r"DATASET\.PARTITION must be a list, got None"),
        ("DATASET: {LIST: [], PARTITION: []}", r"DATASET\.LIST must be a list"),
        ("DATASET: {LIST: [a], PARTITION: [.nan]}", "a: the ratio must be .* got nan"),
        ("DATASET: {LIST: [a], PARTITION: ['1']}", "a: the ratio must be .* got '1'"),
        ("DATASET: [1, 2]", "must hold DATASET with LIST and PARTITION"),
        ("TRAIN: {BATCH_SIZE: 64}", "must hold DATASET with LIST and PARTITION"),
        ("", "must hold DATASET"),
        ("just text", "must hold DATASET"),
        ("DATASET: {LIST: [a", "not YAML"),
        ("a: b: c", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("DATASET: {LIST: [bedlem], PARTITION: [1.0]}", "bedlem: no finished shards"),
        (
            "DATASET: {LIST: [bedlam], PARTITION: [1.0]}\nTRAIN: {BATCH_SIZE: many}",
            "batch_size: must be a whole number .* got 'many'",
        ),
        (
            "DATASET: {LIST: [bedlam], PARTITION: [1.0]}\nNUM_WORKERS: -3",
            "num_workers: must be .* got -3",
        ),
    ],
)
def test_wrong_configs(shards: Path, tmp_path: Path, text: str, named: str) -> None:
    """One line that names the file or the value."""
    with pytest.raises(UsageError, match=named) as caught:
        StreamingLoader.from_config(write(tmp_path, text), shards=str(shards))
    assert "\n" not in str(caught.value)


def test_a_config_that_cannot_be_read(shards: Path, tmp_path: Path) -> None:
    """No such file, a folder, and bytes that are no text."""
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            StreamingLoader.from_config(str(path), shards=str(shards))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00DATASET")
    with pytest.raises(UsageError, match="not YAML"):
        StreamingLoader.from_config(str(tmp_path / "bytes.yaml"), shards=str(shards))


def test_a_negative_seed_is_drawn(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one each time, which is logged and held; one that is passed goes before it."""
    config = write(tmp_path, "DATASET: {LIST: [bedlam], PARTITION: [1]}\nSEED_VALUE: -1\n")
    with caplog.at_level("INFO"):
        loaders = [
            StreamingLoader.from_config(config, shards=str(shards), batch_size=9) for _ in range(2)
        ]
    seeds = [loader.options.seed for loader in loaders]
    assert seeds[0] != seeds[1]
    said = [one.getMessage() for one in caplog.records]
    assert [line for line in said if "SEED_VALUE" in line] == [
        f"seed: {seed}, drawn at random; SEED_VALUE: {seed} repeats this stream" for seed in seeds
    ]
    stated = StreamingLoader.from_config(config, shards=str(shards), batch_size=9, seed=seeds[0])
    assert all_items(stated) == all_items(loaders[0])
    loaders[1].load_state_dict(stated.state_dict())
    assert loaders[1].options.seed == seeds[0]
    assert all_items(loaders[1]) == all_items(loaders[0])
    with pytest.raises(UsageError, match=f"seed is {seeds[0]}"):
        stream(shards, {"bedlam": 1.0}).load_state_dict(stated.state_dict())


def test_unknown_options_are_named(shards: Path, tmp_path: Path) -> None:
    """By Python, as of any function."""
    config = write(tmp_path, "DATASET: {LIST: [bedlam], PARTITION: [1]}")
    with pytest.raises(TypeError, match="unexpected keyword argument 'workers'"):
        StreamingLoader.from_config(config, shards=str(shards), workers=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bedlam": "data/shards/bedlam"}, "sources: bedlam: must be a pair of shards and ratio"),
        ({"bedlam": ("data/shards/bedlam",)}, "sources: bedlam: must be a pair"),
        ("data/shards/bedlam", "sources: must be {"),
    ],
)
def test_sources_that_are_no_pairs_are_named(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        StreamingLoader(given, StreamOptions(batch_size=2))
