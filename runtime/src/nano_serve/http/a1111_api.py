"""A1111's API, sdapi/v1: drawing, progress, interrupting, settings, and what a picture says.

Routes and keys are those of Forge's ``modules/api/api.py`` (dfdcbab), the last living form of A1111's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from nano_runtime import open_picture
from nano_serve.errors import NotFoundError
from nano_serve.fit import Fit, encoded
from nano_serve.gallery import Picture
from nano_serve.http.a1111_fields import understood as fields_understood
from nano_serve.http.a1111_lists import list_endpoints
from nano_serve.http.a1111_request import Asked, Chosen, understood
from nano_serve.http.a1111_shapes import (
    DrawRequest,
    DrawShape,
    InfoRequest,
    InfoShape,
    OptionsRequest,
    ProgressShape,
    UpscaleRequest,
)
from nano_serve.http.a1111_upscale import enlarged
from nano_serve.http.answers import JsonAnswer
from nano_serve.http.bodies import WITH_PICTURES, json_of, misshapen, picture_bytes
from nano_serve.http.guard import client_of
from nano_serve.http.reading import parameters_in, stopped
from nano_serve.http.routes import Endpoint
from nano_serve.http.waiting import finished
from nano_serve.jobs import Job, Wish
from nano_serve.shelf import Shelved
from nano_serve.studio import Studio

__all__ = ["a1111_endpoints"]

_API: Final = "/sdapi/v1"
_SKIP: Final[Mapping[str, Mapping[str, Any]]] = {"skip_current_image": {"type": "boolean", "default": False}}
_BEGUN: Final = 0.01  # the least progress of a picture under way, as A1111 says it


def a1111_endpoints(studio: Studio, fit: Fit) -> list[Endpoint]:
    """Return the routes."""
    api = _A1111(studio, fit)
    drawing = [
        Endpoint("POST", f"{_API}/txt2img", api.draw, DrawRequest, DrawShape),
        Endpoint("POST", f"{_API}/img2img", api.redraw, DrawRequest, DrawShape),
        Endpoint("GET", f"{_API}/progress", api.progress, None, ProgressShape, query=_SKIP),
        Endpoint("POST", f"{_API}/interrupt", api.interrupt, None, Any),
        Endpoint("POST", f"{_API}/skip", api.skip, None, Any),
        Endpoint("GET", f"{_API}/options", api.options, None, Any),
        Endpoint("POST", f"{_API}/options", api.set_options, OptionsRequest, Any),
        Endpoint("POST", f"{_API}/png-info", api.info, InfoRequest, InfoShape),
        Endpoint("POST", f"{_API}/extra-single-image", api.upscale, UpscaleRequest, Any),
    ]
    nothing = ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings")
    idle = [Endpoint("POST", f"{_API}/{name}", api.nothing, None, Any) for name in nothing]
    idle.append(Endpoint("POST", f"{_API}/unload-checkpoint", api.unload, None, Any))
    idle.append(Endpoint("POST", f"{_API}/reload-checkpoint", api.reload, None, Any))
    return [*drawing, *idle, *list_endpoints(studio)]


class _A1111:
    """The handlers."""

    def __init__(self, studio: Studio, fit: Fit) -> None:
        self._studio = studio
        self._fit = fit
        self._set = Chosen()

    async def draw(self, request: Request) -> Response:
        """Draw pictures of a prompt."""
        body, noted = await _body_of(request, edits=False)
        body.init_images = body.mask = None
        return await self._answer(request, body, noted)

    async def redraw(self, request: Request) -> Response:
        """Draw a picture anew, all of it or where a mask is white."""
        body, noted = await _body_of(request, edits=True)
        if not body.init_images:
            raise NotFoundError("init_images has no picture", "Send one in base64.")
        return await self._answer(request, body, noted)

    async def _answer(self, request: Request, body: DrawRequest, noted: list[str]) -> Response:
        asked, job = await asyncio.to_thread(self._submitted, body, noted, client_of(request))
        await finished(request, self._studio, job)
        return JsonAnswer(await asyncio.to_thread(self._shape, body, asked, job))

    def _submitted(self, body: DrawRequest, noted: list[str], client: str) -> tuple[Asked, Job]:
        """Understand a request and let its job wait; only those of one client are drawn, and interrupted, together."""
        asked = understood(body, noted, self._set, self._studio, self._fit)
        shown = {"prompt": asked.options.prompt, "num_images_per_prompt": asked.options.num_images_per_prompt}
        return asked, self._studio.submit(asked.options, asked.shelved, Wish(client, shown, group=f"a1111 {client}"))

    def _shape(self, body: DrawRequest, asked: Asked, job: Job) -> DrawShape:
        """Return the answer of a job that has ended."""
        pictures = sorted(job.pictures, key=lambda picture: picture.place or 0)
        files = [self._file(asked, picture) for picture in pictures] if body.send_images is not False else []
        echo = msgspec.to_builtins(body)
        if not body.include_init_images:
            echo |= {"init_images": None, "mask": None}
        return DrawShape(
            images=[base64.b64encode(file).decode() for file in files],
            parameters=echo,
            info=json.dumps(_info(asked, job, pictures)),
        )

    def _file(self, asked: Asked, picture: Picture) -> bytes:
        """Return a picture as the client wants it; a file that needs no change stays the same."""
        file = self._studio.gallery.content(picture.id)
        image = open_picture(file)
        if image.size == asked.size and asked.shown is None:
            return file
        return encoded(asked.finished(image), picture.parameters)

    async def progress(self, request: Request) -> Response:
        """Say how far the pictures under way are."""
        jobs = self._studio.worker.current
        if not jobs:
            state = _state(None)
            return JsonAnswer(_progress(0.0, 0.0, state, None))
        job = jobs[0]
        wanted = request.query_params.get("skip_current_image", "false").lower() not in {"true", "1"}
        job.watched = job.watched or wanted
        preview = next(reversed(job.previews.values()), None) if wanted else None
        text = None if preview is None else base64.b64encode(await asyncio.to_thread(_png, preview)).decode()
        share = max(_BEGUN, job.call / max(1, job.calls))
        return JsonAnswer(_progress(share, job.eta_seconds or 0.0, _state(job), text))

    async def interrupt(self, _request: Request) -> Response:
        """Decode what is there of the pictures under way, and draw no further."""
        for job in self._studio.worker.current:
            if job.wish.group is not None:
                self._studio.interrupt(job)
        return JsonAnswer({})

    async def skip(self, _request: Request) -> Response:
        """Decode what is there of the pictures under way, and go on with the next."""
        for job in self._studio.worker.current:
            if job.wish.group is not None:
                job.skipped = True
        return JsonAnswer(None)

    async def options(self, _request: Request) -> Response:
        """Return the settings."""
        chosen = self._chosen()
        return JsonAnswer(
            {
                "sd_model_checkpoint": chosen.title,
                "sd_checkpoint_hash": chosen.bundle.digest,
                "sd_vae": "None",
                "samples_format": "png",
                "samples_save": True,
                "CLIP_stop_at_last_layers": 1,
                "eta_noise_seed_delta": 0,
                "live_previews_enable": True,
                "show_progress_every_n_steps": 1,
            }
        )

    async def set_options(self, request: Request) -> Response:
        """Choose the bundle; other settings have no meaning here, which every picture's ``info`` says from then on."""
        settings = await json_of(request, dict[str, Any], WITH_PICTURES, lenient=True)
        checkpoint = settings.pop("sd_model_checkpoint", None)
        if checkpoint is not None:
            if not isinstance(checkpoint, str) or not self._studio.shelf.named(checkpoint):
                what = f"there is no checkpoint {str(checkpoint)[:100]!r}"
                raise NotFoundError(what, "GET /sdapi/v1/sd-models lists them.")
            checkpoint = self._studio.shelf.chosen(checkpoint).title
        self._set = self._set.changed(checkpoint, settings)
        return JsonAnswer(None)

    def _chosen(self) -> Shelved:
        return self._studio.shelf.chosen(self._set.checkpoint)

    async def info(self, request: Request) -> Response:
        """Return what a picture says of how it was drawn."""
        body = await json_of(request, InfoRequest, WITH_PICTURES, lenient=True)
        content = picture_bytes(body.image, "image")
        return JsonAnswer(await asyncio.to_thread(_said, content))

    async def upscale(self, request: Request) -> Response:
        """Enlarge a picture, by Lanczos or by repeating pixels."""
        fields = await json_of(request, dict[str, Any], WITH_PICTURES, lenient=True)
        try:
            return JsonAnswer(await asyncio.to_thread(enlarged, fields))
        except msgspec.ValidationError as error:
            raise misshapen(error) from None

    async def nothing(self, _request: Request) -> Response:
        """Do nothing: bundles are those of the command line."""
        return JsonAnswer(None)

    async def unload(self, _request: Request) -> Response:
        """Free the loaded bundle's memory, after the jobs that wait."""
        self._studio.worker.free()
        return JsonAnswer({})

    async def reload(self, _request: Request) -> Response:
        """Do nothing: a bundle is loaded by the next picture."""
        return JsonAnswer({})


