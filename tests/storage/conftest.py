"""A real S3 server in a process of its own, the proxy before it, and a bucket for each test."""

import hashlib
import itertools
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.storage.proxy import FaultProxy

_NUMBERS = itertools.count()
_HEADERS = {
    "Content-Type": "application/octet-stream",
    "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request",
}


@dataclass(frozen=True)
class Store:
    """One bucket, seen from behind the proxy: what truly is there."""

    server: tuple[str, int]
    proxy: FaultProxy
    bucket: str

    @property
    def url(self) -> str:
        """The bucket."""
        return f"s3://{self.bucket}"

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """A request to the server itself."""
        host, port = self.server
        url = f"http://{host}:{port}/{self.bucket}{path}"
        request = urllib.request.Request(url, data, _HEADERS, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def _listed(self, query: str, tag: str) -> list[str]:
        tree = ElementTree.fromstring(self.ask("GET", f"?{query}"))
        namespace = tree.tag.partition("}")[0] + "}"
        return [str(one.text) for one in tree.iterfind(f".//{namespace}{tag}")]

    def keys(self, prefix: str = "") -> list[str]:
        """Objects; not the empty ones by which pyarrow marks folders."""
        keys = self._listed(f"list-type=2&prefix={prefix}", "Key")
        return [key for key in keys if not key.endswith("/")]

    def uploads(self) -> list[str]:
        """Uploads that were begun and neither ended nor aborted."""
        return self._listed("uploads", "Key")

    def get(self, key: str) -> bytes:
        """An object's bytes."""
        return self.ask("GET", f"/{key}")

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.ask("PUT", f"/{key}", data)

    def put_tree(self, prefix: str, folder: Path) -> str:
        """Store all files below a folder; returns their URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        return f"{self.url}/{prefix}"

    def asked(self, name: str) -> Counter[str]:
        """Requests since the last clear, by method, whose path holds the name."""
        return Counter(line.split()[0] for line in self.proxy.lines if name in line.split("?")[0])

    def hashes(self, prefix: str) -> dict[str, str]:
        """SHA-256 of every object below a prefix."""
        return {
            key.removeprefix(f"{prefix}/"): hashlib.sha256(self.get(key)).hexdigest()
            for key in self.keys(f"{prefix}/")
        }


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, int]]:
    """The address of an S3 server's process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            break
    else:
        pytest.fail(f"no server: {''.join(said)}")
    reader = threading.Thread(target=process.stdout.read)  # it must not wait for a full pipe
    reader.start()
    yield "127.0.0.1", int(found[1])
    process.kill()
    process.wait()
    reader.join()
    process.stdout.close()


@pytest.fixture(scope="session")
def proxy(server: tuple[str, int]) -> Iterator[FaultProxy]:
    """The proxy that programs under test talk to."""
    proxy = FaultProxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def store(
    server: tuple[str, int], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Store]:
    """An empty bucket, and an environment that leads to it through the proxy."""
    settings: dict[str, Any] = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": proxy.key,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    proxy.clear()
    store = Store(server, proxy, f"bucket-{next(_NUMBERS)}")
    store.ask("PUT", "")
    yield store
    proxy.clear()
