"""Storage with latency: a preloaded library that delays files, and a proxy that delays S3 requests.

    python -m benchmarks.late_storage PORT MILLISECONDS

runs the proxy to an S3 server at PORT on loopback: it prints its own port and forwards each request
after the delay. Requests for ``…/pass_003/…`` are forwarded as ``…/…``, so that one object has all
names that :func:`benchmarks.build_cases.repeated` gives a frame.
"""

import asyncio
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from benchmarks.harness import REPOSITORY
from refit_shard.loaders.native.compiling import compilers

OPENS, READS = (Path(__file__).with_name(f"late_{what}.cc") for what in ("opens", "reads"))
_OPTIONS = ("-O2", "-shared", "-fPIC")
_PASS = re.compile(rb"/pass_\d+/")
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request",
    "Content-Type": "application/octet-stream",
}
BUCKET = "frames"


def late_library(folder: Path, source: Path) -> Path:
    """Compile the library that delays opens or reads (source OPENS or READS) into a folder.

    Raises:
        RuntimeError: no compiler is installed.
    """
    made = folder / f"{source.stem}.so"
    for command in compilers():
        if subprocess.run([*command, *_OPTIONS, source, "-o", made], check=False).returncode == 0:
            return made
    raise RuntimeError("no C++ compiler: install g++, or pip install ziglang")


@contextmanager
def late_files(library: Path, folder: Path, milliseconds: int) -> Iterator[None]:
    """Processes started in this context wait before each open of a file below the folder."""
    late = {
        "LD_PRELOAD": str(library),
        "LATE_FOLDER": f"{folder}/",
        "LATE_MICROSECONDS": str(1000 * milliseconds),
    }
    with patch.dict(os.environ, late):
        yield


# ------------------------------------------------------------------------------------- S3


@contextmanager
def _running(*command: str) -> Iterator[int]:
    """Run a process that prints a port; yields the port."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,  # so that python -m benchmarks.… is found
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            said = b""
            for line in process.stdout:
                said = line
                if found := re.search(rb"127\.0\.0\.1:(\d+)", line):
                    break
            else:
                raise RuntimeError(f"{' '.join(command)}: did not start: {said.decode()}")
            with _emptied(process.stdout.fileno()):
                yield int(found[1])
        finally:
            process.kill()


@contextmanager
def _emptied(pipe: int) -> Iterator[None]:
    """Discard the further output of the process, so that it does not block on a full pipe."""
    sink = subprocess.Popen(["cat"], stdin=pipe, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        sink.kill()
        sink.wait()


@contextmanager
def s3_server() -> Iterator[int]:
    """Run an S3 server (moto) with an empty bucket; yields its port."""
    with _running("-m", "moto.server", "-H", "127.0.0.1", "-p", "0") as port:
        put(port, "", b"")
        yield port


def put(port: int, key: str, data: bytes) -> None:
    """Store an object; an empty key creates the bucket."""
    url = f"http://127.0.0.1:{port}/{BUCKET}/{key}"
    request = urllib.request.Request(url, data, _HEADERS, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def late_store(server: int, milliseconds: int) -> Iterator[None]:
    """Processes started in this context use the server through a proxy that delays requests."""
    with _running("-m", "benchmarks.late_storage", str(server), str(milliseconds)) as port:
        settings = {**_CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        with patch.dict(os.environ, settings):
            yield


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float, asks: bool
) -> None:
    """Forward the bytes of one side. A build's requests have no body and arrive in one piece."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            if asks:
                await asyncio.sleep(seconds)
                line, end, rest = data.partition(b"\r\n")
                data = _PASS.sub(b"/", line) + end + rest
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(target: int, seconds: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_relay(reader, back, seconds, True), _relay(there, writer, 0.0, False))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
