"""The application: all routes, behind the guard, with every error in a client's form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nano_runtime import NanoError
from nano_serve.errors import MethodError, NotFoundError
from nano_serve.fit import Fit
from nano_serve.http.a1111_api import a1111_endpoints
from nano_serve.http.answers import JsonAnswer, error_answer, problem
from nano_serve.http.guard import Access, Guard
from nano_serve.http.health import health_endpoints
from nano_serve.http.openai_api import openai_endpoints
from nano_serve.http.openapi import document_of
from nano_serve.http.own_api import own_endpoints
from nano_serve.http.routes import routes_of
from nano_serve.http.watch import Watch
from nano_serve.studio import Studio

__all__ = ["application"]

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
_METHOD: Final = 405

_log = logging.getLogger(__name__)


def application(studio: Studio, access: Access, fit: Fit = "asked") -> Watch:
    """Return the application.

    Args:
        studio: that draws.
        access: who may ask.
        fit: what becomes of sizes that a bundle does not draw, in the compatible APIs.
    """
    compatible = [*openai_endpoints(studio, fit), *a1111_endpoints(studio, fit)]
    endpoints = [*own_endpoints(studio), *compatible, *health_endpoints(studio)]
    document = document_of(endpoints)

    async def openapi(_request: Request) -> Response:
        return JsonAnswer(document)

    routes = [*routes_of(endpoints), Route("/openapi.json", openapi), *_page()]

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, NanoError)  # noqa: S101 - by registration
        text = studio.clean(f"{error.what}. {error.hint}")
        return error_answer(error, request.url.path, text)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - by registration
        path = request.url.path
        if error.status_code == _METHOD:
            return error_answer(MethodError(request.method, (error.headers or {}).get("Allow", "others")), path)
        return error_answer(NotFoundError(f"there is nothing at {path[:80]!r}"), path)

    async def bug(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        return problem(500, "internal", "the server failed. Its log says why.", request.url.path)

    app = Starlette(routes=routes, exception_handlers={NanoError: ours, HTTPException: http, Exception: bug})
    app.router.redirect_slashes = False
    return Watch(Guard(app, access), studio.metrics, routes)


def _page() -> list[Route]:
    """Return the routes of the page: its files are read once, and served from memory under their own names."""
    routes: list[Route] = []
    for file in files("nano_serve").joinpath("page").iterdir():
        media = _TYPES.get(file.name.rpartition(".")[2])
        if media is None:
            continue
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        routes.append(Route(path, _serving(file.read_bytes(), media)))
    return routes


def _serving(content: bytes, media: str) -> Callable[[Request], Any]:
    async def serve(_request: Request) -> Response:
        return Response(content, media_type=media, headers={"cache-control": "no-cache"})

    return serve
