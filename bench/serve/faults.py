"""What is left after a kill, and what slow peers do."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.serve.figures import Choices, Measured, figure, highest, p
from bench.serve.servers import Client, Running, fake, fakes, real, until

from nano_runtime import NanoError, open_picture, read_parameters

_SEED = 20261128
_PICTURES = 40  # of a job
_BATCH = 50  # kills in one folder
_OK = 200


@figure(
    "V9",
    "kill -9 while drawing: told pictures lost; half files; waiting jobs not listed afterwards",
    "0 of 1,000; 0; 0",
    1000,
)
def killed(_choices: Choices, count: int) -> Measured:
    """Kill it with three jobs at any time, start it again, and compare with what it had told."""
    chance, losses = random.Random(_SEED), _Losses()  # noqa: S311 - of a benchmark
    for begun in range(0, count, _BATCH):
        with fakes() as (bundles, pictures):
            for _ in range(min(_BATCH, count - begun)):
                with fake(bundles, pictures) as server:
                    losses.kill(server, _PICTURES, chance.uniform(0, 0.1))
                losses.judge_journal(pictures)
            losses.judge_files(pictures)
    return losses.measured(count)


@figure("V9b", "the same with the demo", "0; 0; 0", 10)
def killed_demo(choices: Choices, count: int) -> Measured:
    """Kill it with three jobs at any time."""
    chance, losses = random.Random(_SEED), _Losses()  # noqa: S311 - of a benchmark
    with TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        for _ in range(count):
            with real(choices.bundle, "--history", str(pictures), *choices.serving) as server:
                losses.kill(server, 4, chance.uniform(0, 0.5))
            losses.judge_journal(pictures)
        losses.judge_files(pictures)
    return losses.measured(count)


class _Losses:
    """What was told by servers that were killed, and what of it is gone."""

    def __init__(self) -> None:
        self.told: set[str] = set()
        self.pictures = self.lost = self.half = self.forgotten = self.waited = 0
        self._seed = 0
        self._waiting: set[str] = set()
        self._kept: set[str] = set()

    def kill(self, server: Running, pictures: int, seconds: float) -> None:
        """Let three jobs wait, wait for the first picture and some time, ask, and kill."""
        client = server.client()
        known = {job["id"] for job in client.get("/api/v1/jobs")["jobs"]}
        self.forgotten += len(self._kept - known)
        for name in known:  # of the start before
            client.ask("DELETE", f"/api/v1/jobs/{name}")
        jobs = []
        for _ in range(3):
            body = {"prompt": "owl", "num_images_per_prompt": pictures, "seed": self._seed}
            jobs.append(client.post(body))
            self._seed += pictures
        until(lambda: _begun(client), 300)  # a machine may be busy
        time.sleep(seconds)
        now = [client.job(job) for job in jobs]
        self.told |= {picture["id"] for job in now for picture in job["pictures"]}
        self._waiting = {job["id"] for job in now if job["status"] == "queued"}
        self.waited += len(self._waiting)
        server.kill()

    def judge_journal(self, pictures: Path) -> None:
        """Every job that waited must be in the journal, and the next start must list it."""
        self._kept = {path.stem for path in (pictures / "waiting").glob("*.json")}
        self.forgotten += len(self._waiting - self._kept)

    def judge_files(self, pictures: Path) -> None:
        """Open every file; whatever was told must be there."""
        self._kept.clear()
        files = {path.stem: path for path in pictures.glob("*.png")}
        for path in files.values():
            self.half += not _whole(path)
        self.lost += len(self.told - set(files))
        self.pictures += len(self.told)
        self.told.clear()

    def measured(self, count: int) -> Measured:
        """Return what is gone."""
        text = f"{self.lost} lost of {self.pictures} told; {self.half} half files; "
        text += f"{self.forgotten} of {self.waited} waiting jobs not listed; {count} kills"
        return Measured(text, self.lost == self.half == self.forgotten == 0)


def _begun(client: Client) -> bool:
    """Return whether there is a picture."""
    jobs = client.get("/api/v1/jobs")["jobs"]
    if failed := [job["error"] for job in jobs if job["status"] == "failed"]:
        raise RuntimeError(f"it could not draw: {failed[0]}")
    return any(job["pictures"] for job in jobs)


def _whole(path: Path) -> bool:
    """Return whether a picture can be read, and says how it was drawn."""
    try:
        open_picture(path).load()
        read_parameters(path)
    except (NanoError, OSError):
        return False
    return True


@figure(
    "V14",
    "200 connections at 1 byte/s: `/health` meanwhile; closed",
    "p99 ≤ 50 ms, 0 failures; all within 45 s",
    200,
    timed=True,
)
def slow(_choices: Choices, count: int) -> Measured:
    """Half of them write a header slowly, half a body; those that are closed are counted."""
    with fakes() as (bundles, pictures), fake(bundles, pictures, 0.02) as server:
        server.client().post({"prompt": "owl", "num_inference_steps": 900})
        peers = _Slow(server.port, count)
        answers, failures, began = [], 0, time.monotonic()
        while peers.open and time.monotonic() - began < 60:  # noqa: PLR2004 - seconds, more than are allowed
            client = Client(server.port)
            try:
                answer = client.ask("GET", "/health")
                answers.append(answer.seconds)
                failures += answer.status != _OK
            except OSError:
                failures += 1
            finally:
                client.close()
            time.sleep(0.02)
        peers.stop()
    text = f"{highest(answers)}, p99 {1e3 * p(answers, 99):.1f} ms, {failures} failures of {len(answers)}"
    text += f"; {peers.closed}/{count} closed, the last after {peers.last:.0f} s"
    good = p(answers, 99) <= 0.05 and failures == 0 and peers.closed == count and peers.last <= 45  # noqa: PLR2004
    return Measured(text, good)


class _Slow:
    """Peers that send a byte a second, in a thread."""

    def __init__(self, port: int, count: int) -> None:
        head = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost:%d\r\n" % port
        body = head + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        self.closed, self.last = 0, 0.0
        self._began = time.monotonic()
        self._peers: dict[socket.socket, bytes] = {}
        for number in range(count):
            peer = socket.create_connection(("127.0.0.1", port), 20)
            peer.settimeout(0)
            self._peers[peer] = b"x" * 1000 if number % 2 else head * 1000
            with contextlib.suppress(OSError):
                peer.send(body if number % 2 else b"")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether a connection is left."""
        return bool(self._peers)

    def stop(self) -> None:
        """Close the rest."""
        self._over.set()
        self._thread.join()
        for peer in self._peers:
            peer.close()

    def _run(self) -> None:
        number = 0
        while self._peers and not self._over.wait(0.25):
            number += 1
            readable, _, _ = select.select(list(self._peers), [], [], 0)
            for peer in list(self._peers):
                if (peer in readable and self._ended(peer)) or (number % 4 == 0 and not self._sent(peer, number // 4)):
                    peer.close()
                    del self._peers[peer]
                    self.closed, self.last = self.closed + 1, time.monotonic() - self._began

    def _sent(self, peer: socket.socket, place: int) -> bool:
        try:
            return peer.send(self._peers[peer][place : place + 1]) == 1
        except OSError:
            return False

    def _ended(self, peer: socket.socket) -> bool:
        """Read an answer, such as 408; return whether the far end has closed."""
        try:
            return not peer.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
