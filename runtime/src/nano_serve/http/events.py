"""Server-sent events: writes them, pings, and ends when the reader leaves or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nano_serve.http.waiting import until_gone
from nano_serve.hub import Hub
from nano_serve.studio import Studio

__all__ = ["EventStream", "event_text", "stream_of"]

_PING_SECONDS: Final = 15.0
_WRITE_SECONDS: Final = 30.0  # that a reader may keep one event waiting


class EventStream(Response):
    """An answer that is written bit by bit.

    When the reader leaves, or does not read for long, ``events`` is closed: its ``finally`` blocks run.

    Args:
        events: each one ready to be sent.
        headers: further headers.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> None:
        super().__init__(headers={"x-accel-buffering": "no", "cache-control": "no-store", **(headers or {})})
        del self.headers["content-length"]
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until the events end or the reader leaves."""
        await until_gone(Request(scope, receive), self._write(send))

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self.events:
                body = {"type": "http.response.body", "body": event, "more_body": True}
                await asyncio.wait_for(send(body), _WRITE_SECONDS)
        finally:
            close = getattr(self.events, "aclose", None)
            if close is not None:
                await close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_text(name: str, data: Any) -> bytes:  # noqa: ANN401 - whatever can be written as JSON
    """Return one event."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def stream_of(studio: Studio, hello: Callable[[], Any]) -> EventStream:
    """Return a stream of all events.

    Args:
        studio: that they are of.
        hello: the whole state, for the first event.
    """
    return EventStream(_events(studio.hub, hello))


async def _events(hub: Hub, hello: Callable[[], Any]) -> AsyncIterator[bytes]:
    with hub.listening() as listener:
        yield event_text("hello", hello())
        while True:
            try:
                event = await listener.next(_PING_SECONDS)
            except ConnectionError:
                return  # the reader connects anew, and is told everything
            if event is None:
                yield b": ping\n\n"
                continue
            yield event_text(event.name, event.data)
            if event.name == "bye":
                return