async def _body_of(request: Request, *, edits: bool) -> tuple[DrawRequest, list[str]]:
    """Return what is asked for, and notes on fields that change nothing here.

    Raises:
        RequestError: it cannot be read.
    """
    fields = await json_of(request, dict[str, Any], WITH_PICTURES, lenient=True)
    try:
        return fields_understood(fields, edits=edits)
    except msgspec.ValidationError as error:
        raise misshapen(error) from None


def _info(asked: Asked, job: Job, pictures: list[Picture]) -> dict[str, Any]:
    """Return the keys of ``info`` that clients read."""
    first = pictures[0].parameters.options if pictures else asked.options
    seeds = [picture.parameters.options.seed for picture in pictures]
    varied = [picture.parameters.options.variation_seed for picture in pictures]
    subseeds = [-1 if one is None else one for one in varied]
    notes = (*asked.notes, *job.notes, *_cut_short(job, pictures))
    extra = {"Note": "; ".join(notes)} if notes else {}
    return {
        "prompt": asked.options.prompt,
        "all_prompts": [asked.options.prompt] * len(pictures),
        "negative_prompt": asked.options.negative_prompt,
        "all_negative_prompts": [asked.options.negative_prompt] * len(pictures),
        "seed": job.seeds[0],
        "all_seeds": seeds,
        "subseed": subseeds[0] if subseeds else -1,
        "all_subseeds": subseeds,
        "subseed_strength": asked.options.variation_strength or 0,
        "width": asked.size[0],
        "height": asked.size[1],
        "sampler_name": asked.sampler if first.scheduler is None else first.scheduler,
        "cfg_scale": first.guidance_scale,
        "steps": first.num_inference_steps,
        "batch_size": len(pictures),
        "sd_model_name": asked.shelved.bundle.manifest.name,
        "sd_model_hash": asked.shelved.bundle.digest[:10],
        "denoising_strength": asked.options.strength,
        "extra_generation_params": extra,
        "index_of_first_image": 0,
        "infotexts": [picture.parameters.as_text() for picture in pictures],
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": pictures[0].parameters.version if pictures else "",
    }


