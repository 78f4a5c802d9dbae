"""Requests of strangers: each is refused with the status that its defence gives, quickly, and leaves nothing behind."""

from __future__ import annotations

import base64
import itertools
import math
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from bench.serve.figures import Choices, Measured, figure, highest
from bench.serve.servers import Client, fake, fakes

_JSON_ROUTES = ("/api/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img", "/api/v1/tokens", "/api/v1/parameters")
_READ_ROUTES = (
    "/",
    "/api/v1/jobs",
    "/api/v1/events",
    "/api/v1/pictures",
    "/sdapi/v1/options",
    "/v1/models",
    "/metrics",
)
_HOSTS = (
    "evil.com", "evil.com:{p}", "localhost.evil.com:{p}", "127.0.0.1.evil.com:{p}", "localhost.:{p}", "localhost",
    "localhost:1", "user@localhost:{p}", "2130706433:{p}", "0x7f000001:{p}", "0177.0.0.1:{p}", "127.1:{p}",
    "0.0.0.0:{p}", "[::ffff:127.0.0.1]:{p}", "localhost:{p}:{p}", "xn--localhost-:{p}",
)  # fmt: skip
_ORIGINS = (
    "http://evil.com", "null", "http://localhost", "http://localhost:1", "https://localhost:{p}", "http://127.0.0.1:{p}",
    "http://localhost.evil.com:{p}", "file://", "app://x", "http://localhost:{p}.evil.com", "http://[::1]:{p}", "x",
)  # fmt: skip
_TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/json",
    "application/xml",
    "",
)
_BODIES = (
    b"{", b'"owl"', b"[]", b"nul", b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}', b"[" * 10_000 + b"]" * 10_000,
    b'{"x":' * 5000 + b"1" + b"}" * 5000, b'{"prompt": 7}',
    b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}",
    b'{"prompt": "owl", "prompt": ', b"\x00" * 100, b'{"prompt": "' + b'"\\' * 1000,
)  # fmt: skip
_OWN_VALUES = (
    '"seed": -1', '"seed": 1e400', '"seed": "0x10"', f'"seed": {10**40}', '"num_images_per_prompt": 0',
    '"num_images_per_prompt": 101', '"num_images_per_prompt": -5', '"num_images_per_prompt": 1e9',
    '"num_inference_steps": 0',
    '"num_inference_steps": 1001', '"num_inference_steps": 2.5', '"guidance_scale": NaN', '"guidance_scale": 1e999',
    '"guidance_scale": -1', '"strength": 2', '"scheduler": "x"', '"scheduler": "../../etc/passwd"', '"quality": "x"',
    '"image": "http://localhost/x.png"', '"image": "file:///etc/passwd"', '"image": "!"', '"image": ""',
    '"mask_image": "AAAA"',
    '"mask_blur": -1', '"x": 1', '"prompt": null', '"bundle": 7', '"guidance_interval": [1]', '"cache_interval": -1',
)  # fmt: skip
_IDS = (
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "C:%5Cwindows",
    "a" * 2000,
    "%ff",
    "0" * 31,
    "g" * 32,
    "0" * 33,
    "%2e%2e",
    "..;",
    "'",
    "*",
)
_ROUNDS = 5
_SPARE = 1.15  # of some routes there are not so many different requests
_MEMORY_MB = 2.0  # that come and go
_REFUSED, _BAD, _NONE, _TYPE, _LARGE = {403}, {400}, {404, 405}, {415}, {413}


