"""What the server costs a machine: starting, stopping, memory, processor time, packages, and connections elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.serve.figures import Choices, Measured, figure, highest, p
from bench.serve.servers import Client, Running, command, fake, fakes, real, until

_PROMPT = "an otter on a teal background"
_EXTRA = ("h11", "python-multipart", "starlette", "uvicorn")
_OWN = {"msgspec", "typing_extensions"}  # which the runtime needs itself
_RUNTIME = """
import sys, time
from nano_runtime import Pipeline
pipe = Pipeline.from_pretrained(*sys.argv[1:])
print("open", flush=True)
time.sleep(60)
"""


@figure("V1", "cold start of the demo: command to `/health` / `/ready`", "≤ 1.0 s / ≤ 2.5 s", 20, timed=True)
def cold_start(choices: Choices, count: int) -> Measured:
    """Start it so often, and ask both until they answer 200."""
    health, ready = [], []
    for _ in range(count):
        with TemporaryDirectory() as folder, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            began = time.perf_counter()
            chosen = [] if choices.bundle is None else ["--bundle", str(choices.bundle)]
            started = command("--port", str(port), "--history", folder, *chosen)
            process = subprocess.Popen(started, stdout=subprocess.DEVNULL)
            health.append(_answered(port, "/health", began))
            ready.append(_answered(port, "/ready", began))
            process.terminate()
            process.wait(20)
    text = f"`/health`: {highest(health)}; `/ready`: {highest(ready)}"
    return Measured(text, p(health, 95) <= 1.0 and p(ready, 95) <= 2.5)  # noqa: PLR2004 - proposed


def _answered(port: int, path: str, began: float) -> float:
    """Return the seconds since ``began`` until a path answers 200."""

    def asked() -> bool:
        client = Client(port)
        try:
            return client.ask("GET", path).status == 200  # noqa: PLR2004 - of HTTP
        except OSError:
            return False
        finally:
            client.close()

    until(asked, 30)
    return time.perf_counter() - began


@figure("V2", "install beyond the runtime", "≤ 3 MB, ≤ 8 packages", 1)
def install(_choices: Choices, _count: int) -> Measured:
    """Install what the extra names into a folder, and weigh it."""
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", folder, *_EXTRA]
        subprocess.run(pip, check=True)
        bytes_ = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        names = {path.name.partition("-")[0] for path in Path(folder).glob("*.dist-info")} - _OWN
    text = f"{bytes_ / 1e6:.1f} MB, {len(names)} packages: {', '.join(sorted(names))}"
    return Measured(text, bytes_ <= 3e6 and len(names) <= 8)  # noqa: PLR2004 - proposed


@figure("V3", "idle: memory beyond the runtime's; processor over 60 s", "≤ 40 MB; ≤ 0.2 % of a core", 60, timed=True)
def idle(choices: Choices, count: int) -> Measured:
    """Compare with a Python that has opened the same bundle, and wait."""
    arguments = [] if choices.bundle is None else [str(choices.bundle)]
    alone = subprocess.Popen([sys.executable, "-c", _RUNTIME, *arguments], stdout=subprocess.PIPE, text=True)
    assert alone.stdout is not None  # noqa: S101 - it is a pipe
    alone.stdout.readline()
    runtime = Running(alone.pid, 0, lambda _: None).rss_mb
    alone.kill()
    alone.wait()
    alone.stdout.close()
    with real(choices.bundle, *choices.options) as server:
        time.sleep(2)
        memory, before, began = server.rss_mb - runtime, server.cpu_seconds, time.monotonic()
        time.sleep(count)
        share = (server.cpu_seconds - before) / (time.monotonic() - began)
    text = f"{memory:.0f} MB beyond {runtime:.0f}; {100 * share:.2f} % over {count} s"
    return Measured(text, memory <= 40 and share <= 0.002)  # noqa: PLR2004 - proposed


@figure("V11", "SIGTERM with 32 open event streams", "exit 0 within 5 s, 100/100", 100)
def stopping(_choices: Choices, count: int) -> Measured:
    """Stop a server while it draws and streams."""
    seconds, codes = [], []
    for _ in range(count):
        with fakes() as (bundles, pictures), fake(bundles, pictures, 0.02) as server:
            server.client().post({"prompt": "owl", "num_inference_steps": 900})
            streams = [server.watched() for _ in range(32)]
            began = time.perf_counter()
            codes.append(server.stop(20))
            seconds.append(time.perf_counter() - began)
            for one in streams:
                one.close()
    good = sum(code == 0 and took <= 5 for code, took in zip(codes, seconds, strict=True))  # noqa: PLR2004 - proposed
    return Measured(f"{good}/{count}; {highest(seconds)}", good == count)


@figure(
    "V15", "memory over 10,000 fake pictures and 1,000 event streams", "≤ 1 MB / 1,000; files, threads flat", 10_000
)
def memory(_choices: Choices, count: int) -> Measured:
    """Compare after a fifth of them with after all."""
    with fakes() as (bundles, pictures), fake(bundles, pictures) as server:
        return _slope(server, count, lambda client: _drawn(client, {"prompt": "owl", "steps": 1, "n": 4}, 4))


@figure("V15b", "the same over 500 pictures of the demo", "≤ 1 MB / 1,000; files, threads flat", 500)
def memory_of_demo(choices: Choices, count: int) -> Measured:
    """Compare after a fifth of them with after all."""
    with real(choices.bundle, *choices.serving) as server:
        return _slope(server, count, lambda client: _drawn(client, {"prompt": _PROMPT, "steps": 2, "n": 4}, 4))


def _drawn(client: Client, body: dict[str, object], pictures: int) -> int:
    answer = client.ask("POST", "/v1/images/generations", body)
    if answer.status != 200:  # noqa: PLR2004 - of HTTP
        raise RuntimeError(answer.content[:200])
    return pictures


def _slope(server: Running, count: int, draw: Callable[[Client], int]) -> Measured:
    """Draw, open and leave streams, and see what stays."""
    client, drawn, first = server.client(), 0, 0
    begun: tuple[float, int, int] | None = None
    while drawn < count or drawn == first:
        drawn += draw(client)
        if begun is None and drawn >= count // 5:
            begun, first = (server.rss_mb, server.descriptors, server.threads), drawn
    assert begun is not None  # noqa: S101 - a fifth comes before the whole
    slope = 1000 * (server.rss_mb - begun[0]) / (drawn - first)
    streams = max(1, count // 10)
    _streamed(server, max(1, streams // 5))  # the first leave the room that a whole state takes
    before = server.rss_mb
    _streamed(server, streams)
    grown = 1000 * (server.rss_mb - before) / streams
    text = (
        f"{slope:+.2f} MB / 1,000 pictures, {grown:+.2f} MB / 1,000 streams; files {begun[1]} to {server.descriptors}"
    )
    flat = server.descriptors <= begun[1] + 2 and server.threads <= begun[2] + 2
    text += f", threads {begun[2]} to {server.threads}; {drawn} pictures, {streams} streams"
    return Measured(text, slope <= 1 and grown <= 1 and flat)


def _streamed(server: Running, count: int) -> None:
    """Open and leave event streams."""
    for _ in range(count):
        server.watched().close()
    time.sleep(1)


@figure("V21", "idle unload returns memory", "within 20 MB of before the first picture", 1)
def unload(choices: Choices, _count: int) -> Measured:
    """Draw with ``--idle 3`` instead of 300, and wait; the engine's library stays in the process."""
    return _unloaded(choices)


