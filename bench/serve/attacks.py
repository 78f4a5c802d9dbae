"""What a page of somebody else can do to servers on this machine: a table of requests that its browser would send.

    python -m bench.serve.attacks nano-serve=http://localhost:7860 sd-server=http://localhost:1234

Each request draws or reads something through the routes that both have. "let in" is a 2xx answer; for a page to read
the answer, too, the server has to name the page's origin (CORS).
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_DRAW = json.dumps({"prompt": "owl", "steps": 1, "width": 64, "height": 64, "seed": 1})
_TEXT, _FORM, _JSON = "text/plain", "application/x-www-form-urlencoded", "application/json"
_EVIL = "http://evil.example"


@dataclass(frozen=True)
class _Attack:
    title: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


def _attacks(port: int) -> Iterator[_Attack]:
    page = {"origin": _EVIL, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    blind = {**page, "sec-fetch-mode": "no-cors"}
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    form = {**page, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    rebound = {"host": f"evil.example:{port}", "origin": f"{_EVIL}:{port}", "sec-fetch-site": "same-origin"}
    options, draw = "/sdapi/v1/options", "/sdapi/v1/txt2img"
    yield _Attack("foreign `Host`: read the settings", "GET", options, {"host": "evil.example"})
    yield _Attack("`Host` `localhost.evil.example`", "GET", options, {"host": f"localhost.evil.example:{port}"})
    yield _Attack("rebinding: read the settings", "GET", options, rebound)
    yield _Attack("rebinding: draw", "POST", draw, {**rebound, "content-type": _JSON}, _DRAW)
    yield _Attack("script of a foreign page: read the settings", "GET", options, page)
    preflight = {**page, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    yield _Attack("its preflight for a drawing", "OPTIONS", draw, preflight)
    yield _Attack("script of a foreign page: draw", "POST", draw, {**page, "content-type": _JSON}, _DRAW)
    yield _Attack("the same, blindly, as text", "POST", draw, {**blind, "content-type": _TEXT}, _DRAW)
    yield _Attack("form of a foreign page, as text", "POST", draw, {**form, "content-type": _TEXT}, _DRAW)
    yield _Attack("form of a foreign page", "POST", draw, {**form, "content-type": _FORM}, _DRAW)
    yield _Attack(
        "`Origin: null` (a sandboxed frame): draw", "POST", draw, {"origin": "null", "content-type": _TEXT}, _DRAW
    )
    yield _Attack("a picture's address in a foreign page", "GET", options, picture)
    yield _Attack("no browser: `curl` draws", "POST", draw, {"content-type": _JSON}, _DRAW)


def _outcome(url: str, attack: _Attack) -> str:
    """Return what a server does with a request."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=300)
    try:
        headers = {"host": f"localhost:{where.port}", **attack.headers}
        connection.request(attack.method, attack.path, attack.body, headers)
        answer = connection.getresponse()
        answer.read()
        allowed = answer.headers.get("access-control-allow-origin", "")
    finally:
        connection.close()
    word = "let in" if answer.status < http.client.BAD_REQUEST else "refused"
    readable = allowed in {"*", attack.headers.get("origin")} and "origin" in attack.headers
    return f"{word} ({answer.status})" + (", readable" if readable else "")


def main() -> int:
    """Attack every server; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=URL")
    servers = [tuple(one.split("=", 1)) for one in parser.parse_args().servers]
    print("| request | " + " | ".join(name for name, _ in servers) + " |")
    print("|---|" + "---|" * len(servers))
    rows = zip(*(list(_attacks(urlsplit(url).port or 80)) for _, url in servers), strict=True)
    for attacks in rows:
        cells = [_outcome(url, attack) for (_, url), attack in zip(servers, attacks, strict=True)]
        print(f"| {attacks[0].title} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
