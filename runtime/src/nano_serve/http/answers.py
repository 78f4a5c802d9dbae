"""Answers: JSON, errors in the form that the clients of each API show, and the page that asks for the token."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Any, Final

import msgspec
from starlette.responses import Response

from nano_runtime import NanoError
from nano_serve.errors import NoTokenError, RequestError, code_of, status_of
from nano_serve.shapes import ErrorShape, FlatErrorShape

__all__ = ["JsonAnswer", "error_answer", "error_shape", "problem", "token_answer"]

_TOKEN_PAGE: Final = files(__package__).joinpath("token.html").read_text(encoding="utf-8")
_STYLE: Final = _TOKEN_PAGE.partition("<style>")[2].partition("</style>")[0]
_STYLE_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_TOKEN_CSP: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_SDAPI: Final = "/sdapi/"
_SERVER: Final = 500


class JsonAnswer(Response):
    """An answer in JSON, made by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - whatever can be written as JSON
        """Return the body."""
        return msgspec.json.encode(content)


def error_shape(path: str) -> type[ErrorShape | FlatErrorShape]:
    """Return the form of errors of a path."""
    return FlatErrorShape if path.startswith(_SDAPI) else ErrorShape


def error_answer(error: NanoError, path: str, message: str | None = None) -> Response:
    """Return the answer to a request that failed.

    Args:
        error: why.
        path: of the request: A1111's clients want another form.
        message: instead of the error's own.
    """
    headers = error.headers() if isinstance(error, RequestError) else {}
    text = f"{error.what}. {error.hint}" if message is None else message
    return problem(status_of(error), code_of(error), text, path, headers)


def token_answer(*, wrong: bool) -> Response:
    """Return the small page on which somebody types the token; it loads nothing and runs no script.

    Args:
        wrong: a token was given, and it is another one.
    """
    error = NoTokenError()
    said = "This is not the server\u2019s token." if wrong else ""
    text = _TOKEN_PAGE.replace("<!-- what is wrong -->", said)
    headers = {**error.headers(), "content-security-policy": _TOKEN_CSP}
    return Response(text, error.status, headers, media_type="text/html")


def problem(status: int, code: str, message: str, path: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the form of the API that a path belongs to.

    OpenAI's clients repeat requests that ended with 5xx, unless they are told not to; only a busy or stopping server is
    worth another try.
    """
    sent = dict(headers or {})
    if status >= _SERVER and "Retry-After" not in sent:
        sent["x-should-retry"] = "false"
    if error_shape(path) is FlatErrorShape:
        return JsonAnswer(FlatErrorShape(error=code, detail=message, body="", errors=message), status, sent)
    kind = "server_error" if status >= _SERVER else "invalid_request_error"
    shape = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JsonAnswer(msgspec.convert(shape, ErrorShape), status, sent)
