"""Jobs, pictures and bundles as clients see them."""

from __future__ import annotations

import base64
from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec

from nano_runtime import sampler_names
from nano_runtime.drawing.demo_prompts import COLOURS, EXAMPLES, THINGS
from nano_serve.gallery import Picture
from nano_serve.jobs import Job
from nano_serve.shapes import (
    BundleShape,
    FailureShape,
    JobRequest,
    JobShape,
    PictureShape,
    PreviewShape,
    ProgressShape,
    SamplerShape,
    WordsShape,
)
from nano_serve.shelf import Shelved

__all__ = ["as_request", "bundle_of", "data_url", "job_of", "left_of", "picture_of", "progress_of", "samplers"]

_BEGIN_AND_END: Final = 2  # tokens of every chunk that are not the prompt's
_STEPS: Final = 20  # of a sampler without a measured default
_SEEDS: Final = ("seed", "variation_seed")  # too large for JavaScript's numbers
_KEYS: Final = frozenset(JobRequest.__struct_fields__) - {"image", "mask_image", "bundle"}
_DRAWN_BY: Final = (
    "bundle",
    "bundle_digest",
    "backend",
    "precision",
    "version",
    "edited",
    "masked",
    "interrupted_after",
)


def job_of(job: Job, bundle: str, position: int, kept: Container[str]) -> JobShape:
    """Return a job.

    Args:
        job: to show.
        bundle: title of its bundle.
        position: among the waiting jobs, from 1; 0 if it does not wait.
        kept: ids of the pictures that are there; somebody may have deleted some of the job's.
    """
    failure = job.failure
    return JobShape(
        id=job.id,
        status=job.status,
        created=job.created,
        started=job.started,
        completed=job.completed,
        queue_position=position,
        bundle=bundle,
        options=dict(job.wish.asked),
        seeds=[str(seed) for seed in job.seeds],
        notes=list(job.notes),
        progress=_progress(job),
        previews=[PreviewShape(picture=place, image=data_url(one)) for place, one in job.previews.items()],
        pictures=[picture_of(picture) for picture in job.pictures if picture.id in kept],
        error=None if failure is None else FailureShape(code=failure.code, message=failure.message),
    )


def left_of(name: str, created: float, request: JobRequest) -> JobShape:
    """Return a job of an earlier start, which was not finished then."""
    count = request.num_images_per_prompt
    first = 0 if request.seed is None else int(request.seed)
    return JobShape(
        id=name,
        status="interrupted",
        created=created,
        started=None,
        completed=None,
        queue_position=0,
        bundle="" if request.bundle is None else request.bundle,
        options=as_request(msgspec.structs.asdict(request)),
        seeds=[str(first + number) for number in range(count)],
        notes=[],
        progress=ProgressShape(call=0, calls=0, eta_seconds=None, loading=False),
        previews=[],
        pictures=[],
        error=None,
    )


def progress_of(job: Job) -> dict[str, Any]:
    """Return the data of an event about a job's progress."""
    one = _progress(job)
    return {
        "job": job.id,
        "call": one.call,
        "calls": one.calls,
        "eta_seconds": one.eta_seconds,
        "loading": one.loading,
    }


def picture_of(picture: Picture) -> PictureShape:
    """Return a picture, with its options under the names of a request."""
    of = picture.parameters.as_dict()
    return PictureShape(
        id=picture.id,
        url=f"/api/v1/pictures/{picture.id}",
        created=picture.created,
        job=picture.job,
        index=picture.place,
        width=of["width"],
        height=of["height"],
        seed=str(of["seed"]),
        options=as_request(of),
        drawn_by={name: of[name] for name in _DRAWN_BY},
        text=picture.parameters.as_text(),
    )


def as_request(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that are set under the names of a request; seeds are text, and pictures are left out."""
    renamed = {("num_inference_steps" if key == "steps" else key): value for key, value in options.items()}
    return {
        key: str(value) if key in _SEEDS else value
        for key, value in renamed.items()
        if key in _KEYS and value is not None
    }


def bundle_of(shelved: Shelved) -> BundleShape:
    """Return a bundle."""
    bundle = shelved.bundle
    manifest = bundle.manifest
    default = manifest.default
    words = WordsShape(things=list(THINGS), colours=list(COLOURS), examples=list(EXAMPLES))
    return BundleShape(
        id=bundle.digest,
        name=manifest.name,
        title=shelved.title,
        state=shelved.state,
        task=manifest.task,
        width=manifest.image_size[1],
        height=manifest.image_size[0],
        precision=manifest.precision,
        scheduler=shelved.scheduler,
        num_inference_steps=_STEPS if default is None else default.steps,
        guidance_scale=manifest.guidance_scale,
        qualities=["exact", *(name for name in ("balanced", "fast") if name in manifest.presets)],
        token_limit=manifest.tokenizer.length - _BEGIN_AND_END,
        edits="vae_encoder" in manifest.components,
        previews=manifest.preview is not None,
        words=words if shelved.is_demo else None,
    )


def samplers() -> list[SamplerShape]:
    """Return all samplers."""
    return [SamplerShape(name=name, label=label) for name, label in sampler_names().items()]


def data_url(jpeg: bytes) -> str:
    """Return a JPEG file as a URL that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _progress(job: Job) -> ProgressShape:
    return ProgressShape(call=job.call, calls=job.calls, eta_seconds=job.eta_seconds, loading=job.loading)
