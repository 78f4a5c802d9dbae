"""The table of routes: from it come the application and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["Endpoint", "Handler", "routes_of"]

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A route.

    Attributes:
        method: of HTTP.
        path: with parameters in braces.
        handler: answers; its docstring is the summary.
        request: msgspec type of the body; None for none.
        response: msgspec type of the answer, or a media type of what is no JSON; None for none.
        status: of the answer.
        media: type of the body.
        query: parameters that the address may have, each with its JSON schema.
        streams: a body may ask for server-sent events instead.
    """

    method: str
    path: str
    handler: Handler
    request: Any
    response: Any
    status: int = 200
    media: str = "application/json"
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    streams: bool = False

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Return Starlette's routes, one for each path."""
    paths: dict[str, dict[str, Handler]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method] = one.handler
    return [Route(path, _by_method(of), methods=list(of)) for path, of in paths.items()]


def _by_method(handlers: dict[str, Handler]) -> Handler:
    """Return a handler that passes a request on by its method; HEAD goes the way of GET."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle
