"""The one thread that draws: takes rounds from the line, watches wishes after every UNet call, writes pictures."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from nano_runtime import DrawOptions, NanoError, Progress, Result, UsageError
from nano_serve.errors import code_of, status_of
from nano_serve.gallery import Gallery
from nano_serve.jobs import Failure, Job, Status
from nano_serve.line import Line, Part, Round
from nano_serve.shelf import Shelf, Shelved

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["News", "Worker"]

_JPEG_QUALITY: Final = 80
_REST_SECONDS: Final = 0.02  # for whoever shows the first preview, on processors that the engine else takes at once
_CALL_SECONDS: Final = 5.0  # that a UNet call of a job may take that nobody wants any more

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """Whom the worker tells; each is called in its thread and does not wait.

    Attributes:
        job: something about a job changed, beside its progress.
        progress: of a job, after a UNet call.
        preview: of a job's picture, by place.
        picture: is on the disk; it is the last of the job's.
        bundle: its graphs are loaded, or freed.
        watched: whether anybody looks at all previews.
        clean: takes paths of this machine out of a message.
    """

    job: Callable[[Job], None]
    progress: Callable[[Job], None]
    preview: Callable[[Job, int], None]
    picture: Callable[[Job], None]
    bundle: Callable[[Shelved], None]
    watched: Callable[[], bool]
    clean: Callable[[str], str]


class Worker(threading.Thread):
    """Draws until it is stopped.

    Args:
        line: of jobs.
        shelf: of bundles.
        gallery: for the pictures.
        news: whom to tell.
        keep_seconds: that graphs stay loaded with nothing to draw; None keeps them.
    """

    def __init__(self, line: Line, shelf: Shelf, gallery: Gallery, news: News, keep_seconds: float | None) -> None:
        super().__init__(name="nano-serve-worker", daemon=True)
        self._line = line
        self._shelf = shelf
        self._gallery = gallery
        self._news = news
        self._keep_seconds = keep_seconds
        self._stopping = threading.Event()
        self.current: tuple[Job, ...] = ()

    def run(self) -> None:
        """Draw round after round; free the graphs when nothing came for long enough."""
        while not self._stopping.is_set():
            try:
                self._go_on()
            except Exception:  # noqa: BLE001, PERF203 - a bug must not end the thread that draws
                _log.exception("the worker goes on with the next job")

    def _go_on(self) -> None:
        """Wait for a round and draw it, or free the graphs."""
        loaded = self._shelf.loaded
        following = self._line.take(None if loaded is None else self._keep_seconds)
        if following is not None:
            self.current = following.jobs
            self._draw_safely(following)
            self._line.returned(following)
            self._finish(following)
            self.current = ()
        elif loaded is not None and not self._stopping.is_set():
            self._free(loaded)

    def stop(self, seconds: float) -> bool:
        """Ask the thread to end after the UNet call under way; return whether it did in time.

        An engine in a process of its own that takes longer is ended.
        """
        self._stopping.set()
        for job in self._line.close():
            self._end(job, "cancelled")
        self.join(seconds)
        if self.is_alive() and self._kill():
            self.join(seconds)
        return not self.is_alive()

    def free(self) -> None:
        """Have the graphs freed as soon as there is nothing to draw."""
        self._line.wake()

    def heed(self, job: Job) -> None:
        """Have a job that is not wanted any more let go of the engine, if that is in a process of its own.

        While it loads or compiles there is no UNet call after which to stop: it is ended at once, and otherwise when it
        does not come back in time. A job that others share UNet calls with ends none of theirs.
        """
        loaded = self._shelf.loaded
        if loaded is not None and loaded.state == "loading":
            self._let_go(job)
        else:
            clock = threading.Timer(_CALL_SECONDS, self._let_go, [job])
            clock.daemon = True
            clock.start()

    def _let_go(self, job: Job) -> None:
        current = self.current
        if job in current and not job.ended and all(one.unwanted for one in current):
            self._kill()

    def _kill(self) -> bool:
        """End the engine's process; return whether it has one."""
        loaded = self._shelf.loaded
        if loaded is None:
            return False
        try:
            loaded.pipeline.kill()
        except UsageError:
            return False
        return True

    def _draw_safely(self, drawn: Round) -> None:
        """Draw a round; whatever goes wrong ends its jobs and not the thread."""
        try:
            self._draw(drawn)
        except Exception as error:  # noqa: BLE001 - a bug of ours, or of an engine, must not end the server
            self._free(self._shelf.at(drawn.jobs[0].bundle))  # an engine that failed is not relied on
            if len(drawn.jobs) > 1:
                self._line.put_back(self._left(drawn))  # to find the one whose fault it is
                return
            for job in drawn.jobs:
                if job.unwanted or self._stopping.is_set():
                    continue
                job.failure = self._failure(error)
                self._line.remove(job)
                self._end(job, "failed")

    def _draw(self, drawn: Round) -> None:
        """Draw a round, and tell of everything that happens."""
        self._begin(drawn)
        shelved = self._made_ready(drawn)
        stream = shelved.pipeline.stream(_options(drawn.parts))
        began: float | None = None
        for event in stream:
            if isinstance(event, Result):
                self._keep(drawn, event)
                break
            if shelved.state != "loaded":
                shelved.state = "loaded"
                self._news.bundle(shelved)
            self._told(drawn, event, began)
            began = time.monotonic() if began is None else began
            self._heed(drawn, event, shelved)

    def _finish(self, drawn: Round) -> None:
        """End the jobs of a round that have nothing more to do."""
        for job in drawn.jobs:
            job.skipped = False
            if job.unwanted or self._stopping.is_set():
                self._line.remove(job)
                self._end(job, "cancelled")
            elif job.interrupted or len(job.pictures) == len(job.seeds):
                self._line.remove(job)
                self._end(job, "completed")

    def _begin(self, drawn: Round) -> None:
        for job in drawn.jobs:
            job.started = time.time() if job.started is None else job.started
            self._news.job(job)

    def _made_ready(self, drawn: Round) -> Shelved:
        """Return the round's bundle; the graphs of any other are freed."""
        shelved = self._shelf.at(drawn.jobs[0].bundle)
        if (other := self._shelf.loaded) is not None and other is not shelved:
            self._free(other)
        if shelved.state != "loaded":
            shelved.state = "loading"
            self._news.bundle(shelved)
            for job in drawn.jobs:
                job.loading = True
                self._news.progress(job)
        return shelved

    def _free(self, shelved: Shelved) -> None:
        shelved.state = "idle"
        shelved.pipeline.close()
        self._news.bundle(shelved)

    def _told(self, drawn: Round, event: Progress, began: float | None) -> None:
        """Note the progress of every picture, and its preview if somebody looks.

        After the first previews the engine rests. A browser on the same processors shows them after 80 ms then, and
        after 170 ms without.
        """
        parts = [drawn.parts[place] for place in event.pictures]
        images = event.preview() if self._watched(parts) and _shows(event) else []
        for number, part in enumerate(parts):
            job = part.job
            job.loading = False
            job.done = {**job.done, part.place: event.step_index + 1}
            if images:
                job.previews = {**job.previews, part.place: _jpeg(images[number])}
                self._news.preview(job, part.place)
        for job in dict.fromkeys(part.job for part in parts):
            if began is not None and event.call > 1:
                job.seconds_per_call = (time.monotonic() - began) / ((event.call - 1) * len(parts))
            self._news.progress(job)
        if images and event.call == 1:
            self._stopping.wait(_REST_SECONDS)

    def _watched(self, parts: list[Part]) -> bool:
        return self._news.watched() or any(part.job.watched for part in parts)

    def _heed(self, drawn: Round, event: Progress, shelved: Shelved) -> None:
        """Carry out what was wished for since the last UNet call."""
        if self._stopping.is_set():
            event.cancel()
        unwanted = [number for number, part in enumerate(drawn.parts) if part.job.unwanted]
        if unwanted:
            event.cancel(*unwanted)
        if all(job.interrupted or job.skipped for job in drawn.jobs):
            shelved.pipeline.interrupt = True

    def _keep(self, drawn: Round, result: Result) -> None:
        """Write the pictures of a round; each is told of when it is on the disk.

        One that was skipped may have pictures that have not begun: those with longer prompts begin after the others.
        """
        for place, image, parameters in zip(result.pictures, result.images, result.parameters, strict=True):
            part = drawn.parts[place]
            picture = self._gallery.add(image, parameters, part.job.id, part.place)
            part.job.previews = {key: one for key, one in part.job.previews.items() if key != part.place}
            part.job.pictures = (*part.job.pictures, picture)
            self._news.picture(part.job)
        waiting = tuple(one for one in self._left(drawn) if not one.job.unwanted and not one.job.interrupted)
        if waiting:
            self._line.put_back(waiting)

    def _left(self, drawn: Round) -> tuple[Part, ...]:
        """Return the pictures of a round that are not on the disk and still wanted."""
        kept = {(picture.job, picture.place) for job in drawn.jobs for picture in job.pictures}
        return tuple(p for p in drawn.parts if (p.job.id, p.place) not in kept and not p.job.ended)

    def _end(self, job: Job, status: Status) -> None:
        if job.end(status):
            self._news.job(job)

    def _failure(self, error: Exception) -> Failure:
        """Describe an error without what only this machine's user should see."""
        if isinstance(error, NanoError):
            what, hint = self._news.clean(error.what), self._news.clean(error.hint)
            return Failure(status_of(error), code_of(error), what, hint)
        if isinstance(error, MemoryError):
            return Failure(503, "machine", "this machine ran out of memory", "Close other programs.")
        _log.error("drawing failed", exc_info=error)
        return Failure(500, "internal", "drawing failed", "The server's log says why.")


def _options(parts: tuple[Part, ...]) -> DrawOptions:
    """Return the options that draw parts of jobs which agree in all but prompts and seeds."""
    first, of = parts[0].job, parts[0].job.options
    prompts = [str(part.job.options.prompt) for part in parts]
    negatives = [str(part.job.options.negative_prompt or "") for part in parts]
    joined = replace(of, prompt=prompts, negative_prompt=negatives, num_images_per_prompt=1)
    if first.variation_seeds is None:
        return replace(joined, seed=[part.job.seeds[part.place] for part in parts])
    return replace(joined, seed=first.seeds[0], variation_seed=first.variation_seeds[parts[0].place])


def _shows(event: Progress) -> bool:
    """Return whether the bundle can show previews."""
    return event.preview_weights is not None or event.decode is not None


def _jpeg(image: Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
