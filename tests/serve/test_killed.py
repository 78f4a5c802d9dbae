"""Killed while it draws: every picture that was told of is on the disk, whole, and every waiting job is known."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nano_runtime import open_picture, read_parameters
from nano_serve.journal import Journal

SEED, PICTURES = 20261128, 40
ROOT = Path(__file__).parents[2]


def test_nothing_that_was_told_is_lost(bundles, tmp_path: Path, full: bool):  # noqa: FBT001 - a fixture
    chance = random.Random(SEED)  # noqa: S311 - of a test
    told: set[str] = set()
    seeds: dict[str, range] = {}
    for number in range(1000 if full else 2):
        server = _Server(bundles[0], tmp_path)
        for first in range(number * 1000, number * 1000 + 3 * PICTURES, PICTURES):
            body = {"prompt": "owl", "num_images_per_prompt": PICTURES, "seed": first}
            seeds[server.post(body)["id"]] = range(first, first + PICTURES)
        deadline = time.monotonic() + 20
        while not any(job["pictures"] for job in server.jobs()):
            assert time.monotonic() < deadline
        time.sleep(chance.uniform(0, 0.1))
        told |= {picture["id"] for job in server.jobs() for picture in job["pictures"]}
        server.kill()
    assert len(told) > 2
    drawn = set()
    for path in tmp_path.glob("*.png"):
        assert open_picture(path).size == (32, 32)
        drawn.add(read_parameters(path).options.seed)
    assert {path.stem for path in tmp_path.glob("*.png")} >= told
    left = set(Journal(tmp_path / "waiting").left())
    assert left <= set(seeds)
    for job in set(seeds) - left:
        assert set(seeds[job]) <= drawn  # it had ended


class _Server:
    """A server in a process of its own."""

    def __init__(self, bundle: Path, pictures: Path) -> None:
        command = [sys.executable, "-m", "tests.serve.fake_server", str(pictures), str(bundle)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def post(self, body: dict[str, Any]) -> Any:
        """Let a job wait."""
        return self._ask("POST", json.dumps(body))

    def jobs(self) -> list[Any]:
        """Return the jobs of this start."""
        found: list[Any] = self._ask("GET")["jobs"]
        return [job for job in found if job["status"] != "interrupted"]

    def kill(self) -> None:
        """Kill it, as the system does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, method: str, body: str | None = None) -> Any:
        connection = http.client.HTTPConnection("localhost", self._port, timeout=20)
        try:
            connection.request(method, "/api/v1/jobs", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
