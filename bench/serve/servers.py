"""Servers in processes of their own: the fake one, forked in milliseconds, and ``nano-serve`` with a real bundle."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.runtime.fakes import make_bundle
from tests.serve.fake_server import run

__all__ = ["Answer", "Client", "Running", "command", "fake", "fakes", "real", "until"]

_START = "import sys; from nano_serve.cli import main; sys.exit(main(sys.argv[1:]))"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its body, and the seconds until it was read."""

    status: int
    content: bytes
    seconds: float

    @property
    def json(self) -> Any:  # noqa: ANN401 - as JSON
        """The body."""
        return json.loads(self.content)


class Client:
    """One connection, which is kept; the server knows its program by ``name``."""

    def __init__(self, port: int, name: str = "bench") -> None:
        self.port, self.name = port, name
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request; bytes are sent as they are, all else as JSON."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"host": f"localhost:{self.port}", "user-agent": self.name}
        sent |= {} if body is None else {"content-type": "application/json"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        began = time.perf_counter()
        try:
            self._connection.request(method, path, content, sent)
            answer = self._connection.getresponse()
        except ConnectionError:  # an idle connection was closed
            self._connection.close()
            self._connection.request(method, path, content, sent)
            answer = self._connection.getresponse()
        return Answer(answer.status, answer.read(), time.perf_counter() - began)

    def send(self, path: str, body: object) -> None:
        """Send a POST, and do not wait for its answer."""
        sent = {"host": f"localhost:{self.port}", "user-agent": self.name, "content-type": "application/json"}
        self._connection.request("POST", path, json.dumps(body).encode(), sent)

    def get(self, path: str) -> Any:  # noqa: ANN401 - as JSON
        """Return the JSON of a GET."""
        return self.ask("GET", path).json

    def post(self, body: object) -> str:
        """Let a job wait; return its id."""
        answer = self.ask("POST", "/api/v1/jobs", body)
        assert answer.status == 202, answer.content  # noqa: S101, PLR2004 - of a benchmark
        return str(answer.json["id"])

    def job(self, name: str) -> Any:  # noqa: ANN401 - as JSON
        """Return a job."""
        return self.get(f"/api/v1/jobs/{name}")

    def ended(self, name: str, seconds: float = 120, pause: float = 0.001) -> Any:  # noqa: ANN401 - as JSON
        """Wait until a job has ended; return it."""
        return until(lambda: found if (found := self.job(name))["completed"] else None, seconds, pause)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Running:
    """A server's process: what it uses, and its end."""

    def __init__(self, pid: int, port: int, wait: Callable[[float], int | None]) -> None:
        self.pid, self.port, self._wait = pid, port, wait

    @property
    def rss_mb(self) -> float:
        """Memory of the process, and of the engine's with ``--isolate``, in MB."""
        return sum(_pages(pid) for pid in (self.pid, *_children(self.pid))) * _PAGE_BYTES / 1e6

    @property
    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def threads(self) -> int:
        """Threads of the process."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def client(self, name: str = "bench") -> Client:
        """Return a connection."""
        return Client(self.port, name)

    def watched(self) -> socket.socket:
        """Open an event stream, and read its beginning: previews are made from now on."""
        peer = socket.create_connection(("127.0.0.1", self.port), 20)
        peer.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: localhost:{self.port}\r\n\r\n".encode())
        peer.recv(1024)
        return peer

    def kill(self) -> None:
        """End it as the system does."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait(20)

    def stop(self, seconds: float = 20) -> int | None:
        """End it as ``systemctl stop`` does; return its exit code, None if it did not end in time."""
        os.kill(self.pid, signal.SIGTERM)
        return self._wait(seconds)


def _children(pid: int) -> list[int]:
    """Return the processes that the threads of one have started."""
    told = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in told for child in line.split()]


def _pages(pid: int) -> int:
    """Return how many pages of memory a process has; none when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


@contextmanager
def fake(bundles: Sequence[Path], pictures: Path, call_seconds: float = 0.0, queue: int = 1000) -> Iterator[Running]:
    """Give the server with formulas, forked from this process."""
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe()
    process = context.Process(target=run, args=(bundles, pictures, far.send, call_seconds, queue), daemon=True)
    process.start()
    assert process.pid is not None  # noqa: S101 - it was started

    def wait(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    if not near.poll(60):
        raise RuntimeError("the fake server did not start")
    running = Running(process.pid, near.recv(), wait)
    try:
        yield running
    finally:
        process.kill()
        process.join()
        near.close()
        far.close()


@contextmanager
def fakes(*names: str) -> Iterator[tuple[list[Path], Path]]:
    """Give bundles of formulas by name, and a folder for pictures."""
    with TemporaryDirectory(prefix="nano-bench-") as folder:
        bundles = [Path(folder) / name for name in names or ("one",)]
        for bundle in bundles:
            make_bundle(bundle, name=bundle.name)
        yield bundles, Path(folder) / "pictures"


def command(*options: str) -> list[str]:
    """Return the command line of ``nano-serve``."""
    return [sys.executable, "-c", _START, *options]


@contextmanager
def real(bundle: Path | None, *options: str) -> Iterator[Running]:
    """Give ``nano-serve`` with a real bundle; None takes the demo."""
    chosen = [] if bundle is None else ["--bundle", str(bundle)]
    chosen += [] if "--history" in options else ["--no-history"]
    process = subprocess.Popen(command("--port", "0", *chosen, *options), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    found = re.search(r"http://localhost:(\d+)", process.stdout.readline())
    if found is None:
        raise RuntimeError("nano-serve did not start")

    def wait(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    try:
        yield Running(process.pid, int(found[1]), wait)
    finally:
        process.terminate()
        if wait(20) is None:
            process.kill()
        process.stdout.close()


def until(done: Callable[[], Any], seconds: float = 60, pause: float = 0.001) -> Any:  # noqa: ANN401 - whatever is true
    """Wait until something is true, and look again after each pause; return it."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(pause)
    return found
