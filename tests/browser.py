"""Headless Chromium for tests of pages, controlled by its DevTools protocol.

The browser reads commands from a pipe, so no port is used and no driver is installed; Debian's
package ``chromium`` is enough. Messages are JSON, each ended by a zero byte.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"),
    *("--force-color-profile=srgb", "--font-render-hinting=none", "--remote-debugging-pipe"),
)
_SECONDS = 30.0
_BUTTON = {"button": "left", "clickCount": 1}
_KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), " ": ("Space", 32, " ")}

Scheme = Literal["light", "dark"]


class Browser:
    """A browser process with its own profile; one page is open at a time."""

    def __init__(self, program: str, folder: Path) -> None:
        hear, self._write = os.pipe()
        self._read, say = os.pipe()
        # The browser reads descriptor 3 and writes 4.
        shell = f'exec "$@" 3<&{hear} 4>&{say}'
        command = [program, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(hear, say),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
        )
        os.close(hear)
        os.close(say)
        self._pending = b""
        self._numbers = itertools.count(1)
        self._target = ""
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End the browser and wait for it."""
        os.close(self._write)  # the browser ends when its pipe is closed
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def _message(self, until: float) -> dict[str, Any]:
        """The next message.

        Raises:
            TimeoutError: no message came in time.
            EOFError: the browser has ended.
        """
        while b"\0" not in self._pending:
            if not select.select([self._read], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result.

        Raises:
            RuntimeError: the browser refuses the command.
        """
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        until = time.monotonic() + _SECONDS
        while True:
            answer = self._message(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, scheme: Scheme = "light"
    ) -> "Page":
        """Open a page, without network, and wait until it is loaded.

        ``width``, ``height``: of the window, CSS pixels; ``scheme``: the preferred colour scheme.
        """
        previous, self._session = self._target, None
        self._target = self.send("Target.createTarget", url="about:blank")["targetId"]
        if previous:
            self.send("Target.closeTarget", targetId=previous)
        attached = self.send("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session, self._events = attached["sessionId"], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", offline=True, **offline)
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        page = Page(self)
        page.prefer(scheme)
        self.send("Page.navigate", url=url)
        self.wait("Page.loadEventFired")
        return page

    def wait(self, event: str) -> None:
        """Wait until the browser has sent an event."""
        until = time.monotonic() + _SECONDS
        while all(one.get("method") != event for one in self._events):
            self._events.append(self._message(until))

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of one kind since the page was opened."""
        self.run("0")
        return [one["params"] for one in self._events if one.get("method") == method]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page.

        Raises:
            RuntimeError: the expression throws.
        """
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")


class Page:
    """The page that is open in the browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def prefer(self, scheme: Scheme, *, media: str = "") -> None:
        """Set the preferred colour scheme, and the CSS ``media`` type, such as ``"print"``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._browser.send("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._browser.run(script)

    def texts(self, selector: str) -> list[str]:
        """The visible text of every element that a CSS selector finds."""
        found: list[str] = self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.trim())"
        )
        return found

    def style(self, selector: str, name: str) -> str:
        """A computed style of the first element that a CSS selector finds."""
        query = f"document.querySelector({json.dumps(selector)})"
        return str(self.run(f"getComputedStyle({query}).getPropertyValue({json.dumps(name)})"))

    def hover(self, selector: str, nth: int = 0) -> tuple[float, float]:
        """Scroll an element into view and move the mouse to its middle; returns x and y, CSS
        pixels.
        """
        query = f"document.querySelectorAll({json.dumps(selector)})[{nth}]"
        x, y = self.run(
            f"(() => {{ const e = {query}; e.scrollIntoView({{block: 'center', behavior: "
            "'instant'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self._browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector: str, nth: int = 0) -> None:
        """Click in the middle of an element with the mouse."""
        x, y = self.hover(selector, nth)
        for kind in ("mousePressed", "mouseReleased"):
            self._browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **_BUTTON)

    def press(self, key: str) -> None:
        """Press a key: ``"Tab"``, ``"Enter"`` or ``" "``."""
        code, number, text = _KEYS[key]
        known = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        typed = {"text": text} if text else {}
        self._browser.send("Input.dispatchKeyEvent", type="keyDown", **known, **typed)
        self._browser.send("Input.dispatchKeyEvent", type="keyUp", **known)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot of the window, or of the ``whole`` page, as PNG."""
        how: dict[str, Any] = {}
        if whole:
            size = self._browser.send("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            how = {"captureBeyondViewport": True, "clip": clip}
        shot = self._browser.send("Page.captureScreenshot", **how)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page printed as PDF."""
        return base64.b64decode(self._browser.send("Page.printToPDF")["data"])

    @property
    def requested(self) -> list[str]:
        """Every URL that the page requested, except its own and data: URLs."""
        asked = [one["request"]["url"] for one in self._browser.events("Network.requestWillBeSent")]
        return [url for url in asked[1:] if not url.startswith("data:")]

    @property
    def complaints(self) -> list[str]:
        """Errors on the page's console: scripts that fail, and requests that a policy forbids."""
        thrown = self._browser.events("Runtime.exceptionThrown")
        logged = [one["entry"] for one in self._browser.events("Log.entryAdded")]
        return [str(one["exceptionDetails"]) for one in thrown] + [
            str(one["text"]) for one in logged if one["level"] == "error"
        ]


def find_program() -> str | None:
    """The path of a Chromium, if one is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def started(folder: Path) -> Iterator[Browser]:
    """A browser for a fixture; skips the test if Chromium is not installed."""
    program = find_program()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    browser = Browser(program, folder)
    try:
        yield browser
    finally:
        browser.close()
