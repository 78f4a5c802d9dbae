"""Our own API, /api/v1: jobs, events, pictures, parameters and tokens. See docs/reference/serve-api.md."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from nano_runtime import DrawOptions, __version__
from nano_serve import views
from nano_serve.errors import BadRequestError, NotFoundError
from nano_serve.http.answers import JsonAnswer
from nano_serve.http.bodies import WITH_PICTURES, json_of, picture_bytes, picture_of
from nano_serve.http.events import stream_of
from nano_serve.http.guard import client_of
from nano_serve.http.reading import parameters_in
from nano_serve.http.routes import Endpoint
from nano_serve.jobs import Job, Wish
from nano_serve.shapes import (
    BundlesShape,
    JobRequest,
    JobShape,
    JobsShape,
    ParametersRequest,
    ParametersShape,
    PicturesShape,
    TokensRequest,
    TokensShape,
)
from nano_serve.studio import Studio

__all__ = ["own_endpoints"]

_MOST_LISTED: Final = 200  # pictures of a page
_PAGE: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": _MOST_LISTED, "default": 50},
    "before": {"type": "string"},
}
_PICTURES: Final = ("image", "mask_image")
_SEEDS: Final = ("seed", "variation_seed")


def own_endpoints(studio: Studio) -> list[Endpoint]:
    """Return the routes."""
    api = _OwnApi(studio)
    return [
        Endpoint("POST", "/api/v1/jobs", api.add, JobRequest, JobShape, status=202),
        Endpoint("GET", "/api/v1/jobs", api.jobs, None, JobsShape),
        Endpoint("GET", "/api/v1/jobs/{id}", api.job, None, JobShape),
        Endpoint("DELETE", "/api/v1/jobs/{id}", api.cancel, None, JobShape),
        Endpoint("POST", "/api/v1/jobs/{id}/retry", api.retry, None, JobShape, status=202),
        Endpoint("GET", "/api/v1/events", api.events, None, "text/event-stream"),
        Endpoint("GET", "/api/v1/pictures", api.pictures, None, PicturesShape, query=_PAGE),
        Endpoint("GET", "/api/v1/pictures/{id}", api.picture, None, "image/png"),
        Endpoint("DELETE", "/api/v1/pictures/{id}", api.delete, None, None, status=204),
        Endpoint("GET", "/api/v1/bundles", api.bundles, None, BundlesShape),
        Endpoint("POST", "/api/v1/parameters", api.parameters, ParametersRequest, ParametersShape),
        Endpoint("POST", "/api/v1/tokens", api.tokens, TokensRequest, TokensShape),
    ]


@dataclass(frozen=True)
class _Left:
    """A job that an earlier start of the server did not finish."""

    request: JobRequest
    shape: JobShape


class _OwnApi:
    """The handlers."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        left = {name: _lost(name, *of, studio.limits.pictures) for name, of in studio.journal.left().items()}
        self._left = {name: found for name, found in left.items() if found is not None}

    async def add(self, request: Request) -> Response:
        """Let a job wait for its turn."""
        asked = await json_of(request, JobRequest, WITH_PICTURES)
        job = await asyncio.to_thread(self._submit, asked, client_of(request))
        return JsonAnswer(self._studio.described(job), 202, {"location": f"/api/v1/jobs/{job.id}"})

    def _submit(self, asked: JobRequest, client: str) -> Job:
        options = _options_of(asked)
        if options.seed is None:
            options = replace(options, seed=self._studio.random_seed())
        kept = msgspec.structs.replace(asked, seed=str(options.seed))
        wish = Wish(client, _shown(asked), request=msgspec.json.encode(kept))
        return self._studio.submit(options, self._studio.shelf.chosen(asked.bundle), wish)

    async def jobs(self, _request: Request) -> Response:
        """List jobs that wait, are drawn, or ended."""
        return JsonAnswer(JobsShape(jobs=self._jobs()))

    async def job(self, request: Request) -> Response:
        """Return one job."""
        if (left := self._left.get(request.path_params["id"])) is not None:
            return JsonAnswer(left.shape)
        return JsonAnswer(self._studio.described(self._studio.job(request.path_params["id"])))

    async def cancel(self, request: Request) -> Response:
        """Cancel a job; pictures that are done stay. One of an earlier start is forgotten."""
        if (left := self._left.pop(request.path_params["id"], None)) is not None:
            self._forget(left)
            return JsonAnswer(left.shape)
        job = self._studio.job(request.path_params["id"])
        self._studio.cancel(job)
        return JsonAnswer(self._studio.described(job))

    async def retry(self, request: Request) -> Response:
        """Draw what an earlier start of the server did not finish; a new job, with the same seed."""
        name = request.path_params["id"]
        if (left := self._left.pop(name, None)) is None:  # two tabs may ask at once
            raise NotFoundError(f"no job {name[:40]!r} was interrupted", "GET /api/v1/jobs lists them.")
        try:
            job = await asyncio.to_thread(self._submit, left.request, client_of(request))
        except BaseException:
            self._left[name] = left
            raise
        self._forget(left)
        return JsonAnswer(self._studio.described(job), 202, {"location": f"/api/v1/jobs/{job.id}"})

    def _forget(self, left: _Left) -> None:
        """Take a job of an earlier start out of the journal, and off every page."""
        self._studio.journal.forget(left.shape.id)
        left.shape.status = "cancelled"
        self._studio.hub.publish("job", ("job", left.shape.id), left.shape)

    def _jobs(self) -> list[JobShape]:
        """Return all jobs, the newest first; those of an earlier start are the oldest."""
        now = [self._studio.described(job) for job in self._studio.jobs()]
        return [*now, *(left.shape for left in reversed(self._left.values()))]

    async def events(self, _request: Request) -> Response:
        """Tell everything that happens, beginning with how things are."""
        return stream_of(self._studio, self._hello)

    async def pictures(self, request: Request) -> Response:
        """List pictures, the newest first."""
        limit = request.query_params.get("limit", "50")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST_LISTED:
            raise BadRequestError(f"limit={limit[:40]!r}", f"Give a whole number from 1 to {_MOST_LISTED}.")
        before = request.query_params.get("before")
        found, following = await asyncio.to_thread(self._studio.gallery.page, before, int(limit))
        return JsonAnswer(PicturesShape(pictures=[views.picture_of(one) for one in found], next=following))

    async def picture(self, request: Request) -> Response:
        """Return a picture's file."""
        content = await asyncio.to_thread(self._studio.gallery.content, request.path_params["id"])
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=31536000"})

    async def delete(self, request: Request) -> Response:
        """Delete a picture."""
        await asyncio.to_thread(self._studio.delete_picture, request.path_params["id"])
        return Response(status_code=204)

    async def bundles(self, _request: Request) -> Response:
        """List bundles, samplers and limits."""
        return JsonAnswer(self._state())

    async def parameters(self, request: Request) -> Response:
        """Read how a picture was drawn."""
        asked = await json_of(request, ParametersRequest, WITH_PICTURES)
        content = picture_bytes(asked.image, "image")
        return JsonAnswer(await asyncio.to_thread(parameters_in, content))

    async def tokens(self, request: Request) -> Response:
        """Count a prompt's tokens."""
        asked = await json_of(request, TokensRequest)
        pipeline = self._studio.shelf.chosen(asked.bundle).pipeline
        reading = {"prompt_weighting": asked.prompt_weighting, "long_prompts": asked.long_prompts}
        found = await asyncio.to_thread(pipeline.tokenize, asked.prompt, **reading)
        limit = pipeline.bundle.manifest.tokenizer.length - 2
        return JsonAnswer(TokensShape(count=found.count, limit=limit, used=found.used, cut=found.cut))

    def _state(self) -> BundlesShape:
        limits = self._studio.limits
        return BundlesShape(bundles=self._studio.bundles(), samplers=views.samplers(), limits=limits)

    def _hello(self) -> dict[str, Any]:
        return {"version": __version__, "jobs": self._jobs(), **msgspec.structs.asdict(self._state())}


