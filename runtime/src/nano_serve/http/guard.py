"""Decides before any route whether a request may be answered: name, origin, token; and marks every answer.

A page of somebody else can send requests to this machine. It cannot choose their ``Host``, unless its own name leads
here (DNS rebinding), nor leave out ``Origin`` where it could do harm. Both are compared with what this server is
called. The token, if there is one, is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nano_serve.errors import BadRequestError, ForbiddenError, NoTokenError, RequestError
from nano_serve.http.answers import error_answer, token_answer

__all__ = ["CSP", "Access", "Guard", "client_of"]

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NAMES: Final = ("localhost", "127.0.0.1", "[::1]", "host.docker.internal")
_OPEN_ROUTES: Final = frozenset({"/health", "/ready"})
_COOKIE: Final = "nano_serve"
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_USUAL_PORTS: Final = (80, 443)  # of http and https
_METHODS: Final = "GET, HEAD, POST, DELETE, OPTIONS"
_ALLOWED_HEADERS: Final = "authorization, content-type, x-api-key"
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that requests must carry; None wants none.
        hosts: further names of this server, with or without a port; those without are taken with its own port.
        origins: pages of other servers that may use the API, as "http://name:port".
    """

    token: str | None = None
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()


class Guard:
    """The outermost layer of the application.

    Args:
        app: that answers what is let through.
        access: who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._digest = None if access.token is None else _digest(access.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin")
        foreign = origin if origin in self._access.origins else None

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if foreign is not None:
                    headers["access-control-allow-origin"] = foreign
                    headers["access-control-expose-headers"] = "location, retry-after, x-nano-drawn, x-nano-bundle"
                    headers["vary"] = "origin"
                    headers["cross-origin-resource-policy"] = "cross-origin"
            await send(message)

        if scope["path"].startswith("/"):
            scope["path"] = "/" + scope["path"].strip("/")  # A1111's clients add slashes, before and behind
        try:
            answer = self._answer(scope, foreign)
        except NoTokenError as error:
            wrong = "token" in _query(scope)
            answer = token_answer(wrong=wrong) if _opens_page(scope) else error_answer(error, scope["path"])
        except RequestError as error:
            answer = error_answer(error, scope["path"])
        with suppress(Exception):  # Starlette has answered and logged it, and raises it again for tests
            await (self._app if answer is None else answer)(scope, receive, marked)

    def _answer(self, scope: Scope, foreign: str | None) -> Response | None:
        """Return the answer to a request that no route sees; None lets it through.

        Raises:
            RequestError: it is refused.
        """
        headers = Headers(scope=scope)
        self._check_origin(headers, scope, self._origins_of_ours(headers, scope))
        if scope["method"] == "OPTIONS":
            return _preflight(foreign)
        if self._digest is None:
            return None
        query = _query(scope)
        if scope["path"] == "/" and "token" in query:
            return self._login(query["token"][0].replace(" ", "+"), scope)  # a plus sign that nobody has quoted
        if scope["path"] not in _OPEN_ROUTES and not self._has_token(headers, scope):
            raise NoTokenError
        return None

    def _origins_of_ours(self, headers: Headers, scope: Scope) -> set[str]:
        """Return the origins that our own page has under the one ``Host`` of a request, if that is a name of ours.

        A name that was allowed with its port is a proxy's, which may speak TLS; browsers leave out its 80 or 443.

        Raises:
            BadRequestError: there is none, or two, or the target is no path.
            ForbiddenError: it is a foreign name, or another port.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not scope["path"].startswith("/"):
            raise BadRequestError("the request has not one Host and a path", "Send HTTP/1.1 to this server itself.")
        found = _HOST.fullmatch(hosts[0].lower())
        port = scope["server"][1]
        if found is not None:
            name, asked, host = found["name"], int(found["port"] or "80"), hosts[0].lower()
            own = {one.lower() for one in self._access.hosts}
            if own & {f"{name}:{one}" for one in ([asked] if found["port"] else _USUAL_PORTS)}:
                return {f"http://{host}", f"https://{host}"}
            if asked == port and (name in _NAMES or name in own):
                return {f"{scope['scheme']}://{host}"}
        raise ForbiddenError("Host", hosts[0], "--allow-host NAME[:PORT]")

    def _check_origin(self, headers: Headers, scope: Scope, own: set[str]) -> None:
        """Refuse requests that a page of another server causes.

        Raises:
            ForbiddenError: it is one.
        """
        origins = headers.getlist("origin")
        for origin in origins:
            if len(origins) > 1 or (origin.lower() not in own and origin not in self._access.origins):
                raise ForbiddenError("Origin", origin, "--allow-origin ORIGIN")
        site = headers.get("sec-fetch-site", "none")
        opened = scope["method"] in {"GET", "HEAD"} and scope["path"] == "/"
        opened = opened and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if site not in {"none", "same-origin"} and not origins and not opened:
            raise ForbiddenError("Sec-Fetch-Site", site, "--allow-origin ORIGIN")

    def _has_token(self, headers: Headers, scope: Scope) -> bool:
        """Return whether a request carries the token, in any of the forms that clients send."""
        given = [headers.get("x-api-key", "")]
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            given.append(value.strip())
        elif kind.lower() == "basic":
            given.append(_password(value))
        cookie = Request(scope).cookies.get(_COOKIE, "")
        wanted = str(self._digest)
        return any([*(hmac.compare_digest(_digest(one), wanted) for one in given), _same(cookie, wanted)])

    def _login(self, token: str, scope: Scope) -> Response:
        """Set the cookie, and take the token out of the address.

        Raises:
            NoTokenError: it is another one.
        """
        if not hmac.compare_digest(_digest(token), str(self._digest)):
            raise NoTokenError
        answer = RedirectResponse("/", 303)
        secure = scope["scheme"] == "https"
        answer.set_cookie(_COOKIE, str(self._digest), path="/", httponly=True, samesite="strict", secure=secure)
        return answer


def client_of(request: Request) -> str:
    """Return who asks, for fairness: programs on one machine differ by their User-Agent."""
    address = "" if request.client is None else request.client.host
    return f"{address} {request.headers.get('user-agent', '')[:80]}"


def _preflight(foreign: str | None) -> Response:
    """Answer ``OPTIONS``: to an allowed page what it may send; to a program, which pings with it, that we are here."""
    headers = {"allow": _METHODS}
    if foreign is not None:
        headers |= {"access-control-allow-methods": _METHODS, "access-control-allow-headers": _ALLOWED_HEADERS}
    return Response(status_code=204, headers=headers)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))


def _opens_page(scope: Scope) -> bool:
    """Return whether a browser opens the page; programs ask for JSON, or for anything."""
    accepted = Headers(scope=scope).get("accept", "").lower()
    return scope["method"] == "GET" and scope["path"] == "/" and "text/html" in accepted


def _digest(token: str) -> str:
    return hashlib.sha256(b"nano-serve " + token.encode("utf-8", "replace")).hexdigest()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _password(value: str) -> str:
    """Return the password of Basic credentials, with any user; empty if there is none."""
    try:
        return b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
