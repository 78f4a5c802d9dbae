"""Who may ask: names of this server, origins, tokens, and what every answer says to browsers (D3 to D7, D11, D14)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
from typing import Any

import pytest
from tests.serve.conftest import BASE, PORT, servers

from nano_serve import cli
from nano_serve.http.guard import CSP, Access
from nano_serve.http.watch import JsonLines

TOKEN = "a+token/of=sixteen&more"  # noqa: S105 - of a test


@pytest.fixture(scope="module")
def served(bundles, tmp_path_factory):
    """One server for all: no request here leaves a trace."""
    with servers(bundles, tmp_path_factory.mktemp("pictures")) as begin:
        yield begin()


@pytest.fixture(scope="module")
def locked(bundles, tmp_path_factory):
    """A server with a token, another name, and a friendly page elsewhere."""
    with servers(bundles, tmp_path_factory.mktemp("pictures")) as begin:
        yield begin(
            Access(
                TOKEN,
                ["studio.lan", "proxy.example:80", "tls.example:443", "tls.example:8443"],
                ["http://friend.example"],
            )
        )


@pytest.mark.parametrize(
    "host",
    [f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}", f"host.docker.internal:{PORT}"],
)
def test_own_names_are_answered(served, host):
    assert served.ask("GET", "/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        f"evil.com:{PORT}",
        f"localhost.evil.com:{PORT}",
        f"127.0.0.1.evil.com:{PORT}",
        f"localhost.:{PORT}",
        "localhost",
        f"localhost:{PORT + 1}",
        f"localhost:{PORT}:{PORT}",
        f"user@localhost:{PORT}",
        f"2130706433:{PORT}",
        f"0x7f000001:{PORT}",
        f"0177.0.0.1:{PORT}",
        f"127.1:{PORT}",
        f"[::ffff:127.0.0.1]:{PORT}",
        f"0.0.0.0:{PORT}",
        "",
    ],
)
def test_foreign_names_are_refused(served, host):
    """A page whose name leads here (DNS rebinding) sends its own name."""
    answer = served.ask("GET", "/api/v1/jobs", headers={"host": host})
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]["message"]


@pytest.mark.parametrize("hosts", [[], [b"localhost:7860", b"localhost:7860"]])
def test_none_or_two_names_are_no_request(served, hosts):
    assert _raw(served, "/health", [(b"host", host) for host in hosts]) == 400


def test_a_target_that_is_no_path_is_no_request(served):
    assert _raw(served, "http://evil.com/health", [(b"host", b"localhost:7860")]) == 400


def test_further_names_can_be_allowed(locked):
    for host in (f"studio.lan:{PORT}", "proxy.example", "proxy.example:80"):
        assert locked.ask("GET", "/health", headers={"host": host}).status_code == 200
    for host in ("studio.lan", f"proxy.example:{PORT}"):
        assert locked.ask("GET", "/health", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("tls.example", "https://tls.example", 401),  # past the guard, without the token
        ("tls.example:443", "https://tls.example:443", 401),
        ("tls.example:8443", "https://tls.example:8443", 401),
        ("proxy.example", "http://proxy.example", 401),
        ("tls.example", "https://tls.example.evil.com", 403),
        ("tls.example", "https://tls.example:8443", 403),
        (f"studio.lan:{PORT}", f"https://studio.lan:{PORT}", 403),  # this port speaks no TLS
        (f"studio.lan:{PORT}", "https://tls.example", 403),
        (f"tls.example:{PORT}", f"http://tls.example:{PORT}", 403),
    ],
)
def test_our_page_behind_a_proxy_with_tls_is_ours(locked, host, origin, status):
    assert locked.ask("GET", "/api/v1/jobs", headers={"host": host, "origin": origin}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.com"},
        {"origin": "null"},
        {"origin": "http://localhost"},
        {"origin": f"http://localhost:{PORT + 1}"},
        {"origin": f"https://localhost:{PORT}"},
        {"origin": f"http://127.0.0.1:{PORT}"},  # of another name than the Host
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"sec-fetch-site": "anything"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/v1/jobs"), ("GET", "/api/v1/jobs"), ("POST", "/sdapi/v1/interrupt")]
)
def test_pages_of_others_are_refused(served, headers, method, path):
    body = {"json": {"prompt": "owl"}} if path == "/api/v1/jobs" and method == "POST" else {}
    assert served.ask(method, path, headers=headers, **body).status_code == 403
    assert served.get("/api/v1/jobs") == {"jobs": []}


def test_our_page_and_programs_are_answered(served):
    for headers in ({}, {"origin": BASE}, {"origin": BASE, "sec-fetch-site": "same-origin"}):
        assert served.ask("GET", "/api/v1/jobs", headers=headers).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert served.ask("GET", "/", headers=link).status_code == 200
    image = {**link, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert served.ask("GET", "/", headers=image).status_code == 403


def test_no_page_is_told_that_it_may_read(served):
    assert not [name for name in served.ask("GET", "/health").headers if name.startswith("access-control")]
    ping = served.ask("OPTIONS", "/v1/images/generations")
    assert (ping.status_code, "POST" in ping.headers["allow"]) == (204, True)


def test_an_allowed_page_is_told(locked):
    friend = {"origin": "http://friend.example", "sec-fetch-site": "cross-site"}
    asks = {**friend, "access-control-request-method": "POST"}
    preflight = locked.ask("OPTIONS", "/api/v1/jobs", headers=asks)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "http://friend.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    real = locked.ask("GET", "/api/v1/jobs", headers={**friend, "authorization": f"Bearer {TOKEN}"})
    assert (real.status_code, real.headers["access-control-allow-origin"]) == (200, "http://friend.example")
    other = {**asks, "origin": "http://friend.example.evil.com"}
    assert locked.ask("OPTIONS", "/api/v1/jobs", headers=other).status_code == 403


def test_the_token_is_taken_in_every_form(locked):
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    for headers in (
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        {"authorization": f"Basic {basic}"},
        {"x-api-key": TOKEN},
    ):
        assert locked.ask("GET", "/api/v1/jobs", headers=headers).status_code == 200
    for headers in (
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Basic %%%"},
        {"authorization": f"Digest {TOKEN}"},
        {"x-api-key": ""},
        {"cookie": f"nano_serve={TOKEN}"},
    ):
        for path in ("/api/v1/jobs", "/openapi.json", "/metrics", "/", f"/api/v1/jobs?token={TOKEN}"):
            answer = locked.ask("GET", path, headers=headers)
            assert (answer.status_code, TOKEN in answer.text) == (401, False)
    assert locked.ask("GET", "/health").status_code == 200


def test_a_link_with_the_token_sets_a_cookie_and_loses_the_token(locked):
    answer = locked.ask("GET", "/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert all(word in cookie.lower() for word in ("httponly", "samesite=strict", "path=/"))
    assert locked.ask("GET", "/", headers={"cookie": cookie.partition(";")[0]}).status_code == 200
    assert locked.ask("GET", "/", params={"token": "another"}).status_code == 401
    plain = locked.ask("GET", "/?token=a+token/of=sixteen%26more")  # typed, with a plus sign that means a blank
    assert plain.status_code == 303


BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_without_the_token_is_asked_for_it(locked):
    """On a page that runs nothing, loads nothing, and sends the token to nobody else."""
    answer = locked.ask("GET", "/", headers=BROWSER)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert re.findall(r"<form.*?>", answer.text) == ['<form action="/">']
    assert '<p id="said" class="wrong" role="alert"></p>' in answer.text
    assert not re.search(r"<script|<link|<img|\s(src|style|on[a-z]+)=", answer.text)
    wrong = locked.ask("GET", "/", params={"token": "another"}, headers=BROWSER)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "not the server\u2019s token" in wrong.text
    assert "another" not in wrong.text
    assert locked.ask("GET", "/", params={"token": TOKEN}, headers=BROWSER).status_code == 303


def test_the_page_that_asks_for_the_token_has_a_policy_of_its_own(locked):
    """Its one style is named by its hash; all else is stricter than, or as, elsewhere."""
    answer = locked.ask("GET", "/", headers=BROWSER)
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; "))
    usual = dict(one.split(" ", 1) for one in CSP.split("; "))
    assert policy.pop("style-src") == f"'sha256-{digest}'"
    assert policy.pop("form-action") == "'self'"
    assert policy.items() <= usual.items()
    assert locked.ask("GET", "/", headers={**BROWSER, "x-api-key": TOKEN}).headers["content-security-policy"] == CSP


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 401),
        ("GET", "/", {"accept": "application/json"}, 401),
        ("HEAD", "/", BROWSER, 401),
        ("POST", "/", BROWSER, 401),
        ("GET", "/api/v1/jobs", BROWSER, 401),
        ("GET", "/page/app.js", BROWSER, 401),
        ("GET", "/page/token.html", BROWSER, 401),
        ("GET", "/", {**BROWSER, "host": "evil.com"}, 403),
        ("GET", "/", {**BROWSER, "origin": "http://evil.com"}, 403),
    ],
)
def test_all_else_without_the_token_gets_json(locked, method, path, headers, status):
    answer = locked.ask(method, path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.headers["content-security-policy"] == CSP


def test_a_token_that_programs_can_send_is_asked_for(capsys, monkeypatch):
    for token in ("short", "sixteen and more letters", "sechzehn-\u00e4\u00f6\u00fc-letters"):
        assert cli.main(["--port", "0", "--token", token]) == 2
        assert "openssl" in capsys.readouterr().err
    monkeypatch.setenv("NANO_SERVE_TOKEN", "short")
    assert cli.main(["--port", "0"]) == 2


@pytest.mark.parametrize("sent", ["Basic Og==", "", "Bearer x", "nonsense"])
def test_without_a_token_any_authorization_is_ignored(served, sent):
    """SillyTavern and Open WebUI always send one."""
    assert served.ask("GET", "/api/v1/jobs", headers={"authorization": sent}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_forms_of_other_pages_are_no_requests(served, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = served.ask("POST", "/api/v1/jobs", content=b'{"prompt": "owl"}', headers=headers)
    assert answer.status_code == 415
    assert served.get("/api/v1/jobs") == {"jobs": []}


@pytest.mark.parametrize("path", ["/", "/api/v1/jobs", "/nowhere", "/health"])
def test_every_answer_tells_browsers_what_they_may_do(served, path):
    headers = served.ask("GET", path).headers
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")


@pytest.mark.parametrize(
    ("path", "headers", "logged"),
    [
        ("/api/v1/jobs/secret-word", {}, (401, "/api/v1/jobs/{id}")),
        ("/page/app.js", {}, (401, "/page/app.js")),
        ("/?token=secret-word", {}, (401, "/")),
        ("/?token=a+token/of=sixteen%26more", {}, (303, "/")),
        ("/v1/models", {"origin": "http://secret-word.example"}, (403, "/v1/models")),
        ("/v1/models", {"host": "secret-word.example"}, (403, "/v1/models")),
        ("/secret-word", {}, (401, "none")),
        ("/sdapi/v1/txt2img", {"x-api-key": TOKEN}, (405, "/sdapi/v1/txt2img")),
        ("/health", {}, (200, "/health")),
    ],
)
def test_what_the_guard_answers_is_logged_by_its_route_too(locked, caplog, path, headers, logged):
    """By the pattern alone: what the client wrote is no part of the log."""
    caplog.set_level(logging.INFO, "nano_serve.requests")
    locked.ask("GET", path, headers=headers)
    (record,) = [one for one in caplog.records if one.name == "nano_serve.requests"]
    line = json.loads(JsonLines().format(record))
    assert (line["status"], line["route"]) == logged
    assert "secret-word" not in str(line)


def test_no_web_socket_is_served(served):
    sent = []

    async def connect():
        async def send(message):
            sent.append(message)

        await served.app({"type": "websocket", "path": "/", "headers": []}, None, send)

    asyncio.run(connect())
    assert [message["type"] for message in sent] == ["websocket.close"]  # before it is accepted, that is a 403


def test_nothing_but_a_post_changes_anything(served):
    """An <img> or a link of another page can only cause a GET."""
    for path in ("/api/v1/jobs", "/api/v1/tokens", "/api/v1/parameters"):
        answer = served.ask("GET", path, params={"prompt": "owl"})
        assert answer.status_code in {200, 405}
    for name in ("interrupt", "skip", "unload-checkpoint", "refresh-checkpoints", "txt2img"):
        assert served.ask("GET", f"/sdapi/v1/{name}").status_code == 405
    assert served.ask("PUT", "/api/v1/jobs").headers["allow"]
    assert served.get("/api/v1/jobs") == {"jobs": []}


def _raw(served, path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the status of a request that no client would send."""
    status = []

    async def ask():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            status.append(message.get("status"))

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
        }
        scope |= {"raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http"}
        await served.app({**scope, "server": ("localhost", PORT), "client": ("127.0.0.1", 1)}, receive, send)

    asyncio.run(ask())
    return status[0]
