"""Errors of requests, each with its HTTP status: what happened, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from nano_runtime import BundleError, MachineError, NanoError, UsageError

__all__ = [
    "AddressError",
    "BadRequestError",
    "BusyError",
    "CancelledError",
    "CrowdedError",
    "DrawingError",
    "FolderError",
    "ForbiddenError",
    "MethodError",
    "NoTokenError",
    "NotFoundError",
    "OpeningError",
    "RequestError",
    "StoppingError",
    "TooLargeError",
    "TooSlowError",
    "UnknownScriptError",
    "WrongTypeError",
    "code_of",
    "status_of",
]

_INTERNAL, _UNAVAILABLE = 500, 503


class RequestError(UsageError):
    """A request that is not carried out.

    Attributes:
        status: of the answer.
        code: one word for programs.
    """

    status: int = 400
    code: str = "bad_request"

    def headers(self) -> dict[str, str]:
        """Return headers that the answer needs."""
        return {}


class BadRequestError(RequestError):
    """The request cannot be read.

    Args:
        what: is wrong.
        hint: what to send instead.
    """


class NoTokenError(RequestError):
    """The token is missing or wrong."""

    status = 401
    code = "no_token"

    def __init__(self) -> None:
        super().__init__(
            "this server wants a token, and the request has none or another one",
            "Send it as 'Authorization: Bearer TOKEN', or open /?token=TOKEN in a browser.",
        )

    def headers(self) -> dict[str, str]:
        """Name the scheme, as HTTP wants it."""
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """The request comes from a page of somebody else, or under a foreign name.

    Args:
        header: that says so.
        value: of it.
        flag: that would allow it.
    """

    status = 403
    code = "forbidden"

    def __init__(self, header: str, value: str, flag: str) -> None:
        super().__init__(
            f"requests with {header} {value[:100]!r} are refused, because a page of somebody else can cause them",
            f"If this is your own program or proxy, start nano-serve with {flag}.",
        )


class NotFoundError(RequestError):
    """There is no such route, job or picture.

    Args:
        what: is not there.
        hint: where to look.
    """

    status = 404
    code = "not_found"

    def __init__(self, what: str, hint: str = "/openapi.json lists all routes.") -> None:
        super().__init__(what, hint)


class MethodError(RequestError):
    """The route has no such method.

    Args:
        method: that was used.
        allowed: those that the route has.
    """

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        self._allowed = allowed
        super().__init__(f"this route has no method {method[:20]!r}", f"It has {allowed}.")

    def headers(self) -> dict[str, str]:
        """List the methods, as HTTP wants it."""
        return {"Allow": self._allowed}


class TooSlowError(RequestError):
    """The body did not arrive in time.

    Args:
        seconds: that it had.
    """

    status = 408
    code = "too_slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the body did not arrive within {seconds:g} seconds", "Send it at once.")

    def headers(self) -> dict[str, str]:
        """End the connection: what comes is no request."""
        return {"Connection": "close"}


class TooLargeError(RequestError):
    """The body is larger than the route takes.

    Args:
        most: bytes.
    """

    status = 413
    code = "too_large"

    def __init__(self, most: int) -> None:
        super().__init__(f"the body is larger than {most / 1e6:g} MB", "Send a smaller picture.")

    def headers(self) -> dict[str, str]:
        """End the connection: the rest of the body is not read."""
        return {"Connection": "close"}


class WrongTypeError(RequestError):
    """The body is not of the route's type.

    Args:
        wanted: the Content-Type.
    """

    status = 415
    code = "wrong_type"

    def __init__(self, wanted: str) -> None:
        super().__init__(f"the body has another Content-Type than {wanted}", f"Send it as {wanted}.")


class UnknownScriptError(RequestError):
    """A client wants an extension of A1111's web UI.

    Args:
        name: of the script.
    """

    status = 422
    code = "unknown_script"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no script {name[:100]!r} here", "Switch the extension off in your client.")


class BusyError(RequestError):
    """As many jobs wait as may wait.

    Args:
        waiting: their number.
        seconds: until one may have begun, about.
    """

    status = 429
    code = "queue_full"

    def __init__(self, waiting: int, seconds: float) -> None:
        self._seconds = max(1, min(120, round(seconds)))
        soon = "a second" if self._seconds == 1 else f"{self._seconds} seconds"
        many = "1 job is" if waiting == 1 else f"{waiting} jobs are"
        super().__init__(f"{many} waiting, no more may wait", f"Try again in {soon}.")

    def headers(self) -> dict[str, str]:
        """Say when to try again."""
        return {"Retry-After": str(self._seconds), "x-should-retry": "true"}


class CancelledError(RequestError):
    """Somebody cancelled the job while its client waited."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("the drawing was cancelled", "Ask again if that was not you.")


class DrawingError(RequestError):
    """A drawing failed.

    Args:
        status: of the answer.
        code: one word.
        what: happened.
        hint: what to do.
    """

    def __init__(self, status: int, code: str, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.status, self.code = status, code


class OpeningError(RequestError):
    """The bundles are still being opened."""

    status = 503
    code = "opening"

    def __init__(self) -> None:
        super().__init__("the server is opening its bundles", "Try again when /ready answers 200.")

    def headers(self) -> dict[str, str]:
        """Say when to try again."""
        return {"Retry-After": "5"}


class StoppingError(RequestError):
    """The server is being stopped."""

    status = 503
    code = "stopping"

    def __init__(self) -> None:
        super().__init__("the server is stopping", "Try again when it has started.")

    def headers(self) -> dict[str, str]:
        """Say when to try again."""
        return {"Retry-After": "5"}


class CrowdedError(RequestError):
    """Too many clients are connected."""

    status = 503
    code = "crowded"

    def __init__(self) -> None:
        super().__init__("too many connections are open", "Close some, or try again.")

    def headers(self) -> dict[str, str]:
        """Say when to try again, and close this one."""
        return {"Retry-After": "5", "Connection": "close"}


class FolderError(MachineError):
    """The folder of pictures cannot be used.

    Args:
        folder: it.
        error: in the system's words.
    """

    def __init__(self, folder: Path, error: OSError) -> None:
        why = str(error) if error.strerror is None else error.strerror
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        super().__init__(
            f"the folder of pictures, {folder}, cannot be used: {why}",
            f"{'Free some space, or choose' if full else 'Choose'} another with --history; --no-history keeps none.",
        )


class AddressError(MachineError):
    """The server cannot listen where it should.

    Args:
        host: name or address.
        port: number.
        error: in the system's words.
    """

    def __init__(self, host: str, port: int, error: OSError) -> None:
        other = "choose another with --port, or --port 0 for any that is free."
        hints = {
            errno.EADDRINUSE: f"Another program uses the port, perhaps another nano-serve: {other}",
            errno.EACCES: f"This port is for the system: {other}",
        }
        hint = hints.get(error.errno or 0, "Give --host an address of this machine, or leave it out.")
        super().__init__(f"cannot listen on {host}, port {port}: {error.strerror or error}", hint)


def status_of(error: NanoError) -> int:
    """Return the HTTP status of an error: 4xx for what the client can mend, 5xx for what it cannot."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, BundleError):
        return _INTERNAL
    return 400 if isinstance(error, UsageError) else _UNAVAILABLE


def code_of(error: NanoError) -> str:
    """Return one word for an error."""
    if isinstance(error, RequestError):
        return error.code
    kinds = {BundleError: "bundle", UsageError: "bad_value", MachineError: "machine"}
    return next((word for kind, word in kinds.items() if isinstance(error, kind)), "internal")
