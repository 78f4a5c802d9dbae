"""The server without HTTP: takes jobs, cancels them, and says what there is; every API stands on it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nano_runtime import DrawOptions
from nano_serve import views
from nano_serve.errors import BadRequestError, FolderError, NotFoundError, StoppingError
from nano_serve.gallery import Gallery
from nano_serve.hub import Hub
from nano_serve.jobs import Job, Wish
from nano_serve.journal import Journal
from nano_serve.line import Line
from nano_serve.metrics import Metrics
from nano_serve.notes import notes_of, warnings
from nano_serve.shapes import BundleShape, JobShape, Limits
from nano_serve.shelf import Open, Shelf, Shelved
from nano_serve.worker import News, Worker

__all__ = ["Settings", "Studio"]

_KEPT_JOBS: Final = 200  # that have ended, to be looked at
_SEED_BITS: Final = 32  # of random seeds: JavaScript keeps them exact


@dataclass(frozen=True)
class Settings:
    """The choices of whoever starts the server.

    Attributes:
        bundles: folders; the first is the default.
        history: folder for finished pictures.
        queue: jobs that may wait.
        pictures: most pictures of one job.
        keep_seconds: that graphs stay loaded with nothing to draw; None keeps them.
        history_bytes: of all finished pictures together; None sets no limit.
    """

    bundles: Sequence[Path]
    history: Path
    queue: int = 16
    pictures: int = 100
    keep_seconds: float | None = 300.0
    history_bytes: int | None = None


class Studio:
    """Draws what it is asked for. All threads may use it.

    Args:
        settings: of the server.
        opened: opens a bundle.

    Raises:
        NanoError: a bundle cannot be opened.
        FolderError: the folder of pictures cannot be used.
    """

    def __init__(self, settings: Settings, opened: Open) -> None:
        self.shelf = Shelf(settings.bundles, opened)
        try:
            self.gallery = Gallery(settings.history, settings.history_bytes)
            self.journal = Journal(settings.history / "waiting")
        except OSError as error:
            raise FolderError(settings.history, error) from error
        self.hub = Hub()
        self.metrics = Metrics()
        self.line = Line(settings.queue)
        self.limits = Limits(pictures=settings.pictures, queue=settings.queue)
        self.stopping = False
        self._loading = 0.0
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque()
        self._folders = [str(path.resolve()) for path in (*settings.bundles, settings.history)]
        news = News(
            job=self._job_changed,
            progress=self._progressed,
            preview=self._previewed,
            picture=self._drawn,
            bundle=self._bundle_changed,
            watched=lambda: self.hub.heard,
            clean=self.clean,
        )
        self.worker = Worker(self.line, self.shelf, self.gallery, news, settings.keep_seconds)

    def start(self) -> None:
        """Begin to draw."""
        self.worker.start()

    def stop(self, seconds: float) -> bool:
        """Stop drawing; return whether the worker's thread has ended in time."""
        self.stopping = True
        ended = self.worker.stop(seconds)
        self.journal.close()
        self.hub.publish("bye", "bye", {})
        return ended

    def submit(self, options: DrawOptions, shelved: Shelved, wish: Wish) -> Job:
        """Check options and let a job wait.

        Args:
            options: of the job; without a seed it gets a random one.
            shelved: the bundle that draws.
            wish: of the client.

        Raises:
            UsageError: the options cannot be drawn, or too many jobs wait.
        """
        if self.stopping:
            raise StoppingError
        self.counted(options.num_images_per_prompt)
        if options.seed is None:
            options = replace(options, seed=self.random_seed())
        with warnings() as heard:
            plan = shelved.pipeline.plan(options)
        variation = None if plan.variation is None else plan.variation.seeds
        calls = len(plan.timesteps) - plan.first_call
        notes = (*heard, *notes_of(shelved, options, plan))
        job = Job(wish, shelved.bundle.digest, options, plan.seeds, variation, calls, notes)
        with self._lock:
            self._jobs[job.id] = job
        try:
            if wish.request is not None:
                self._keep(job.id, wish.request)
            self.line.add(job)
        except BaseException:
            self.journal.forget(job.id)
            with self._lock:
                del self._jobs[job.id]
            raise
        self._job_changed(job)
        return job

    def counted(self, pictures: int) -> int:
        """Return a number of pictures that one job may have.

        Raises:
            BadRequestError: it is none.
        """
        if not 1 <= pictures <= self.limits.pictures:
            raise BadRequestError(f"{pictures} pictures are asked for", f"Ask for 1 to {self.limits.pictures}.")
        return pictures

    def _keep(self, name: str, request: bytes) -> None:
        try:
            self.journal.keep(name, request)
        except OSError as error:
            raise FolderError(self.gallery.folder, error) from error

    def random_seed(self) -> int:
        """Return a random seed that JavaScript's numbers can hold."""
        return secrets.randbits(_SEED_BITS)

    def job(self, name: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._lock:
            found = self._jobs.get(name)
        if found is None:
            raise NotFoundError(f"there is no job {name[:40]!r}", "GET /api/v1/jobs lists them.")
        return found

    def cancel(self, job: Job) -> None:
        """Cancel a job: after the UNet call under way, or at once if none is."""
        job.unwanted = True
        if not self.line.remove(job):
            self.worker.heed(job)
        elif job.end("cancelled"):
            self._job_changed(job)

    def interrupt(self, job: Job) -> None:
        """Decode what is there after the UNet call under way; a job that still waits is cancelled."""
        job.interrupted = True
        if job.status == "queued":
            self.cancel(job)

    def jobs(self) -> list[Job]:
        """Return waiting, running and ended jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def described(self, job: Job) -> JobShape:
        """Return a job as clients see it."""
        position = self.line.positions().get(job.id, 0)
        return views.job_of(job, self.shelf.at(job.bundle).title, position, self.gallery)

    def bundles(self) -> list[BundleShape]:
        """Return all bundles as clients see them, the default first."""
        return [views.bundle_of(one) for one in self.shelf]

    def clean(self, message: str) -> str:
        """Take this machine's folders out of a message."""
        for folder in self._folders:
            message = message.replace(folder, Path(folder).name)
        return message.replace(str(Path.home()), "~")

    def delete_picture(self, name: str) -> None:
        """Delete a picture.

        Raises:
            NotFoundError: there is none of this id.
        """
        try:
            self.gallery.delete(name)
        except OSError as error:
            raise FolderError(self.gallery.folder, error) from error
        self._tell_deleted(name)

    def _tell_deleted(self, name: str) -> None:
        self.hub.publish("picture_deleted", ("picture_deleted", name), {"id": name})

    def _job_changed(self, job: Job) -> None:
        if job.ended:
            self._measure(job)
            if not self.stopping:  # what is cancelled by that is told of at the next start
                self.journal.forget(job.id)
            with self._lock:
                self._ended.append(job.id)
                while len(self._ended) > _KEPT_JOBS:
                    self._jobs.pop(self._ended.popleft(), None)
        self.hub.publish("job", ("job", job.id), self.described(job), job.id)

    def _measure(self, job: Job) -> None:
        """Count a job that has ended; what it took says how long those wait that come."""
        self.metrics.count("nano_jobs_total", outcome=job.status)
        if job.started is not None and job.completed is not None:
            self.metrics.observe("nano_queue_wait_seconds", job.started - job.created)
            self.metrics.observe("nano_draw_seconds", job.completed - job.started)
            self.line.seconds_per_job = job.completed - job.started

    def _progressed(self, job: Job) -> None:
        self.hub.publish("progress", ("progress", job.id), views.progress_of(job), job.id)

    def _previewed(self, job: Job, place: int) -> None:
        data = {"job": job.id, "picture": place, "image": views.data_url(job.previews[place])}
        self.hub.publish("preview", ("preview", job.id, place), data, job.id)

    def _drawn(self, job: Job) -> None:
        picture = job.pictures[-1]
        self.metrics.count("nano_pictures_total")
        self.hub.publish("picture", ("picture", picture.id), views.picture_of(picture), job.id)
        self._job_changed(job)
        kept = {one.id for other in self.jobs() if not other.ended for one in other.pictures}
        for name in self.gallery.trim(kept):
            self._tell_deleted(name)

    def _bundle_changed(self, shelved: Shelved) -> None:
        if shelved.state == "loading":
            self._loading = time.monotonic()
        elif shelved.state == "loaded":
            self.metrics.observe("nano_load_seconds", time.monotonic() - self._loading)
        self.hub.publish("bundle", ("bundle", shelved.bundle.digest), views.bundle_of(shelved))
