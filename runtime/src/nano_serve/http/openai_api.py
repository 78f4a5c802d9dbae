"""OpenAI's images API: generations, edits, streamed partial pictures, models.

Field names, defaults and events are those of openai-openapi (f85dbe2) and of what openai-python 3.57 and openai-node
7.59 send. Any model name is taken, because many clients hard-code one. Pictures come as base64 only: a URL beside it
would be fetched by clients, which refuse addresses of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from nano_runtime import DrawOptions, open_picture
from nano_serve.errors import BadRequestError, NotFoundError, RequestError
from nano_serve.fit import Fit, Size, covered, encoded, is_cropped, size_for
from nano_serve.http.answers import JsonAnswer
from nano_serve.http.bodies import json_of, misshapen
from nano_serve.http.events import EventStream, event_text
from nano_serve.http.guard import client_of
from nano_serve.http.multipart import EditForm, edit_form_of
from nano_serve.http.openai_fields import understood
from nano_serve.http.openai_shapes import DataShape, EditShape, ImagesRequest, ImagesShape, ModelShape, ModelsShape
from nano_serve.http.routes import Endpoint
from nano_serve.http.waiting import ended, finished
from nano_serve.jobs import Job, Wish
from nano_serve.shapes import MOST_PROMPT_CHARACTERS
from nano_serve.shelf import Shelved, ambiguous
from nano_serve.studio import Studio

__all__ = ["openai_endpoints"]

Preset: TypeAlias = Literal["exact", "balanced", "fast"]

_PREFIXES: Final = ("/v1", "/v3", "/api/v1")  # of OpenAI, of OpenVINO Model Server, of Lemonade
_FORM: Final = "multipart/form-data"
_FORMATS: Final = ("png", "jpeg", "webp")
_PRESETS: Final[Mapping[Preset, str]] = {
    "fast": "fast low",
    "balanced": "balanced medium",
    "exact": "exact auto high xhigh max standard hd",
}
_QUALITIES: Final = {word: preset for preset, words in _PRESETS.items() for word in words.split()}
_SIZE: Final = re.compile(r"(\d{1,5})\s*[xX*]\s*(\d{1,5})")
_MOST_PARTIAL: Final = 3
_BEST: Final = 100


def openai_endpoints(studio: Studio, fit: Fit) -> list[Endpoint]:
    """Return the routes, under each of the prefixes that clients use."""
    api = _OpenAi(studio, fit)
    return [
        one
        for prefix in _PREFIXES
        for one in (
            Endpoint("POST", f"{prefix}/images/generations", api.generate, ImagesRequest, ImagesShape, streams=True),
            Endpoint("POST", f"{prefix}/images/edits", api.edit, EditShape, ImagesShape, media=_FORM, streams=True),
            Endpoint("GET", f"{prefix}/models", api.models, None, ModelsShape),
            Endpoint("GET", f"{prefix}/models/{{id}}", api.model, None, ModelShape),
        )
    ]


@dataclass(frozen=True)
class _Asked:
    """A request, understood."""

    shelved: Shelved
    size: Size
    form: str
    compression: int
    partial: int
    quality: str
    options: DrawOptions
    notes: tuple[str, ...]

    @property
    def drawn(self) -> Size:
        """The size that the bundle draws."""
        height, width = self.shelved.bundle.manifest.image_size
        return width, height

    @property
    def headers(self) -> dict[str, str]:
        """What was drawn, and by which bundle."""
        return {"x-nano-drawn": "{}x{}".format(*self.drawn), "x-nano-bundle": _ascii(self.shelved.title)}


class _OpenAi:
    """The handlers."""

    def __init__(self, studio: Studio, fit: Fit) -> None:
        self._studio = studio
        self._fit = fit
        self._began = int(time.time())

    async def models(self, _request: Request) -> Response:
        """List bundles."""
        return JsonAnswer(ModelsShape(data=[self._model(one) for one in self._studio.shelf]))

    async def model(self, request: Request) -> Response:
        """Return one bundle."""
        found = self._studio.shelf.named(request.path_params["id"])
        if not found:
            raise NotFoundError(f"there is no model {request.path_params['id'][:100]!r}", "GET /v1/models lists them.")
        return JsonAnswer(self._model(found[0]))

    def _model(self, shelved: Shelved) -> ModelShape:
        return ModelShape(id=shelved.title, created=self._began)

    async def generate(self, request: Request) -> Response:
        """Draw pictures of a prompt."""
        fields = await json_of(request, dict[str, Any], lenient=True)
        try:
            body, notes = understood(fields)
        except msgspec.ValidationError as error:
            raise misshapen(error) from None
        return await self._answer(request, body, notes, None, "image_generation")

    async def edit(self, request: Request) -> Response:
        """Draw a picture anew, all of it or where a mask is transparent."""
        form = await edit_form_of(request)
        return await self._answer(request, form.body, form.notes, form, "image_edit")

    async def _answer(
        self, request: Request, body: ImagesRequest, notes: tuple[str, ...], form: EditForm | None, kind: str
    ) -> Response:
        client = client_of(request)
        asked, job = await asyncio.to_thread(self._submitted, body, notes, form, client)
        if body.stream:
            return EventStream(self._events(asked, job, kind), asked.headers)
        await finished(request, self._studio, job)
        answer = await asyncio.to_thread(self._shape, asked, job)
        return JsonAnswer(answer, headers=asked.headers)

    def _submitted(
        self, body: ImagesRequest, notes: tuple[str, ...], form: EditForm | None, client: str
    ) -> tuple[_Asked, Job]:
        """Understand a request and let its job wait.

        Raises:
            UsageError: it cannot be drawn.
        """
        asked = self._understood(body, notes, form)
        shown = {"prompt": body.prompt, "num_images_per_prompt": asked.options.num_images_per_prompt}
        watched = bool(body.stream) and asked.partial > 0
        wish = Wish(client, shown, watched=watched)
        return asked, self._studio.submit(asked.options, asked.shelved, wish)

    def _understood(self, body: ImagesRequest, notes: tuple[str, ...], form: EditForm | None) -> _Asked:
        if len(body.prompt) > MOST_PROMPT_CHARACTERS:
            raise BadRequestError("the prompt is too long", f"{MOST_PROMPT_CHARACTERS} characters are the most.")
        wanted = _size(body.size)
        shelved, more = self._bundle(body.model, wanted)
        height, width = shelved.bundle.manifest.image_size
        quality, others = _quality(body.quality, shelved)
        picture = {} if form is None else form.pictures()
        size = size_for(wanted, (width, height), self._fit)
        if form is not None and form.mask is None and "mask_image" in picture:
            others.append("without a mask, only the picture's transparent parts are drawn anew")
        if "mask_image" in picture and size != (width, height):
            others.append(f"{width}x{height} was drawn: what the mask keeps is enlarged from that, too")
        if is_cropped((width, height), size):
            others.append(f"{width}x{height} was drawn, and cropped to the shape of {size[0]}x{size[1]}")
        return _Asked(
            shelved=shelved,
            size=size,
            form=_form(body),
            compression=_within("output_compression", body.output_compression, _BEST, _BEST),
            partial=_within("partial_images", body.partial_images, _MOST_PARTIAL, 0),
            quality="auto" if body.quality is None else body.quality,
            options=DrawOptions(
                prompt=body.prompt,
                negative_prompt=body.negative_prompt,
                num_images_per_prompt=self._studio.counted(1 if body.n is None else body.n),
                seed=None if body.seed is None or body.seed < 0 else body.seed,  # -1 is a random one to most programs
                num_inference_steps=body.steps,
                guidance_scale=body.guidance_scale,
                scheduler=body.scheduler,
                strength=body.strength,
                variation_seed=body.variation_seed,
                variation_strength=body.variation_strength,
                long_prompts=shelved.takes_long_prompts,
                quality=quality,
                **picture,
            ),
            notes=(*notes, *more, *others),
        )

    def _bundle(self, name: str | None, size: Size | None) -> tuple[Shelved, list[str]]:
        """Return the bundle of a name, of a size, or the first, and a note where that is not what was asked for."""
        shelf = self._studio.shelf
        found = [] if name is None else shelf.named(name)
        if name is not None and found:
            return found[0], [] if (note := ambiguous(name, found)) is None else [note]
        drawing = shelf.at(shelf.default) if size is None else shelf.of_size(*size)
        if name is None or len(shelf) == 1:
            return drawing, []
        return drawing, [f"no bundle is named {name[:100]!r}; {drawing.title} drew"]

    def _shape(self, asked: _Asked, job: Job) -> ImagesShape:
        """Return the answer of a job that is completed."""
        pictures = sorted(job.pictures, key=lambda picture: picture.place or 0)
        return ImagesShape(
            created=int(job.created),
            data=[self._data(asked, job, number) for number in range(len(pictures))],
            model=asked.shelved.title,
            size="{}x{}".format(*asked.size),
            quality=asked.quality,
            output_format=asked.form,
            notes=[*asked.notes, *job.notes],
        )

    def _data(self, asked: _Asked, job: Job, number: int) -> DataShape:
        picture = sorted(job.pictures, key=lambda one: one.place or 0)[number]
        file = self._studio.gallery.content(picture.id)
        if asked.form != "png" or asked.size != asked.drawn:
            image = covered(open_picture(file), asked.size)
            file = encoded(image, picture.parameters, asked.form, asked.compression)
        text = picture.parameters.as_text()
        return DataShape(
            b64_json=base64.b64encode(file).decode(), seed=picture.parameters.options.seed, parameters=text
        )

    async def _events(self, asked: _Asked, job: Job, kind: str) -> AsyncIterator[bytes]:
        """Yield partial pictures, and each whole one; the job is cancelled if nobody reads on."""
        told = sent = 0
        common = {"created_at": int(job.created), "size": "{}x{}".format(*asked.size), "quality": asked.quality}
        common |= {"background": "opaque", "output_format": asked.form}
        try:
            with self._studio.hub.listening(job.id) as listener:
                while True:
                    pictures = len(job.pictures)
                    over = job.ended
                    for number in range(told, pictures):
                        data = await asyncio.to_thread(self._data, asked, job, number)
                        whole = {"type": f"{kind}.completed", "b64_json": data.b64_json, **common, "seed": data.seed}
                        yield event_text(
                            f"{kind}.completed", {**whole, "notes": [*asked.notes, *job.notes], "usage": _NO_USAGE}
                        )
                    told = pictures
                    if over:
                        break
                    event = await listener.next(1.0)
                    due = asked.partial and job.call * (asked.partial + 1) >= job.calls * (sent + 1)
                    if event is not None and event.name == "preview" and due and sent < asked.partial:
                        preview = job.previews.get(event.data["picture"])
                        if preview is not None:
                            text = await asyncio.to_thread(_partial, preview, asked)
                            part = {"type": f"{kind}.partial_image", "b64_json": text, "partial_image_index": sent}
                            yield event_text(f"{kind}.partial_image", {**part, **common})
                            sent += 1
            ended(self._studio, job)
        except RequestError as error:  # of the job, or because somebody has deleted the picture
            shape = {"message": f"{error.what}. {error.hint}", "type": "server_error", "param": None}
            yield event_text("error", {"type": "error", "error": {**shape, "code": error.code}})
        finally:
            if not job.ended:
                self._studio.cancel(job)


_NO_USAGE: Final = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""What clients require to be there; nothing is counted or paid here."""