def _lost(name: str, created: float, content: bytes, most: int) -> _Left | None:
    """Return a job of an earlier start, of so many pictures at most; None if its file is none of ours."""
    try:
        request = msgspec.json.decode(content, type=JobRequest)
        if request.num_images_per_prompt > most:
            return None
        return _Left(request, views.left_of(name, created, request))
    except (msgspec.MsgspecError, ValueError):
        return None


def _options_of(asked: JobRequest) -> DrawOptions:
    """Return the options of a request.

    Raises:
        UsageError: a value is not one of its option's.
    """
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if name != "bundle"}
    for name in _SEEDS:
        given[name] = _seed(name, given[name])
    for name in _PICTURES:
        if given[name] is not None:
            given[name] = picture_of(given[name], name)
    return DrawOptions(**given)


def _seed(name: str, value: int | str | None) -> int | None:
    """Return a seed that may be text.

    Raises:
        BadRequestError: it is no whole number.
    """
    if not isinstance(value, str):
        return value
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(1 << 64))):
        raise BadRequestError(f"{name}={value[:40]!r}", "Give a whole number from 0 to 2**64 - 1.")
    return int(value)


def _shown(asked: JobRequest) -> dict[str, Any]:
    """Return the keys of a request that were given, without pictures, and with seeds as text."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(JobRequest)}
    given = msgspec.structs.asdict(asked)
    return views.as_request({name: value for name, value in given.items() if value != defaults[name]})
