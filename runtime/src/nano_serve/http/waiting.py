"""Waits for a job on behalf of a client of a compatible API; when the client leaves, the job is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from starlette.requests import Request

from nano_serve.errors import CancelledError, DrawingError, StoppingError
from nano_serve.hub import Listener
from nano_serve.jobs import Job
from nano_serve.studio import Studio

__all__ = ["ended", "finished", "until_gone"]

_AGAIN_SECONDS: Final = 0.05


async def _gone(request: Request) -> None:
    """Return when the client has left. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_gone(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Do work until it ends or the client leaves; what is left of it is cancelled, and its errors are not told."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            await _ended(task)


async def _ended(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for its end, which may be an error that nobody is told.

    Until Python 3.12, ``asyncio.wait_for`` swallows a cancellation that comes at the moment when what it waits for is
    done; the task then goes on as if nothing had been. So it is cancelled until it ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()


async def finished(request: Request, studio: Studio, job: Job) -> None:
    """Wait until a job is completed.

    Raises:
        CancelledError: somebody cancelled it, or the client has left.
        StoppingError: the server stops.
        DrawingError: it failed.
    """
    with studio.hub.listening(job.id) as listener:
        try:
            await until_gone(request, _until_ended(job, listener))
        finally:
            if not job.ended:
                studio.cancel(job)
    ended(studio, job)


def ended(studio: Studio, job: Job) -> None:
    """Raise the error of a job that did not complete.

    Raises:
        CancelledError: somebody cancelled it.
        StoppingError: the server stops.
        DrawingError: it failed.
    """
    if job.failure is not None:
        raise DrawingError(job.failure.status, job.failure.code, job.failure.what, job.failure.hint)
    if job.status != "completed":
        raise StoppingError if studio.stopping else CancelledError


async def _until_ended(job: Job, listener: Listener) -> None:
    while not job.ended:
        await listener.next()
