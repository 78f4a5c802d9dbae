"""A real Firefox, spoken to in Marionette's own protocol: length, colon, JSON. It needs no further package."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PREFERENCES = {
    "marionette.port": 0,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "network.proxy.type": 0,
    "app.update.enabled": False,
}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # of the WebDriver standard


class Firefox:
    """A browser's one tab."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer, self._numbers, self._read = peer, itertools.count(1), b""
        self._message()  # its greeting
        self.command("WebDriver:NewSession", {"capabilities": {}})

    def command(self, name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Send a command; return its result."""
        content = json.dumps([0, next(self._numbers), name, parameters or {}]).encode()
        self._peer.sendall(b"%d:%s" % (len(content), content))
        _, _, error, result = self._message()
        assert error is None, error
        return result

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("WebDriver:Navigate", {"url": url})

    def script(self, text: str) -> Any:
        """Return what a function body returns."""
        return self.command("WebDriver:ExecuteScript", {"script": text, "args": []})["value"]

    def wait(self, text: str, seconds: float = 60) -> Any:
        """Wait until a function body returns something true; return that."""
        deadline = time.monotonic() + seconds
        while not (found := self.script(text)):
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return found

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        found = self.command("WebDriver:FindElement", {"using": "css selector", "value": selector})["value"]
        self.command("WebDriver:ElementSendKeys", {"id": found[_ELEMENT], "text": text})

    def _message(self) -> Any:
        while b":" not in self._read:
            self._read += self._peer.recv(65536)
        length, _, rest = self._read.partition(b":")
        while len(rest) < int(length):
            rest += self._peer.recv(65536)
        self._read = rest[int(length) :]
        return json.loads(rest[: int(length)])


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """Give the browser; the test is skipped with the reason where there is none."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("needs Firefox: apt-get install firefox-esr")
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [path, "--headless", "--marionette", "--no-remote", "--profile", str(profile), "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        place = profile / "MarionetteActivePort"
        deadline = time.monotonic() + 120
        while not (place.is_file() and place.read_text()):
            assert time.monotonic() < deadline, "Firefox did not start"
            time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", int(place.read_text())), 60) as peer:
            yield Firefox(peer)
    finally:
        process.terminate()
        process.wait(30)
