"""Counts and logs requests: route, status, time. Never a prompt, a query, a token or a body."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nano_serve.metrics import Metrics

__all__ = ["JsonLines", "Watch"]

_log = logging.getLogger("nano_serve.requests")


class Watch:
    """The outermost layer: sees every request and every answer.

    Args:
        app: answers.
        metrics: counts.
        routes: of the application: what the guard answers has not come to one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = self._route_of(scope)
            self._metrics.count("nano_http_requests_total", route=route, code=str(status))
            facts: dict[str, object] = {"method": scope["method"], "route": route, "status": status}
            facts["ms"] = round((time.perf_counter() - began) * 1000, 1)
            retries = Headers(scope=scope).get("x-stainless-retry-count", "")
            if retries.isascii() and retries.isdigit():
                facts["retries"] = int(retries[:3])
            _log.info(" ".join(str(fact) for fact in facts.values()), extra={"facts": facts})

    def _route_of(self, scope: Scope) -> str:
        """Return the pattern of the route that a request is for, which has no text of the client's; "none" for none."""
        found = scope.get("route") or next((one for one in self._routes if one.path_regex.match(scope["path"])), None)
        return getattr(found, "path", "none")


class JsonLines(logging.Formatter):
    """Formats records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts = getattr(record, "facts", None) or {"message": record.getMessage()}
        whole = {"time": round(record.created, 3), "level": record.levelname.lower(), **facts}
        if record.exc_info:
            whole["traceback"] = self.formatException(record.exc_info)
        return json.dumps(whole)
