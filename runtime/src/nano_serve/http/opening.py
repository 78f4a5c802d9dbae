"""Answers while the bundles are opened: connections are accepted at once, and requests wait for the application."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nano_serve.errors import OpeningError
from nano_serve.http.answers import JsonAnswer, error_answer
from nano_serve.http.guard import Access, Guard

__all__ = ["HealthShape", "Opening"]

_HEALTH, _READY = "/health", "/ready"
_WAIT_SECONDS: Final = 30.0  # of a request, for the application


class HealthShape(msgspec.Struct, kw_only=True):
    """How the server is."""

    status: str


class Opening:
    """Answers ``/health`` and ``/ready`` until the application is there, which answers everything from then on.

    Args:
        access: who may ask.
    """

    def __init__(self, access: Access) -> None:
        self._app: ASGIApp | None = None
        self._there = asyncio.Event()
        self._meanwhile = Guard(_not_yet, access)

    def opened(self, app: ASGIApp) -> None:
        """Hand all requests to the application; called in the event loop."""
        self._app = app
        self._there.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._app is None and scope["path"] not in {_HEALTH, _READY}:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._there.wait(), _WAIT_SECONDS)
        app = self._meanwhile if self._app is None else self._app
        await app(scope, receive, send)


async def _not_yet(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that requests are accepted, and that nothing can be drawn yet."""
    if scope["path"] == _HEALTH:
        answer: Response = JsonAnswer(HealthShape(status="ok"))
    elif scope["path"] == _READY:
        answer = JsonAnswer(HealthShape(status="opening"), 503)
    else:
        answer = error_answer(OpeningError(), scope["path"])
    await answer(scope, receive, send)
