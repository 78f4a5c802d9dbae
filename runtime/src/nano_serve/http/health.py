"""Routes for whoever watches the server: /health, /ready and /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from nano_serve.errors import StoppingError
from nano_serve.http.answers import JsonAnswer
from nano_serve.http.opening import HealthShape
from nano_serve.http.routes import Endpoint
from nano_serve.studio import Studio

__all__ = ["health_endpoints"]


def health_endpoints(studio: Studio) -> list[Endpoint]:
    """Return the routes."""

    async def health(_request: Request) -> Response:
        """Say that requests are accepted."""
        if studio.stopping:
            raise StoppingError
        return JsonAnswer(HealthShape(status="ok"))

    async def ready(_request: Request) -> Response:
        """Say whether a job would begin at once: no bundle is being loaded."""
        if studio.stopping:
            raise StoppingError
        loading = (loaded := studio.shelf.loaded) is not None and loaded.state == "loading"
        return JsonAnswer(HealthShape(status="loading" if loading else "ready"), 503 if loading else 200)

    async def metrics(_request: Request) -> Response:
        """Return numbers in Prometheus' text format."""
        text = studio.metrics.text(nano_queue_depth=studio.line.waiting)
        return Response(text, media_type="text/plain; version=0.0.4")

    return [
        Endpoint("GET", "/metrics", metrics, None, "text/plain"),
        Endpoint("GET", "/health", health, None, HealthShape),
        Endpoint("GET", "/ready", ready, None, HealthShape),
    ]
