"""A job: pictures that somebody asked for, what is known of them by now, and those that were drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from nano_runtime import DrawOptions
from nano_serve.gallery import Picture

__all__ = ["ENDED", "Failure", "Job", "Status", "Wish", "new_id"]

Status: TypeAlias = Literal["queued", "generating", "completed", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


def new_id() -> str:
    """Return 32 random hexadecimal digits."""
    return uuid4().hex


@dataclass(frozen=True)
class Failure:
    """An error as the client is told it.

    Attributes:
        status: of an HTTP answer.
        code: one word.
        what: happened, without paths of this machine.
        hint: what to do.
    """

    status: int
    code: str
    what: str
    hint: str

    @property
    def message(self) -> str:
        """Both in one."""
        return f"{self.what}. {self.hint}"


@dataclass(frozen=True)
class Wish:
    """Whose job it is, and how it is to be treated.

    Attributes:
        client: who asks, for fairness.
        asked: the options that were given, for people; without pictures.
        group: its pictures share UNet calls only within the group, whose jobs are interrupted together; None is that
            of all jobs that cannot be interrupted.
        watched: somebody looks at its previews.
        request: what the journal keeps until the job has ended; None keeps nothing.
    """

    client: str
    asked: Mapping[str, Any]
    group: str | None = None
    watched: bool = False
    request: bytes | None = None


@dataclass(eq=False)
class Job:
    """One request to draw.

    The worker's thread writes; others read, and may set the two wishes. Tuples and mappings are replaced, never
    changed, so a reader needs no lock.

    Attributes:
        wish: of the client.
        bundle: digest of the bundle that draws.
        options: of all its pictures; the seed is set. Those to start from are let go when it has ended.
        seeds: of each picture.
        variation_seeds: of each picture; None without a variation.
        calls_each: UNet calls of a picture.
        notes: what of its prompts is not drawn as it was written.
        id: 32 hexadecimal digits.
        created: seconds since 1970; so are ``started`` and ``completed``.
        todo: pictures that have not begun, by place.
        loading: a graph is loaded or compiled for it.
        done: UNet calls that are done, of each picture under way or drawn.
        previews: JPEG files of the pictures under way, by place.
        pictures: that are on the disk, with their places.
        failure: why it failed; None if it did not.
        unwanted: wish to cancel it.
        interrupted: wish to decode what is there by now; for jobs of a group.
        skipped: wish to decode the pictures under way and go on with the next; for jobs of a group.
        watched: somebody looks at its previews.
        alone: its pictures share no UNet call with those of other jobs.
        seconds_per_call: of one picture, measured; None before the second call.
    """

    wish: Wish
    bundle: str
    options: DrawOptions
    seeds: tuple[int, ...]
    variation_seeds: tuple[int, ...] | None
    calls_each: int
    notes: tuple[str, ...] = ()
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)
    status: Status = "queued"
    started: float | None = None
    completed: float | None = None
    todo: tuple[int, ...] = ()
    loading: bool = False
    done: dict[int, int] = field(default_factory=dict)
    previews: dict[int, bytes] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    failure: Failure | None = None
    unwanted: bool = False
    interrupted: bool = False
    skipped: bool = False
    watched: bool = False
    alone: bool = False
    seconds_per_call: float | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin with all pictures to do."""
        self.watched = self.wish.watched
        self.todo = tuple(range(len(self.seeds)))

    def end(self, status: Status) -> bool:
        """Give a job its last status, once; return whether this was the time."""
        with self._ending:
            if self.ended:
                return False
            self.loading, self.previews = False, {}
            self.options = replace(self.options, image=None, mask_image=None)  # 200 that have ended stay listed
            self.wish = replace(self.wish, request=None)
            self.completed = time.time()
            self.status = status
            return True

    @property
    def client(self) -> str:
        """Who asked."""
        return self.wish.client

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in ENDED

    @property
    def call(self) -> int:
        """UNet calls that are done, counted for each picture."""
        return sum(self.done.values())

    @property
    def calls(self) -> int:
        """UNet calls of the whole job, counted for each picture."""
        return self.calls_each * len(self.seeds)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until all pictures are drawn, if nothing else is drawn; None before the second UNet call."""
        return None if self.seconds_per_call is None else (self.calls - self.call) * self.seconds_per_call

    @property
    def kind_of_call(self) -> tuple[object, ...]:
        """What jobs must have in common to share UNet calls: all but prompts and seeds; else its own id."""
        of = self.options
        if self.alone or self.variation_seeds is not None or of.image is not None:
            return (self.id,)
        between = None if of.guidance_interval is None else tuple(of.guidance_interval)
        shortcuts = (of.quality, of.cache_interval, between)
        reading = (of.prompt_weighting, of.long_prompts)
        return (
            self.wish.group,
            self.bundle,
            of.num_inference_steps,
            of.guidance_scale,
            of.scheduler,
            shortcuts,
            reading,
        )
