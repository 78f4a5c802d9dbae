"""Real connections: both loopback addresses, peers that are slow or leave, and stopping (D1, D2, D9, D15)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from tests.serve.conftest import status_of, until

from nano_runtime.bundle.folder import DEMO
from nano_serve import cli, views
from nano_serve.errors import AddressError
from nano_serve.http import server
from nano_serve.http.guard import Access
from nano_serve.http.patience import MOST_CONNECTIONS, PatientProtocol
from nano_serve.http.server import Server, listen
from nano_serve.http.waiting import until_gone
from nano_serve.shapes import ErrorShape


def test_both_loopback_addresses_are_served_and_no_other(running):
    for host in ("127.0.0.1", "::1"):
        with running.connect(host) as peer:
            peer.sendall(running.request("GET /health"))
            answer = peer.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"\r\nserver:" not in answer.lower()
    assert {found.getsockname()[0] for found in running.sockets} == {"127.0.0.1", "::1"}


def test_answers_are_sent_at_once(running):
    """Where they are not, every answer but the first of a connection comes 40 ms later."""
    for host in ("127.0.0.1", "::1"):
        with running.connect(host) as peer:
            peer.sendall(running.request("GET /health"))
            peer.recv(4096)
            (found,) = running.server.server_state.connections
            sent = found.transport.get_extra_info("socket")
            assert sent.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        until(lambda: not running.server.server_state.connections)


def test_what_is_no_request_is_answered_as_json(running):
    with running.connect() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n")
        head, _, body = _rest(peer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    msgspec.json.decode(body, type=ErrorShape)


def test_forwarded_headers_say_nothing(running):
    spoofed = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: evil.com\r\nX-Forwarded-Proto: https\r\n"
    with running.connect() as peer:
        peer.sendall(running.request("POST /api/v1/jobs", '{"prompt": "owl"}', spoofed))
        assert b" 202 " in peer.recv(4096)
    job = running.served.studio.jobs()[0]
    assert job.wish.client.startswith("127.0.0.1")


def test_half_a_header_line_does_not_keep_a_connection(running):
    """So many of them leave the server answering."""
    peers = [running.connect() for _ in range(MOST_CONNECTIONS // 2)]
    for peer in peers:
        peer.sendall(b"GET /health HTTP/1.1\r\nHo")
    assert running.status("/health") == 200
    for peer in peers:
        assert _rest(peer) == b""
        peer.close()


def test_a_peer_that_does_not_read_is_let_go(running, monkeypatch):
    monkeypatch.setattr(views, "samplers", lambda: [{"name": "x" * 30_000_000, "label": ""}])
    with running.connect() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.sendall(running.request("GET /api/v1/events"))
        until(lambda: len(running.server.server_state.connections) == 1)
        until(lambda: not running.server.server_state.connections)


def test_while_too_many_are_connected_health_is_answered(running, monkeypatch):
    monkeypatch.setattr(PatientProtocol, "header_seconds", 10)
    peers = [running.connect() for _ in range(MOST_CONNECTIONS)]
    until(lambda: len(running.server.server_state.connections) >= MOST_CONNECTIONS)
    assert running.status("/health") == 200
    assert running.status("/api/v1/jobs") == 503
    for peer in peers:
        peer.close()
    until(lambda: len(running.server.server_state.connections) == 0)
    assert running.status("/api/v1/jobs") == 200


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/v1/images/generations"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_job(running, path, stream):
    running.served.gate.open = False
    with running.connect() as peer:
        peer.sendall(running.request(f"POST {path}", json.dumps({"prompt": "owl", "stream": stream})))
        job = until(lambda: jobs[0] if (jobs := running.served.studio.jobs()) else None)
        until(lambda: job.status == "generating")
    until(lambda: job.unwanted)
    running.served.gate.left = 1
    until(lambda: job.ended)
    assert (job.status, running.served.gate.calls) == ("cancelled", 1)


def test_a_cancellation_that_is_swallowed_comes_again():
    """As by ``asyncio.wait_for`` until Python 3.12, in one of fifty streams whose reader left."""
    swallowed: list[bool] = []
    ended: list[bool] = []

    async def work():
        try:
            while True:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:  # noqa: PERF203 - the point
                    if swallowed:
                        raise
                    swallowed.append(True)
        finally:
            ended.append(True)

    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    asyncio.run(asyncio.wait_for(until_gone(Request({"type": "http"}, receive), work()), 5))
    assert (swallowed, ended) == ([True], [True])


def test_stopping_ends_streams_with_bye_within_seconds(running, monkeypatch):
    monkeypatch.setattr(PatientProtocol, "header_seconds", 10)  # the last one waits for the answers of all others
    peers = [running.connect() for _ in range(8)]
    for peer in peers:
        peer.sendall(running.request("GET /api/v1/events"))
        assert b"200 OK" in peer.recv(1024)
    assert running.stop() < 5
    for peer in peers:
        assert b"event: bye" in _rest(peer)
        peer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_an_idle_server_lets_the_processor_sleep(running):
    """uvicorn's own loop looks ten times a second whether it should end."""
    told = Path(f"/proc/self/task/{running.thread.native_id}/status")

    def waits():
        return int(told.read_text().partition("voluntary_ctxt_switches:")[2].split()[0])

    assert running.status("/health") == 200
    until(lambda: not running.server.server_state.connections)
    before = waits()
    time.sleep(1.5)
    assert waits() - before <= 6