def _cut_short(job: Job, pictures: list[Picture]) -> Iterator[str]:
    """Yield notes on what somebody interrupted or skipped."""
    calls = {picture.parameters.interrupted_after for picture in pictures} - {None}
    yield from map(stopped, sorted(calls))
    if len(pictures) < len(job.seeds):
        yield f"{len(pictures)} of {len(job.seeds)} pictures were begun"


def _progress(share: float, seconds: float, state: dict[str, Any], image: str | None) -> ProgressShape:
    return ProgressShape(
        progress=share, eta_relative=seconds, state=state, current_image=image, textinfo=None, current_task=None
    )


def _state(job: Job | None) -> dict[str, Any]:
    """Return the state of the job under way; None for none."""
    steps = 0 if job is None else job.calls_each
    step = 0 if job is None else max((job.done.get(place, 0) for place in job.done), default=0)
    return {
        "skipped": job is not None and job.skipped,
        "interrupted": job is not None and job.interrupted,
        "stopping_generation": False,
        "job": "" if job is None else "Batch 1 out of 1",
        "job_count": 0 if job is None else 1,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(0 if job is None else job.created)),
        "job_no": 0,
        "sampling_step": step,
        "sampling_steps": steps,
    }


def _png(jpeg: bytes) -> bytes:
    return encoded(open_picture(jpeg), None)


def _said(content: bytes) -> InfoShape:
    """Return what a picture says; nothing if it says nothing."""
    image = open_picture(content)
    said = image.info.get("parameters")
    info = str(said) if isinstance(said, str) else ""  # of Pillow's own kind of text
    try:
        found = parameters_in(content)
    except NotFoundError:
        return InfoShape(info=info, items={}, parameters={})
    words = {"Prompt": "prompt", "Negative prompt": "negative_prompt", "Steps": "num_inference_steps", "Seed": "seed"}
    words |= {"CFG scale": "guidance_scale", "Sampler": "scheduler"}
    read = {shown: found.options[name] for shown, name in words.items() if name in found.options}
    return InfoShape(info=info, items={"parameters": info}, parameters=read)
