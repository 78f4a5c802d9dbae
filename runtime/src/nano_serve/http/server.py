"""Listens on loopback under both its addresses, serves until a signal, and stops within seconds."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket  # noqa: TID251 - the one door to the network, and it only listens
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import uvicorn
from starlette.types import ASGIApp

from nano_serve.errors import AddressError
from nano_serve.http.guard import Access
from nano_serve.http.opening import Opening
from nano_serve.http.patience import Crowd, PatientProtocol

if TYPE_CHECKING:
    from nano_serve.studio import Studio  # its imports take half a second: they wait until requests are accepted

__all__ = ["Opened", "Server", "is_loopback", "listen", "serve"]

Opened: TypeAlias = Callable[[], "tuple[ASGIApp, Studio]"]
"""Opens the bundles, and returns the application and what draws for it."""

_DRAIN_SECONDS: Final = 1  # for answers that are being written
_WORKER_SECONDS: Final = 2.0  # for the UNet call under way
_BACKLOG: Final = 128
_TICK_SECONDS: Final = 1.0  # between two new ``Date`` headers
_LOOPBACK: Final = ("127.0.0.1", "::1")

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; of another name nobody can be sure."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
            raise AddressError(one, port, error) from error
        except (TypeError, ValueError) as error:
            raise AddressError(one, port, OSError("this is no name of a machine")) from error
    return opened


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP; else every answer after the first
    # on a connection waits 40 ms for an acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


def serve(sockets: Sequence[socket.socket], access: Access, opened: Opened, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Requests are accepted at once, while the bundles are opened in another thread.
    Streams end with ``bye``, the UNet call under way is finished if that is quick, and whole pictures are written.
    Where an engine hangs in one call, or compiles for minutes, the process ends without it: nothing unfinished has a
    name.

    Args:
        sockets: that listen.
        access: who may ask.
        opened: opens the bundles; what draws is started and stopped here.
        started: is called when all routes are there.

    Raises:
        NanoError: the bundles cannot be opened.
    """
    server = Server(access, opened, started)
    server.run_on(sockets)
    if not server.worker_ended:
        _log.warning("an engine did not come back; the process ends without it")
        logging.shutdown()
        os._exit(0)
    if server.failure is not None:
        raise server.failure


class Server(uvicorn.Server):
    """Starts the studio, and stops it before the connections, so that streams end by themselves.

    Args:
        access: who may ask.
        opened: opens the bundles.
        started: is called when all routes are there.

    Attributes:
        worker_ended: whether no thread of ours runs any more.
        failure: why the bundles could not be opened; None if they could.
    """

    def __init__(self, access: Access, opened: Opened, started: Callable[[], None]) -> None:
        self._opening = Opening(access)
        crowd = Crowd(self._opening)
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
        self._open = opened
        self._opener = threading.Thread(target=self._opened, name="nano-serve-opener", daemon=True)
        self._studio: Studio | None = None
        self._told = started
        self.worker_ended = True
        self.failure: BaseException | None = None

    def run_on(self, sockets: Sequence[socket.socket]) -> None:
        """Serve until ``stop`` is called, or a signal comes to the main thread."""
        asyncio.run(self.serve(list(sockets)))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See ``run_on``."""
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests, and to open the bundles."""
        await super().startup(sockets)
        self._opener.start()

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own looks for it ten times a second, which keeps a processor from sleeping."""
        while not await self.on_tick(0):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TICK_SECONDS)

    def stop(self) -> None:
        """Ask the server to stop, from any thread."""
        self.should_exit = True
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._woken.set)

    def _opened(self) -> None:
        """Open the bundles, in a thread of its own; what goes wrong ends the server."""
        try:
            app, studio = self._open()
        except BaseException as error:  # noqa: BLE001 - raised again by ``serve``
            self.failure = error
            self.stop()
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._begin, app, studio)

    def _begin(self, app: ASGIApp, studio: Studio) -> None:
        """Begin to draw."""
        self._studio = studio
        studio.start()
        self._opening.opened(app)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop drawing, end streams, close connections."""
        await asyncio.to_thread(self._opener.join, _WORKER_SECONDS)
        if self._studio is None:
            self.worker_ended = not self._opener.is_alive()
        else:
            self.worker_ended = await asyncio.to_thread(self._studio.stop, _WORKER_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - of signal handlers
        """Stop at the first signal; at the second, at once."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        self.stop()
