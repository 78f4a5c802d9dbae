"""Server-sent events: writes them, pings, and ends when the reader leaves or the server stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse

from nano_serve.hub import Hub
from nano_serve.studio import Studio

__all__ = ["event_text", "stream_of"]

_PING_SECONDS: Final = 15.0


def event_text(name: str, data: Any) -> bytes:  # noqa: ANN401 - whatever can be written as JSON
    """Return one event."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def stream_of(studio: Studio, hello: Callable[[], Any]) -> StreamingResponse:
    """Return a stream of all events.

    Args:
        studio: that they are of.
        hello: the whole state, for the first event.
    """
    headers = {"x-accel-buffering": "no", "cache-control": "no-store"}
    return StreamingResponse(_events(studio.hub, hello), media_type="text/event-stream", headers=headers)


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
