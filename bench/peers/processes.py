"""The near end of a worker: starts the process of a peer, sends it lines and reads its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.peers.catalogue import Peer
from bench.peers.commands import PeerError
from bench.peers.environments import python_of

__all__ = ["Answer", "Conditions", "Setup", "Start", "Worker", "start_nano_generate", "start_worker"]

_WORKERS = Path(__file__).parent / "workers"


@dataclass(frozen=True)
class Conditions:
    """What is the same for all.

    Attributes:
        prompt: the run's number is appended, so that every picture encodes a text not seen before.
        threads: processor threads.
        steps: of PNDM, which makes one UNet call more.
        guidance: scale of classifier-free guidance, over 1: every call has two rows.
        size: height and width in pixels.
    """

    prompt: str
    threads: int
    steps: int
    guidance: float
    size: int

    @property
    def calls(self) -> int:
        """UNet calls of a picture."""
        return self.steps + 1


@dataclass(frozen=True)
class Setup:
    """Where everything is.

    Attributes:
        conditions: the same for all.
        models: the folder that each peer loads, by the peer's name.
        noise: .npy file with the noise of every run.
        work: folder for environments, logs, caches and pictures.
    """

    conditions: Conditions
    models: Mapping[str, Path]
    noise: Path
    work: Path

    def log(self, kind: str, peer: str) -> Path:
        """Return the file for what a peer's process says."""
        return self.work / "logs" / f"{kind}-{peer}.log"

    def picture(self, peer: str, run: int | str) -> Path:
        """Return where the picture of a peer and run is kept."""
        return self.work / "pictures" / f"{peer}-{run}.png"

    def cache(self, peer: str) -> Path:
        """Return the folder in which a peer's library may keep what it compiled."""
        return self.work / "caches" / peer


@dataclass(frozen=True)
class Answer:
    """A picture is drawn: milliseconds of wall clock in the worker, UNet calls, bytes."""

    draw_ms: float
    calls: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class Start:
    """A fresh process drew one picture and saved it as PNG.

    Attributes:
        peer: name.
        cached: whether the library was given a folder to keep what it compiles; of ours, which always has one, whether
            an earlier one drew the same prompt.
        run: 0 is the first one, which finds files and caches cold.
        ms: from starting the process to the PNG being written, wall clock.
        peak_rss_bytes: of the whole process.
    """

    peer: str
    cached: bool
    run: int
    ms: float
    peak_rss_bytes: int


class Worker:
    """A process that holds one loaded peer, until it is closed.

    Args:
        peer: what to load.
        setup: from where, and how to draw.
        cached: whether the library may keep what it compiles.
    """

    def __init__(self, peer: Peer, setup: Setup, *, cached: bool) -> None:
        self.peer = peer
        self._conditions = conditions = setup.conditions
        self._log = setup.log("worker", peer.name)
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [python_of(peer.environment, setup.work), _WORKERS / f"{peer.worker}.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(conditions.threads)},  # torch reads it when it is imported
            )
        self._send(
            model=str(setup.models[peer.name].absolute()),
            noise=str(setup.noise.absolute()),
            threads=conditions.threads,
            steps=0 if peer.own_sampling else conditions.steps,
            guidance=conditions.guidance,
            size=conditions.size,
            cache=str(setup.cache(peer.name).absolute()) if cached else None,
            options=peer.options,
        )

    def loaded(self) -> float:
        """Wait for the model; return the milliseconds that loading took, imports not included."""
        return float(self._receive()["load_ms"])

    def draw(self, run: int, png: Path) -> Answer:
        """Draw the picture of a run and save it.

        Raises:
            PeerError: the process died, or the UNet did not run as often as it has to.
        """
        prompt = f"{self._conditions.prompt} {run}"
        self._send(prompt=prompt, noise_index=run, png=str(png.absolute()))
        answer = Answer(**self._receive())
        if answer.calls != self._conditions.calls and not self.peer.own_sampling:
            raise PeerError(f"{self.peer.name} made {answer.calls} UNet calls, not {self._conditions.calls}", self._log)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def _send(self, **content: Any) -> None:  # noqa: ANN401 - what a line of JSON carries
        try:
            print(json.dumps(content), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._raise_died()

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            self._raise_died()
        content: dict[str, Any] = json.loads(line)
        return content

    def _raise_died(self) -> None:
        raise PeerError(f"the worker of {self.peer.name} ended with {self._process.wait()}", self._log)


def start_worker(peer: Peer, setup: Setup, run: int, *, cached: bool) -> Start:
    """Time a peer from the start of its process to its first PNG."""
    began = perf_counter()
    with closing(Worker(peer, setup, cached=cached)) as worker:
        worker.loaded()
        answer = worker.draw(0, setup.picture(peer.name, "start"))
        return Start(peer.name, cached, run, (perf_counter() - began) * 1e3, answer.peak_rss_bytes)


def start_nano_generate(peer: Peer, setup: Setup, run: int, *, cached: bool) -> Start:
    """Time our own command, as a user runs it, from its start to its end, which is a little after the PNG."""
    conditions, log = setup.conditions, setup.log("start", peer.name)
    prompt = conditions.prompt if cached else f"{conditions.prompt} {run}"
    command = [str(Path(sys.executable).with_name("nano-generate")), prompt, "--json", "--force"]
    command += ["--cache", str(setup.cache(peer.name))]
    command += ["-o", str(setup.picture(peer.name, "start")), "--seed", "0", "--threads", str(conditions.threads)]
    command += ["--bundle", str(setup.models[peer.name])]
    command += [f"--{name}={value}" for name, value in peer.options.items()]
    command += ["--guidance", str(conditions.guidance)]
    if not peer.own_sampling:
        command += ["--steps", str(conditions.steps), "--scheduler", "pndm"]
    with log.open("w", encoding="utf-8") as stderr:
        began = perf_counter()
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
        ms = (perf_counter() - began) * 1e3
    if ended.returncode != 0:
        raise PeerError(f"nano-generate ended with {ended.returncode}", log)
    report = json.loads(ended.stdout)
    if report["unet_calls"] != conditions.calls and not peer.own_sampling:
        raise PeerError(f"{peer.name} made {report['unet_calls']} UNet calls, not {conditions.calls}", log)
    return Start(peer.name, cached=cached, run=run, ms=ms, peak_rss_bytes=report["peak_rss_bytes"])
