"""Ends connections of peers that keep the server waiting, and keeps room for those that ask how it is.

uvicorn ends idle connections. One that has sent half a header line is not idle to it, and one that does not read its
answer is not, either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any, Final

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from nano_serve.errors import BadRequestError, CrowdedError
from nano_serve.http.answers import error_answer

__all__ = ["MOST_CONNECTIONS", "Crowd", "PatientProtocol"]

MOST_CONNECTIONS: Final = 64
"""Connections that are served; beyond them only ``/health`` and ``/ready`` are."""

_RESERVED: Final = 16  # connections for those
_HEADER_SECONDS: Final = 10.0
_WRITE_SECONDS: Final = 30.0
_ALWAYS: Final = frozenset({"/health", "/ready"})


class PatientProtocol(H11Protocol):
    """A connection with two clocks: for the header of a request, and for a peer that does not read."""

    header_seconds = _HEADER_SECONDS
    write_seconds = _WRITE_SECONDS

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **named)
        self._header: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS + _RESERVED:
            transport.abort()
            return
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both clocks."""
        for clock in (self._header, self._write):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; a header that is whole stops its clock, the beginning of one starts it."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            if self._header is not None:
                self._header.cancel()
                self._header = None
        elif self._header is None:
            self._expect_header()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Answer what is no request of HTTP as all others are answered, and close."""
        answer = error_answer(BadRequestError("this is no request of HTTP", "Send one of HTTP/1.1."), "")
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def pause_writing(self) -> None:
        """Begin to wait for the peer to read."""
        super().pause_writing()
        if self._write is None:
            self._write = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting."""
        super().resume_writing()
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def _expect_header(self) -> None:
        self._header = self.loop.call_later(self.header_seconds, self.transport.abort)


class Crowd:
    """Answers only how the server is, while too many are connected.

    Args:
        app: answers all else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.connections: Sized = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        crowded = scope["type"] == "http" and len(self.connections) > MOST_CONNECTIONS
        if crowded and scope["path"] not in _ALWAYS:
            await error_answer(CrowdedError(), scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)