def test_stopping_while_the_engine_hangs(running, monkeypatch):
    monkeypatch.setattr(server, "_WORKER_SECONDS", 0.3)  # instead of 2
    running.served.gate.open = False
    with running.connect() as peer:
        peer.sendall(running.request("POST /api/v1/jobs", '{"prompt": "owl"}'))
        peer.recv(4096)
        until(lambda: running.served.studio.worker.current)
        assert running.stop() < 5
    assert not running.server.worker_ended


def test_an_address_that_cannot_be_had_is_told(running):
    taken, others = ("127.0.0.1", running.port, "--port"), ("192.0.2.1", "a..b", "a" * 70, "\udcff")
    for host, port, named in (taken, *((other, 0, "--host") for other in others)):
        with pytest.raises(AddressError, match=named):
            listen(host, port)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - it is judged
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("127.example.com", False),  # a name, which may lead anywhere
        ("127.1", False),
    ],
)
def test_only_addresses_of_this_machine_alone_need_no_token(host, alone):
    assert server.is_loopback(host) == alone


def test_while_bundles_are_opened_connections_are_accepted(serving):
    """``/health`` answers, ``/ready`` says not yet, and whatever needs a bundle waits for it."""
    served, leave, got = serving(start=False), threading.Event(), []

    def opened():
        assert leave.wait(10)
        return served.app, served.studio

    ready = threading.Event()
    sockets = listen("localhost", 0)
    begun = Server(Access(), opened, ready.set)
    thread = threading.Thread(target=begun.run_on, args=(sockets,))
    thread.start()
    port = sockets[0].getsockname()[1]
    assert status_of(port, "/health") == 200
    assert status_of(port, "/ready") == 503
    assert status_of(port, "/health", "evil.com") == 403
    waiting = threading.Thread(target=lambda: got.append(status_of(port, "/api/v1/bundles")))
    waiting.start()
    waiting.join(0.1)
    assert (got, ready.is_set()) == ([], False)
    leave.set()
    waiting.join(10)
    assert ready.wait(10)
    assert (got, status_of(port, "/ready")) == ([200], 200)
    begun.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_bundles_that_cannot_be_opened_end_the_server(tmp_path, capsys):
    assert cli.main(["--bundle", str(tmp_path), "--no-history", "--port", "0"]) == 3
    assert "manifest.json" in capsys.readouterr().err


def test_a_bundle_that_was_cut_short_ends_the_server_at_its_start(tmp_path, capsys):
    cut = shutil.copytree(DEMO, tmp_path / "cut")
    os.truncate(cut / "unet" / "model.onnx.data", 1000)
    assert cli.main(["--bundle", str(cut), "--no-history", "--port", "0", "--backend", "onnxruntime"]) == 3
    assert "model.onnx.data is not the file the manifest describes: 1000 bytes" in capsys.readouterr().err


def test_other_machines_need_a_token(capsys):
    assert cli.main(["--host", "0.0.0.0"]) == 2  # noqa: S104 - it is refused
    assert "--token" in capsys.readouterr().err
    assert cli.main(["--token", "short"]) == 2
    assert cli.main(["--port", "70000"]) == 2
    for seconds in ("nan", "-5", "inf"):
        assert cli.main(["--idle", seconds]) == 2
    for host in ("http://studio.lan", "studio.lan/", "a b"):
        assert cli.main(["--allow-host", host]) == 2
    for origin in ("*", "studio.lan", "http://studio.lan/page", "null"):
        assert cli.main(["--allow-origin", origin]) == 2
    assert cli.main(["--history", "/dev/null/x", "--port", "0"]) == 4
    assert "--history" in capsys.readouterr().err


def test_a_server_for_others_that_names_itself_to_nobody_is_told(monkeypatch, capsys):
    monkeypatch.setattr(server, "serve", lambda sockets, *_: [one.close() for one in sockets])
    options = ["--host", "0.0.0.0", "--token", "x" * 16, "--port", "0", "--no-history"]  # noqa: S104 - it serves nobody
    assert cli.main(options) == 0
    assert "--allow-host" in capsys.readouterr().err
    assert cli.main([*options, "--allow-host", "studio.lan"]) == 0
    assert capsys.readouterr().err == ""


def test_no_log_has_a_prompt_or_a_token(serving, caplog):
    token = "a-token-that-nobody-should-read"  # noqa: S105 - of a test
    served = serving(Access(token))
    with caplog.at_level("INFO"):
        headers = {"authorization": f"Bearer {token}"}
        served.ask("POST", "/api/v1/jobs", json={"prompt": "canary"}, headers=headers, params={"q": "canary"})
        served.ask("GET", "/", params={"token": token})
        served.ask("POST", "/api/v1/jobs", json={"prompt": "canary", "steps": "canary"}, headers=headers)
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("nano"))
    assert "POST /api/v1/jobs 202" in said
    assert "canary" not in said
    assert token not in said


def _rest(peer: socket.socket) -> bytes:
    """Read until the far end closes."""
    parts = []
    try:
        while part := peer.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
