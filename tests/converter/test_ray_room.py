"""What Ray needs of a machine is looked at before it starts."""

import os
import resource
from pathlib import Path

import pytest

from refit_shard.converter.build import ray_room
from refit_shard.converter.build.ray_room import cannot_start, local_options
from refit_shard.shards_spec.errors import RefitShardError
from tests.small import own, refit_process


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary folder is named."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_usual_machine_is_left_to_ray() -> None:
    assert local_options(2) == {"address": "local", "num_cpus": 2, "include_dashboard": False}


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize(
    ("place", "why"),
    [("long" * 20, "too long"), ("absent", "not a folder"), ("/proc", "cannot be written")],
)
def test_a_temporary_folder_that_will_not_do_is_replaced_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    place: str,
    why: str,
) -> None:
    folder = tmp_path / place
    if why == "too long":
        folder.mkdir()
    if why == "not a folder":
        monkeypatch.setattr(ray_room, "_LONGEST", 1000)
    monkeypatch.setenv(name, str(folder))
    assert local_options(2)["_temp_dir"] == "/tmp/ray"
    assert f"{name} {folder} " in caplog.text
    assert why in caplog.text


def test_without_any_folder_the_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/a/folder")
    monkeypatch.setattr(ray_room, "_is_writable", lambda _: False)
    with pytest.raises(RefitShardError, match=r"TMPDIR /a/folder .*set TMPDIR .*--workers 0"):
        local_options(2)


def test_shared_memory_that_cannot_be_written_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_room, "_SHARED_MEMORY", "/proc")
    assert local_options(2)["_plasma_directory"] == "/tmp"
    assert "/proc cannot be written" in caplog.text


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (6_000_000_000, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    said = str(cannot_start(Exception("timed out\nduring startup.")))
    assert said.startswith("Ray does not start here: timed out during startup.")
    assert "6.0 GB of addresses each (ulimit -v)" in said
    assert said.endswith("--workers 0")
    error = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
    assert "the command line holds a name that is not UTF-8" in str(cannot_start(error))


def test_a_build_goes_on_where_the_temporary_folder_is_too_long(tmp_path: Path) -> None:
    """As on a cluster that gives each job a folder of its own."""
    tree = own(tmp_path / "tree")
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    command = tree.command(workers=1)
    result = refit_process(*command, env={**os.environ, "TMPDIR": str(folder)})
    assert result.code == 0, result.err
    assert "is too long for Ray's sockets" in result.err
    assert (tree.out / "manifest.json").is_file()