@dataclass(frozen=True)
class _Request:
    """A request, and the statuses that are right for it."""

    method: str
    path: str
    expected: set[int]
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@figure(
    "V12",
    "hostile requests (D3 to D12)",
    "expected status 1,000/1,000, 0 5xx, each ≤ 50 ms, memory +0",
    1000,
    timed=True,
)
def hostile(_choices: Choices, count: int) -> Measured:
    """Send them five times, over connections that are kept where the server keeps them: what leaks grows each time."""
    wrong: list[str] = []
    times: list[float] = []
    memory: list[float] = []
    with fakes() as (bundles, pictures), fake(bundles, pictures) as server:
        every = _requests(server.port)
        kinds = list(itertools.islice(itertools.cycle(every), count))
        _sent(server.client(), every, [], [])  # what is imported and cached once is not what is leaked
        for _ in range(_ROUNDS):
            before = server.rss_mb
            _sent(server.client(), kinds, wrong, times)
            memory.append(server.rss_mb - before)
        left = len(server.client().get("/api/v1/jobs")["jobs"])
    late = sum(one > 0.05 for one in times)  # noqa: PLR2004 - proposed
    failed = sum(" 5" in one for one in wrong)
    text = f"{len(times) - len(wrong)}/{len(times)} as expected, {failed} 5xx, {late} later than 50 ms "
    text += f"({highest(times)}), memory {', '.join(f'{one:+.1f}' for one in memory)} MB, {left} jobs begun; "
    text += f"{len(every)} different"
    if wrong:
        text += "; wrong: " + ", ".join(wrong[:5])
    return Measured(text, not wrong and late <= len(times) // 100 and memory[-1] <= _MEMORY_MB and not left)


def _sent(client: Client, requests: list[_Request], wrong: list[str], times: list[float]) -> None:
    for one in requests:
        answer = client.ask(one.method, one.path, one.body, **one.headers)
        times.append(answer.seconds)
        if answer.status not in one.expected or b"Traceback" in answer.content:
            wrong.append(f"{one.method} {one.path[:60]} {one.headers} {str(one.body)[:60]} {answer.status}")


def _requests(port: int) -> list[_Request]:
    """Return one of every kind."""
    return [*_foreign(port), *_typed(), *_bodies(), *_pictures(), *_names(), *_large()]


def _foreign(port: int) -> Iterator[_Request]:
    for host, path in itertools.product(_HOSTS, _READ_ROUTES):
        yield _Request("GET", path, _REFUSED, headers={"host": host.format(p=port)})
    for host, path in itertools.product(_HOSTS, _JSON_ROUTES):
        yield _Request("POST", path, _REFUSED, b'{"prompt": "owl"}', {"host": host.format(p=port)})
    for origin, path in itertools.product(_ORIGINS, _JSON_ROUTES):
        yield _Request("POST", path, _REFUSED, b'{"prompt": "owl"}', {"origin": origin.format(p=port)})
    for origin, path in itertools.product(_ORIGINS, ("/sdapi/v1/interrupt", "/sdapi/v1/skip", "/sdapi/v1/options")):
        yield _Request("POST", path, _REFUSED, None, {"origin": origin.format(p=port)})
    for site, path in itertools.product(("cross-site", "same-site"), (*_READ_ROUTES, "/sdapi/v1/interrupt")):
        method = "POST" if path.endswith("interrupt") else "GET"
        yield _Request(method, path, _REFUSED, None, {"sec_fetch_site": site, "sec_fetch_mode": "no-cors"})


def _typed() -> Iterator[_Request]:
    for kind, path in itertools.product(_TYPES, _JSON_ROUTES):
        yield _Request("POST", path, _TYPE, b'{"prompt": "owl", "image": "A"}', {"content_type": kind})
    for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        yield _Request("POST", "/v1/images/edits", _TYPE, b"prompt=owl", {"content_type": kind})


def _bodies() -> Iterator[_Request]:
    for body, path in itertools.product(_BODIES, _JSON_ROUTES):
        if path.startswith("/api") or not (body == b'{"prompt": 7}' or body.startswith(b'{"k0"')):  # lenient routes
            yield _Request("POST", path, _BAD, body)
    for value in _OWN_VALUES:
        yield _Request("POST", "/api/v1/jobs", _BAD, f'{{"prompt": "owl", {value}}}'.encode())


def _pictures() -> Iterator[_Request]:
    for picture in (
        _png(65500, 65500),
        _png(0, 0),
        _png(2, 2)[:20],
        b"GIF89a" + bytes(100),
        b"\xff\xd8\xff",
        b"BM" + bytes(50),
    ):
        text = base64.b64encode(picture)
        yield _Request("POST", "/api/v1/jobs", _BAD, b'{"prompt": "owl", "image": "' + text + b'"}')
        yield _Request("POST", "/sdapi/v1/img2img", _BAD, b'{"init_images": ["' + text + b'"]}')
        yield _Request("POST", "/sdapi/v1/png-info", _BAD, b'{"image": "' + text + b'"}')
        yield _Request("POST", "/sdapi/v1/extra-single-image", _BAD, b'{"image": "' + text + b'"}')
        yield _Request("POST", "/api/v1/parameters", {400, 404}, b'{"image": "' + text + b'"}')


def _names() -> Iterator[_Request]:
    for name, method in itertools.product(_IDS, ("GET", "DELETE")):
        for path in (f"/api/v1/pictures/{name}", f"/api/v1/jobs/{name}", f"/page/{name}"):
            yield _Request(method, path, _NONE)
    for method in ("PUT", "PATCH", "TRACE", "DELETE", "POST"):
        yield _Request(method, "/health", _NONE)
    for query in ("limit=0", "limit=999", "limit=x", "limit=-1", "limit=%00"):
        yield _Request("GET", f"/api/v1/pictures?{query}", _BAD)
    yield _Request("GET", "/api/v1/pictures?before=x", {404})


def _large() -> Iterator[_Request]:
    for path in _JSON_ROUTES[:2]:
        yield _Request("POST", path, _LARGE, None, {"content_length": "33000000"})
    yield _Request("POST", "/api/v1/tokens", _LARGE, b" " * 1_100_000)
    for length in ("-1", "1e9", "x"):
        yield _Request("POST", "/api/v1/jobs", _BAD, None, {"content_length": length})


def _png(width: int, height: int) -> bytes:
    """Return a PNG that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@figure("V13", "schemathesis on `/openapi.json`", "10,000 cases, 0 5xx, 0 answers of another shape", 10_000)
def schemathesis(choices: Choices, count: int) -> Measured:
    """Let it make requests of every route but the endless one."""
    if choices.schemathesis is None:
        raise RuntimeError("needs --schemathesis: pip install schemathesis, and the path of its program")
    with fakes() as (bundles, pictures), fake(bundles, pictures) as server, TemporaryDirectory() as folder:
        url = f"http://localhost:{server.port}/openapi.json"
        routes = _varied(server.client().get("/openapi.json"))
        line = [
            str(choices.schemathesis),
            "run",
            url,
            "--exclude-path",
            "/api/v1/events",
            "--no-color",
            "--phases=fuzzing",
        ]
        line += [
            "--checks",
            "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance",
        ]
        line += [
            "--max-examples",
            str(max(1, math.ceil(_SPARE * count / routes))),
            "--seed",
            "20261128",
            "--generation-database=none",
        ]
        said = subprocess.run(line, capture_output=True, text=True, cwd=folder, check=False)
    found = re.search(r"(\d[\d,]*) generated", said.stdout)
    cases = "?" if found is None else found[1]
    good = said.returncode == 0
    told = said.stdout.partition("= FAILURES =")[2].partition("= WARNINGS =")[0] or said.stdout[-1500:]
    text = f"{cases} cases" + ("" if good else f"; exit code {said.returncode}: {told!r}")
    return Measured(text, good)


def _varied(document: Any) -> int:  # noqa: ANN401 - as JSON
    """Return the number of routes that take anything: of the others there is one request."""
    takes = {"requestBody", "parameters"}
    return sum(bool(takes & set(route)) for path in document["paths"].values() for route in path.values())
