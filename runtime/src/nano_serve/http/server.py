"""Listens on loopback under both its addresses, serves until a signal, and stops within seconds."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket  # noqa: TID251 - the one door to the network, and it only listens
from collections.abc import Callable, Sequence
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from nano_serve.errors import AddressError
from nano_serve.http.patience import Crowd, PatientProtocol
from nano_serve.studio import Studio

__all__ = ["Server", "is_loopback", "listen", "serve"]

_DRAIN_SECONDS: Final = 1  # for answers that are being written
_WORKER_SECONDS: Final = 2.0  # for the UNet call under way
_BACKLOG: Final = 128
_LOOPBACK: Final = ("127.0.0.1", "::1")

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    return host in {"localhost", *_LOOPBACK} or host.startswith("127.")


def listen(host: str, port: int) -> list[socket.socket]:
    """Open the sockets: for ``localhost`` both of its addresses, because programs try either first.

    Args:
        host: name or address.
        port: number; 0 takes any that is free.

    Raises:
        AddressError: the address is not one of this machine, or the port is taken.
    """
    hosts = _LOOPBACK if host == "localhost" else (host,)
    opened: list[socket.socket] = []
    for one in hosts:
        try:
            opened.append(_socket(one, opened[0].getsockname()[1] if opened else port))
        except OSError as error:  # noqa: PERF203 - of two at most
            if opened and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                continue  # a machine without IPv6
            for other in opened:
                other.close()
            raise AddressError(one, port, error.strerror or str(error)) from error
    return opened


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def serve(app: ASGIApp, studio: Studio, sockets: Sequence[socket.socket], started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Streams end with ``bye``, the UNet call under way is finished if that is quick, and whole pictures are written.
    Where an engine hangs in one call, or compiles for minutes, the process ends without it: nothing unfinished has a
    name.

    Args:
        app: answers.
        studio: draws; it is started and stopped here.
        sockets: that listen.
        started: is called when requests are accepted.
    """
    server = Server(app, studio, started)
    server.run_on(sockets)
    if not server.worker_ended:
        _log.warning("an engine did not come back; the process ends without it")
        logging.shutdown()
        os._exit(0)


class Server(uvicorn.Server):
    """Starts the studio, and stops it before the connections, so that streams end by themselves.

    Args:
        app: answers.
        studio: draws.
        started: is called when requests are accepted.
    """

    def __init__(self, app: ASGIApp, studio: Studio, started: Callable[[], None]) -> None:
        crowd = Crowd(app)
        super().__init__(
            uvicorn.Config(
                crowd,
                http=PatientProtocol,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
                h11_max_incomplete_event_size=16384,
            )
        )
        crowd.connections = self.server_state.connections
        self._studio = studio
        self._told = started
        self.worker_ended = True

    def run_on(self, sockets: Sequence[socket.socket]) -> None:
        """Serve until ``should_exit`` is set, or a signal comes to the main thread."""
        self._studio.start()
        asyncio.run(self.serve(list(sockets)))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop drawing, end streams, close connections."""
        self.worker_ended = await asyncio.to_thread(self._studio.stop, _WORKER_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - of signal handlers
        """Stop at the first signal; at the second, at once."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        self.should_exit = True
