"""Hostile training YAMLs: no code is run, no alias is expanded without bound, nothing hangs."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refit_shard.loaders.stream.config import MAX_CONFIG_BYTES, read_config
from refit_shard.shards_spec.errors import UsageError
from tests.searches import examples
from tests.small import error_line, refit

GOOD = "DATASET:\n  LIST: [coco, mpii]\n  PARTITION: [0.5, 0.5]\nTRAIN: {BATCH_SIZE: 4}\n"
# Each alias is ten times the previous one: expanded, they are 10^30 words.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 31)
)
SCALARS = st.sampled_from(
    [
        *("~", "[]", "{}", ".nan", "-.inf", "1e999", "9" * 5000, "0x", "0b", "1:99:99"),
        *("!!int ''", "!!int x", "!!float ''", "!!bool x", "!!timestamp x", "!!binary 'ä'"),
        *("!!python/object/apply:os.system [x]", "!!python/name:os.system", "2001-99-99"),
        *("&a [*a]", "*a", "? [x]", "{[x]: y}", "!<!> x", "'\\0'", '"\\ud800"', "<<: x"),
        *("!!set {x}", "!!omap [x]", "{<<: [x]}"),
    ]
)


def read(path: Path) -> None:
    """Read a config; an error must be a RefitShardError of one line."""
    try:
        read_config(str(path))
    except UsageError as error:
        said = str(error)
    else:
        return
    assert said.startswith(f"{path}: ")
    assert len(said) < 2000


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["coco", "mpii", "0.5", "[coco, mpii]", "[0.5, 0.5]", "4", "{BATCH_SIZE: 4}"]),
    SCALARS | st.text(max_size=6),
)
def test_any_other_value_is_read_or_our_error(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8", errors="replace")
    read(path)


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 8), st.binary(max_size=6))
def test_any_spliced_bytes_are_read_or_our_error(
    tmp_path: Path, at: int, length: int, new: bytes
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(GOOD.encode()[:at] + new + GOOD.encode()[at + length :])
    read(path)


@pytest.mark.parametrize(
    "text",
    [
        BOMB + GOOD.replace("[coco, mpii]", "*a30"),
        BOMB + GOOD.replace("[0.5, 0.5]", "*a30"),
        BOMB + GOOD.replace("coco", "*a30"),
        BOMB + GOOD.replace("mpii]", "mpii]\n  X: *a30").replace("[coco", "{x: *a30} #"),
        GOOD.replace("[0.5, 0.5]", f"[{10**400}, 0]"),
        GOOD.replace("[0.5, 0.5]", "[1.7e+308, 1.7e+308]"),
        "{" * 20_000,
        "- " * 20_000,
    ],
    ids=["list", "partition", "name", "mapping", "huge", "sum", "deep", "nested"],
)
def test_a_small_file_that_stands_for_a_large_one_is_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for command in (["build", "--config", path], ["doctor", "--config", path]):
        result = refit(*command)
        assert result.code == 2
        assert len(error_line(result)) < 1000
    result = refit("preview", "--stream", path, "--out", tmp_path / "x.png")
    assert result.code == 2
    assert len(error_line(result)) < 1000


def test_a_file_that_is_no_config_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=f"more than {MAX_CONFIG_BYTES} bytes"):
        read_config(str(path))
