"""What drawing through the server costs, whose turn it is, and whether the pictures are the right ones."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.serve.figures import Choices, Measured, figure, highest, p
from bench.serve.servers import Client, Running, fake, fakes, real, until

from nano_runtime import Bundle, Pipeline, open_picture

_PROMPT = "an otter on a teal background"
_CALL = 0.02  # seconds of a fake UNet call
_SLACK = 0.05
_PAUSE = 0.02  # between two looks at a job: each takes time of the cores that draw it
_OK, _FULL = 200, 429


@figure(
    "V4",
    "server's share of a picture, against the same call in Python, in turns",
    "≤ 20 ms; 512 px ≤ 2 %",
    30,
    timed=True,
)
def share(choices: Choices, count: int) -> Measured:
    """Draw by turns through the API and in this process; the server's has also written the file.

    Where a call takes seconds, two calls differ by more than the server adds: what it does around the call is told too.
    """
    served, direct, around = [], [], []
    pipe = Pipeline.from_pretrained(_folder(choices), threads=choices.threads)
    with real(choices.bundle, *choices.serving) as server, TemporaryDirectory() as folder:
        client = server.client()
        for seed in range(count + 2):  # the first two load
            answer = client.ask("POST", "/v1/images/generations", {"prompt": _PROMPT, "seed": seed})
            assert answer.status == _OK, answer.content  # noqa: S101 - of a benchmark
            job = max(client.get("/api/v1/jobs")["jobs"], key=lambda one: one["created"])
            served.append(answer.seconds)
            began = time.perf_counter()
            result = pipe(_PROMPT, seed=seed)
            ended = time.perf_counter()
            direct.append(ended - began)
            result.save(Path(folder) / "picture.png")
            writing = time.perf_counter() - ended
            around.append(job["started"] + answer.seconds - job["completed"] + writing)
    pipe.close()
    served, direct, around = served[2:], direct[2:], around[2:]
    extra = median(one - other for one, other in zip(served, direct, strict=True))
    whole, own = median(direct), median(around)
    text = f"{1e3 * extra:.1f} ms (median difference), {100 * extra / whole:.1f} % of {1e3 * whole:.0f} ms; "
    text += f"{1e3 * own:.1f} ms before and after the call, with the file"
    return Measured(text, extra <= max(0.02, 0.02 * whole))


@figure(
    "V5b", "from the request to the first preview / the picture, cold and warm", "as long as it takes", 1, timed=True
)
def first(choices: Choices, count: int) -> Measured:
    """Draw with a server that has just started, and again; the bundle's files may be in the system's memory."""
    words = []
    with real(choices.bundle, *choices.serving) as server:
        client, watching = server.client(), server.watched()
        for number in range(count + 1):
            began = time.perf_counter()
            job = client.post({"prompt": _PROMPT, "seed": number})
            until(lambda job=job: _shown(client, job), 300, _PAUSE)  # type: ignore[misc]
            seen = time.perf_counter() - began
            ended = client.ended(job, 300, _PAUSE)
            words.append(f"{seen:.2f} / {time.perf_counter() - began:.2f} s")
        watching.close()
    share = 1e3 * (ended["completed"] - ended["started"]) / ended["progress"]["calls"]
    text = f"cold {words[0]}; warm {'; '.join(words[1:])}; {ended['progress']['calls']} calls of {share:.0f} ms"
    return Measured(text, ended["status"] == "completed")


def _shown(client: Client, name: str) -> bool:
    """Return whether somebody who watches has seen something of a job."""
    job = client.job(name)
    return bool(job["previews"] or job["completed"])


def _folder(choices: Choices) -> Path:
    return Bundle.open().path if choices.bundle is None else choices.bundle


@figure(
    "V6", "`/health` p99 while drawing: wrk with 32 connections", "≤ 50 ms, 0 failures of 10,000", 10_000, timed=True
)
def health(choices: Choices, count: int) -> Measured:
    """Draw without pause, and ask how the server is as fast as it answers."""
    with real(choices.bundle, *choices.serving) as server, _Busy(server):
        return _wrk(server.port, count)


def _wrk(port: int, count: int) -> Measured:
    """Ask until there are so many answers."""
    if shutil.which("wrk") is None:
        raise RuntimeError("needs wrk: apt-get install wrk")
    worst, answers, failures = 0.0, 0, 0
    while answers < count:
        asked = ["wrk", "-t1", "-c32", "-d5s", "--latency", f"http://localhost:{port}/health"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        worst = max(worst, _milliseconds(said.partition("99%")[2].split()[0]))
        answers += int(said.partition(" requests in")[0].split()[-1])
        failures += sum(map(int, filter(str.isdigit, said.partition("Socket errors:")[2].partition("\n")[0].split())))
        failures += int((said.partition("Non-2xx or 3xx responses:")[2].split() or ["0"])[0])
    text = f"p99 {worst:.1f} ms, {failures} failures of {answers}"
    return Measured(text, worst <= 50 and failures == 0)  # noqa: PLR2004 - proposed


def _milliseconds(text: str) -> float:
    """Read a time as wrk writes it."""
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


class _Busy:
    """Keeps a server drawing."""

    def __init__(self, server: Running) -> None:
        self._client = server.client("busy")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw)

    def __enter__(self) -> None:
        self._job = self._client.post({"prompt": _PROMPT, "num_images_per_prompt": 100})
        until(lambda: self._client.job(self._job)["progress"]["call"], 60)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.ask("DELETE", f"/api/v1/jobs/{self._job}")

    def _draw(self) -> None:
        while not self._over.wait(0.5):
            if self._client.job(self._job)["completed"]:
                self._job = self._client.post({"prompt": _PROMPT, "num_images_per_prompt": 100})


@figure("V7", "cancel: request to worker free (20 ms calls)", "≤ 1 call + 50 ms, 500/500", 500, timed=True)
def cancel(_choices: Choices, count: int) -> Measured:
    """Cancel a job of many pictures at any time."""
    with fakes() as (bundles, pictures), fake(bundles, pictures, _CALL) as server:
        return _cancelled(server, count, _CALL)


@figure("V7b", "the same with the demo", "≤ 1 call + 50 ms, 500/500", 50, timed=True)
def cancel_demo(choices: Choices, count: int) -> Measured:
    """Cancel a job of many pictures at any time."""
    with real(choices.bundle, *choices.serving) as server:
        client = server.client()
        job = client.ended(client.post({"prompt": _PROMPT, "num_images_per_prompt": 4}))
        call = 4 * (job["completed"] - job["started"]) / job["progress"]["calls"]
        return _cancelled(server, count, call)


def _cancelled(server: Running, count: int, call: float) -> Measured:
    client, times, good = server.client(), [], 0
    for number in range(count):
        job = client.post({"prompt": "owl", "num_inference_steps": 900, "num_images_per_prompt": 4})
        _begun(client, job)
        time.sleep(call * (number % 10) / 10)
        began = time.perf_counter()
        client.ask("DELETE", f"/api/v1/jobs/{job}")
        ended = client.ended(job)
        times.append(time.perf_counter() - began)
        good += ended["status"] == "cancelled"
    late = sum(one > call + _SLACK for one in times)
    text = f"{good}/{count} cancelled, {late} later than {1e3 * (call + _SLACK):.0f} ms; {highest(times)}"
    return Measured(text, good == count and not late)


@figure("V8", "client gone: to worker free (20 ms calls)", "≤ 1 call + 50 ms, 500/500", 500, timed=True)
def gone(_choices: Choices, count: int) -> Measured:
    """Close the connection of a drawing at any time, on every API."""
    bodies: list[tuple[str, dict[str, object]]] = [
        ("/sdapi/v1/txt2img", {"prompt": "owl", "steps": 900}),
        ("/v1/images/generations", {"prompt": "owl", "steps": 900}),
        ("/v1/images/generations", {"prompt": "owl", "steps": 900, "stream": True, "partial_images": 3}),
    ]
    times, good = [], 0
    with fakes() as (bundles, pictures), fake(bundles, pictures, _CALL) as server:
        watching = server.client()
        for number in range(count):
            path, body = bodies[number % len(bodies)]
            peer = _asked(server.port, path, body)
            job = until(lambda: next((one["id"] for one in _jobs(watching) if not one["completed"]), None))
            time.sleep(_CALL * (number % 10) / 10)
            began = time.perf_counter()
            peer.close()
            ended = watching.ended(job)
            times.append(time.perf_counter() - began)
            good += ended["status"] == "cancelled"
    late = sum(one > _CALL + _SLACK for one in times)
    text = f"{good}/{count} cancelled, {late} later than {1e3 * (_CALL + _SLACK):.0f} ms; {highest(times)}"
    return Measured(text, good == count and not late)


def _begun(client: Client, job: str) -> None:
    """Wait until a job has made a UNet call."""
    until(lambda: client.job(job)["progress"]["call"])


def _jobs(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/jobs")["jobs"]
    return found


def _asked(port: int, path: str, body: object) -> Client:
    """Send a request without reading its answer."""
    client = Client(port)
    client.send(path, body)
    return client


@figure("V16", "a full queue answers; two clients take turns", "429 in ≤ 20 ms; 1:1 ± 1", 40, timed=True)
def queue(_choices: Choices, count: int) -> Measured:
    """Fill the queue from two programs, one of them first; no two jobs agree, so none share calls."""
    with fakes() as (bundles, pictures), fake(bundles, pictures, 0.05, queue=2 * count) as server:
        one, other = server.client("one"), server.client("other")
        body = {"prompt": "owl", "num_inference_steps": 4}
        jobs = {one.post({**body, "guidance_scale": 2 + number / 100}): "one" for number in range(count)}
        jobs |= {other.post({**body, "guidance_scale": 3 + number / 100}): "other" for number in range(count)}
        refused: list[float] = []
        while len(refused) < count and (answer := one.ask("POST", "/api/v1/jobs", body)).status:
            if answer.status == _FULL:
                refused.append(answer.seconds)
            elif len(jobs) > 4 * count:
                break
            else:
                jobs[answer.json["id"]] = "extra"
        ended = [one.ended(job) for job in jobs]
    order = sorted(ended, key=lambda job: job["completed"])
    names = [jobs[job["id"]] for job in order if jobs[job["id"]] != "extra"]
    first = names.index("other")  # until it had asked, there was one client
    turns = [
        names[first:][: number + 1].count("one") - names[first:][: number + 1].count("other") for number in range(count)
    ]
    most = max(map(abs, turns))
    text = f"429 {len(refused)} times: {highest(refused)}; difference of the two at most {most}"
    return Measured(text, p(refused, 95) <= 0.02 and most <= 1)  # noqa: PLR2004 - proposed


@figure("V17", "one seed: command line, Python, own API, OpenAI, A1111 (the page: tests/serve)", "equal pixels", 1)
def same(choices: Choices, count: int) -> Measured:
    """Draw seeds in all ways."""
    equal = 0
    pipe = Pipeline.from_pretrained(_folder(choices), threads=choices.threads)
    with real(choices.bundle, *choices.serving) as server, TemporaryDirectory() as folder:
        client = server.client()
        for seed in range(count):
            asked = {"prompt": _PROMPT, "seed": seed}
            job = client.ended(client.post(asked))
            opened = client.ask("POST", "/v1/images/generations", asked).json["data"][0]["b64_json"]
            web = client.ask("POST", "/sdapi/v1/txt2img", asked).json["images"][0]
            target = Path(folder) / f"{seed}.png"
            program = "import sys; from nano_runtime.cli.generate import main; sys.exit(main(sys.argv[1:]))"
            line = [sys.executable, "-c", program, _PROMPT, "--seed", str(seed), "-o", str(target)]
            line += ["--threads", str(choices.threads)]
            line += [] if choices.bundle is None else ["--bundle", str(choices.bundle)]
            subprocess.run(line, check=True, capture_output=True)
            files: list[Path | bytes] = [client.ask("GET", job["pictures"][0]["url"]).content, target]
            files += [base64.b64decode(opened), base64.b64decode(web)]
            found = {open_picture(file).tobytes() for file in files} | {pipe(_PROMPT, seed=seed).images[0].tobytes()}
            equal += len(found) == 1
    pipe.close()
    return Measured(f"5 of 5 equal for {equal} of {count} seeds", equal == count)


@figure("V22", "bundle switch under load", "0 wrong-bundle pictures of 200", 200)
def switches(_choices: Choices, count: int) -> Measured:
    """Ask two bundles by turns, from four programs at once, and read from the files which one drew."""
    with fakes("one", "two") as (bundles, pictures), fake(bundles, pictures, 0.001) as server:
        clients = [server.client(str(number)) for number in range(4)]
        digests = {one["name"]: one["id"] for one in clients[0].get("/api/v1/bundles")["bundles"]}
        asked = {}
        for number in range(count):
            name = ("one", "two")[number % 2]
            body = {"prompt": "owl", "bundle": name, "guidance_scale": 2 + number / 1000}
            asked[clients[number % 4].post(body)] = digests[name]
        wrong = sum(
            picture["drawn_by"]["bundle_digest"] != digest
            for job, digest in asked.items()
            for picture in clients[0].ended(job)["pictures"]
        )
        drawn = sum(len(clients[0].job(job)["pictures"]) for job in list(asked)[-100:])
    return Measured(f"{wrong} of {len(asked)}", wrong == 0 and drawn == min(100, count))
