"""An HTTP proxy on loopback that stands between the program and its store and can do it harm."""

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
_TIMEOUT = 30.0


@dataclass
class Answer:
    """What goes back to the program; ``cut``: bytes of the body after which the line goes dead."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut: int | None = None


Harm = Callable[[Answer | None], Answer]


def error(status: int, code: str) -> Harm:
    """Answer with an error of S3's, in the request's stead."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>planted</Message></Error>"
    return lambda _: Answer(status, [("Content-Type", "application/xml")], body.encode())


def cut(answer: Answer | None) -> Answer:
    """Send the headers and half of the body, then cut the connection."""
    assert answer is not None
    answer.cut = len(answer.body) // 2
    return answer


def shortened(answer: Answer | None) -> Answer:
    """Send half of the body, and headers that agree with it."""
    assert answer is not None
    answer.body = answer.body[: len(answer.body) // 2]
    return answer


class Held:
    """Keep a request waiting, unanswered, until it is let ``go``; then hang up."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.go = threading.Event()

    def __call__(self, _: Answer | None) -> Answer:
        self.came.set()
        self.go.wait(_TIMEOUT)
        return hung_up(None)


def hung_up(_: Answer | None) -> Answer:
    """Cut the connection without a word."""
    return Answer(0, [], b"", cut=0)


@dataclass
class Fault:
    """Harm to the requests whose line matches, ``times`` of them, from the ``after``-th on.

    ``before``: the store does not hear of the request.
    """

    line: str
    harm: Harm
    times: float = float("inf")
    after: int = 0
    before: bool = True
    seen: int = 0
    done: int = 0

    def takes(self, line: str) -> bool:
        """Whether this request is harmed."""
        if not re.search(self.line, line):
            return False
        self.seen += 1
        if self.seen <= self.after or self.done >= self.times:
            return False
        self.done += 1
        return True


@dataclass
class FaultProxy:
    """A running proxy. ``lines``: requests as ``METHOD path?query``, in their order.

    It lets in who signs with the access key ``key``, as the server behind it does not care.
    """

    target: tuple[str, int]
    key: str = "right"
    faults: list[Fault] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.serve)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def plant(self, line: str, harm: Harm, **options: Any) -> Fault:
        """Add a fault."""
        fault = Fault(line, harm, **options)
        self.faults.append(fault)
        return fault

    def count(self, line: str) -> int:
        """Requests so far whose line matches."""
        with self._lock:
            return sum(bool(re.search(line, one)) for one in self.lines)

    def clear(self) -> None:
        """No faults, and nothing heard."""
        with self._lock:
            self.faults.clear()
            self.lines.clear()

    def choose(self, line: str) -> Fault | None:
        """Note a request, and the fault that it meets."""
        with self._lock:
            self.lines.append(line)
            return next((fault for fault in self.faults if fault.takes(line)), None)

    def close(self) -> None:
        """Stop; every thread ends."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = (
        128  # a fuller queue drops connections, which are tried again seconds later
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy
    timeout = _TIMEOUT
    disable_nagle_algorithm = True  # headers and body go out one by one

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self._line().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self._line()
        while self._line().strip():
            pass
        return b"".join(parts)

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionResetError
        return line

    def _ask(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.owner.target, timeout=_TIMEOUT)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            headers = [(k, v) for k, v in response.getheaders() if k.lower() != "connection"]
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def _send(self, answer: Answer) -> None:
        head = self.command == "HEAD"
        if answer.status:
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                if head or name.lower() not in _HOP:
                    self.send_header(name, value)
            if not head:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
        if not head:
            self.wfile.write(answer.body[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):  # the other end may have gone first
                self.connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """One request; the program may be gone at any byte of it."""
        try:
            self._serve()
        except ConnectionError:
            self.close_connection = True

    def _serve(self) -> None:
        line = f"{self.command} {self.path}"
        body = self._body()
        fault = self.owner.choose(line)
        if f"Credential={self.owner.key}/" not in self.headers.get("Authorization", ""):
            fault = Fault(line, error(403, "InvalidAccessKeyId"))
        answer = None if fault is not None and fault.before else self._ask(body)
        if fault is not None:
            answer = fault.harm(answer)
        assert answer is not None
        self._send(answer)
