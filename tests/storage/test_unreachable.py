"""A store that does not answer, and an environment that leads to none: said at once, and once."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from refit_shard.shards_spec.errors import SilenceError, UsageError
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.storage.object_store import asked_once
from tests.small import error_line, own, refit


class Silence:
    """A server that hangs up on everybody, and counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._hang_up)
        self._thread.start()

    def _hang_up(self) -> None:
        while True:
            connection, _ = self._server.accept()
            connection.close()
            if self.asked < 0:
                return
            self.asked += 1

    def taken(self) -> int:
        """How many came since this was last asked, once no more come: the thread counts late."""
        found = -1
        while found != self.asked:
            found = self.asked
            time.sleep(0.2)
        self.asked = 0
        return found

    def close(self) -> None:
        """End the server."""
        self.asked = -1
        socket.create_connection(self._server.getsockname()).close()
        self._thread.join()
        self._server.close()


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Silence]:
    """Where the environment says that the store is."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    server = Silence()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.address}")
    yield server
    server.close()


NAMES = ("coco", "mpii", "3dpw", "h36m")


def test_a_command_asks_a_silent_store_once_for_all_its_data_sets(
    silence: Silence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint, whatever the bucket; every dataset still has its finding."""
    monkeypatch.chdir(tmp_path)
    roots = "\n".join(f"{name}_ROOT = 's3://b/x'" for name in ("COCO", "MPII", "PW3D", "H36M"))
    files = ", ".join(f"'{name}': 's3://{name}/x.npz'" for name in NAMES)
    Path("data_config.py").write_text(f"{roots}\nDATASET_FILES = [{{{files}}}]\n")
    with pytest.raises(SilenceError, match="the store does not answer, also when asked again"):
        open_folder("s3://coco").reach()
    once = silence.taken()
    assert once > 0
    result = refit("doctor")
    assert result.code == 1
    for name in NAMES:
        assert f"FAIL  {name}" in result.out
    assert result.out.count("not tried; its store did not answer for s3://") >= len(NAMES) - 1
    assert silence.taken() == once


def test_the_next_command_asks_again(silence: Silence) -> None:
    """A program that goes on, such as a notebook, is not told what was true before."""
    counts = []
    for _ in range(2):
        with asked_once():
            for _ in range(2):
                with pytest.raises(SilenceError):
                    open_folder("s3://bucket/x").reach()
        counts.append(silence.taken())
    assert counts[0] == counts[1] > 0
    for _ in range(2):  # outside a command each call asks
        with pytest.raises(SilenceError):
            open_folder("s3://bucket/x").reach()
    assert silence.taken() == 2 * counts[0]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("form", ["{}", "tcp://{}", "http:/{}"])
def test_an_endpoint_without_its_scheme_is_refused_before_anything_is_asked(
    silence: Silence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    wrong = form.format(silence.address)
    monkeypatch.setenv(name, wrong)
    with pytest.raises(UsageError, match=f"{name}={wrong}: must be a URL with http:// or https://"):
        open_folder("s3://bucket/x")
    for command in (
        ["info", "s3://bucket/x"],
        own(tmp_path).command("--out", "s3://bucket/x"),
    ):
        result = refit(*command)
        assert result.code == 2
        assert "such as http://" in error_line(result)
    assert silence.asked == 0
    assert open_folder(tmp_path).local == tmp_path
