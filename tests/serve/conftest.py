"""A server that draws with formulas: the real application behind its guard, called in process."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import FORMULAS, FakeGraphs, make_bundle, pipeline_of
from tests.serve.browser import Server as BrowserServer
from tests.serve.browser import chromium, opened

from nano_runtime import Bundle, Pipeline, open_picture
from nano_runtime.errors import OutOfMemoryError
from nano_serve.fit import Fit
from nano_serve.http.app import application
from nano_serve.http.guard import Access
from nano_serve.http.patience import PatientProtocol
from nano_serve.http.server import Server, listen
from nano_serve.http.watch import Watch
from nano_serve.studio import Settings, Studio

PORT = 7860
BASE = f"http://localhost:{PORT}"


class Gate:
    """Holds the UNet of a server: every call waits until it is let through.

    Attributes:
        calls: that were let through.
        waiting: whether the next one is there.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.waiting = False
        self.open = True
        self.left = 0
        self.full = False

    def wait(self) -> None:
        """Wait for leave; called by the UNet. There may be no memory for it."""
        if self.full:
            raise OutOfMemoryError("running the unet")
        deadline = time.monotonic() + 20
        while not self.open and self.left == 0:
            assert time.monotonic() < deadline, "nobody let the UNet through"
            self.waiting = True
            time.sleep(0.001)
        self.waiting = False
        self.left = max(0, self.left - 1)
        self.calls += 1


@dataclass
class Served:
    """A server, its parts, and a client."""

    studio: Studio
    app: Watch
    gate: Gate
    graphs: dict[Path, FakeGraphs]

    def ask(self, method: str, path: str, *, base: str = BASE, **options: Any) -> httpx2.Response:
        """Send one request."""

        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> Any:
        """Return the JSON of a GET that succeeds."""
        answer = self.ask("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """Return the JSON of a POST that succeeds."""
        answer = self.ask("POST", path, json=body, **options)
        assert answer.is_success, answer.text
        return answer.json()

    @property
    def pipe(self) -> Pipeline:
        """The pipeline of the first bundle."""
        return self.studio.shelf.at(self.studio.shelf.default).pipeline

    def ended(self, job: str) -> Any:
        """Wait until a job has ended; return it."""
        return until(lambda: found if (found := self.get(f"/api/v1/jobs/{job}"))["completed"] else None)


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until something is true; return it."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
    return found


def picture_of(text: str) -> Image.Image:
    """Return the picture that base64 holds."""
    return open_picture(base64.b64decode(text))


def base64_of(image: Image.Image) -> str:
    """Return a picture as a PNG in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of formulas."""
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "one", name="one")
    make_bundle(folder / "two", name="two")
    return folder / "one", folder / "two"


@contextmanager
def servers(bundles: tuple[Path, Path], pictures: Path) -> Iterator[Callable[..., Served]]:
    """Give a function that starts servers; they are stopped at the end."""
    begun: list[Served] = []

    def begin(access: Access | None = None, fit: Fit = "asked", *, start: bool = True, **changes: Any) -> Served:
        gate, graphs = Gate(), {}

        def opened(folder: Path) -> Pipeline:
            graphs[folder] = FakeGraphs(Bundle.open(folder), instead=_gated(gate))
            return pipeline_of(graphs[folder])

        settings = replace(Settings(bundles, pictures), **changes)
        studio = Studio(settings, opened)
        served = Served(studio, application(studio, Access() if access is None else access, fit), gate, graphs)
        begun.append(served)
        if start:
            studio.start()
        return served

    yield begin
    for served in begun:
        served.gate.open = True
        if served.studio.worker.ident is not None:
            assert served.studio.stop(20)


@pytest.fixture
def serving(bundles: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers; they are stopped after the test."""
    with servers(bundles, tmp_path / "pictures") as begin:
        yield begin


@pytest.fixture
def served(serving: Callable[..., Served]) -> Served:
    """A server with defaults."""
    return serving()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for a module."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[BrowserServer]:  # noqa: ARG001 - no browser, no server
    """A server of the demo in a process of its own, for the page."""
    with BrowserServer(tmp_path_factory.mktemp("pictures"), "--threads", "2") as begun:
        yield begun


@pytest.fixture
def page(browser: Any, server: BrowserServer) -> Iterator[Any]:
    """The page of that server, opened."""
    with opened(browser, server.url) as found:
        yield found


class Running:
    """A server on a port of its own, in a thread."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.sockets = listen("localhost", 0)
        self.port = self.sockets[0].getsockname()[1]
        ready = threading.Event()
        self.server = Server(Access(), lambda: (served.app, served.studio), ready.set)
        self.thread = threading.Thread(target=self.server.run_on, args=(self.sockets,))
        self.thread.start()
        assert ready.wait(10)

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        """Open a connection."""
        return socket.create_connection((host, self.port), 10)

    def request(self, line: str, body: str = "", headers: str = "") -> bytes:
        """Return a request, ready to be sent."""
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{line} HTTP/1.1\r\nHost: localhost:{self.port}\r\n{headers}{kind}\r\n{body}".encode()

    def status(self, path: str) -> int:
        """Return the status of a GET."""
        return status_of(self.port, path)

    def stop(self) -> float:
        """Stop it as a signal would; return how many seconds that took."""
        began = time.monotonic()
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.monotonic() - began


@pytest.fixture
def running(serving, monkeypatch) -> Iterator[Running]:
    """A server, quick to lose patience."""
    monkeypatch.setattr(PatientProtocol, "header_seconds", 0.3)
    monkeypatch.setattr(PatientProtocol, "write_seconds", 0.3)
    found = Running(serving(start=False))
    yield found
    found.served.gate.open = True
    if found.thread.is_alive():
        found.stop()


def status_of(port: int, path: str, host: str = "localhost") -> int:
    """Return the status of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status
    finally:
        connection.close()


def _gated(gate: Gate) -> dict[str, Callable[..., dict[str, np.ndarray]]]:
    """The UNet, which waits at the gate."""

    def unet(**feeds: Any) -> dict[str, np.ndarray]:
        gate.wait()
        return FORMULAS["hoisted"]["unet"](**feeds)

    return {"unet": unet}