def _partial(preview: bytes, asked: _Asked) -> str:
    """Return a preview in the size and format of the picture."""
    image = covered(open_picture(preview), asked.size)
    return base64.b64encode(encoded(image, None, asked.form, asked.compression)).decode()


def _size(text: str | None) -> Size | None:
    """Return the size that is asked for; None for none.

    Raises:
        BadRequestError: it cannot be read.
    """
    if text is None or text.strip().lower() in {"auto", ""}:
        return None
    if (found := _SIZE.fullmatch(text.strip())) is None:
        raise BadRequestError(f"size={text[:40]!r}", "Give it as 512x512, or auto.")
    return int(found[1]), int(found[2])


def _quality(asked: str | None, shelved: Shelved) -> tuple[Preset, list[str]]:
    """Return the preset of a quality, and a note where there is none; the best leaves out no work."""
    name = (asked or "auto").strip().lower()
    preset = _QUALITIES.get(name)
    if preset is None:
        return "exact", [f"quality={name[:40]} is not known; exact drew"]
    if preset != "exact" and preset not in shelved.bundle.manifest.presets:
        return "exact", [f"quality={name}: {shelved.title} has no preset {preset}; exact drew"]
    return preset, []


def _within(name: str, value: int | None, most: int, default: int) -> int:
    """Return a whole number of a range that begins with 0; the default for None.

    Raises:
        BadRequestError: it is beyond.
    """
    if value is not None and not 0 <= value <= most:
        raise BadRequestError(f"{name}={value}", f"Give a whole number from 0 to {most}.")
    return default if value is None else value


def _form(body: ImagesRequest) -> str:
    """Return the format of the files.

    Raises:
        BadRequestError: there is no such format here, or it would have to be transparent.
    """
    form = "png" if body.output_format is None else body.output_format.lower().replace("jpg", "jpeg")
    if form not in _FORMATS:
        raise BadRequestError(f"output_format={form[:40]!r}", f"Ask for one of {', '.join(_FORMATS)}.")
    if body.background == "transparent":
        raise BadRequestError("background='transparent'", "Pictures are opaque here: leave it out.")
    return form


def _ascii(text: str) -> str:
    """Return a text that a header can hold."""
    return text.encode("ascii", "replace").decode()