@figure("V21b", "the same with `--isolate`: the engine's process ends", "within 20 MB of before the first picture", 1)
def unload_isolated(choices: Choices, _count: int) -> Measured:
    """Draw with ``--idle 3`` instead of 300, and wait."""
    return _unloaded(choices, "--isolate")


def _unloaded(choices: Choices, *options: str) -> Measured:
    with real(choices.bundle, "--idle", "3", *choices.serving, *options) as server:
        client = server.client()
        before = server.rss_mb
        client.ended(client.post({"prompt": _PROMPT}))
        loaded = server.rss_mb
        until(lambda: client.get("/api/v1/bundles")["bundles"][0]["state"] == "idle", 20)
        time.sleep(1)
        after = server.rss_mb
    text = f"{before:.0f} MB, with the graphs {loaded:.0f} MB, unloaded {after:.0f} MB"
    return Measured(text, after - before <= 20)  # noqa: PLR2004 - proposed


@figure("V23", "connections to other machines while it starts, draws and stops", "0", 1)
def connections(choices: Choices, _count: int) -> Measured:
    """Trace every ``connect`` of the server's process and its threads."""
    if shutil.which("strace") is None:
        raise RuntimeError("needs strace: apt-get install strace")
    with TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        chosen = [] if choices.bundle is None else ["--bundle", str(choices.bundle)]
        started = command("--port", "0", "--history", f"{folder}/pictures", *chosen)
        traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(log), *started]
        process = subprocess.Popen(traced, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        found = re.search(r"http://localhost:(\d+)", process.stdout.readline())
        assert found is not None  # noqa: S101 - it says where it is
        client = Client(int(found[1]))
        client.ended(client.post({"prompt": _PROMPT}))
        client.ask("GET", "/")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
        lines = [line for line in log.read_text().splitlines() if "sa_family=AF_INET" in line]
    elsewhere = [line for line in lines if '"127.0.0.1"' not in line and '"::1"' not in line]
    return Measured(f"{len(elsewhere)} of {len(lines)} calls of connect and sendto", not elsewhere)
