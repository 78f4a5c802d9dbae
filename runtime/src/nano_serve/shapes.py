"""The shapes of our own API, /api/v1: what requests and answers hold. See docs/reference/serve-api.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "MOST_PROMPT_CHARACTERS",
    "BundleShape",
    "BundlesShape",
    "ErrorShape",
    "FailureShape",
    "FlatErrorShape",
    "JobRequest",
    "JobShape",
    "JobsShape",
    "Limits",
    "ParametersRequest",
    "ParametersShape",
    "PictureShape",
    "PicturesShape",
    "PreviewShape",
    "ProgressShape",
    "SamplerShape",
    "TokensRequest",
    "TokensShape",
    "WordsShape",
]

MOST_PROMPT_CHARACTERS = 10_000

Prompt = Annotated[str, msgspec.Meta(max_length=MOST_PROMPT_CHARACTERS)]


class _Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request: an unknown key is refused."""


class JobRequest(_Strict):
    """The options of a job: the fields of ``DrawOptions``; None takes the bundle's default."""

    prompt: Prompt
    negative_prompt: Prompt | None = None
    num_images_per_prompt: Annotated[int, msgspec.Meta(ge=1)] = 1
    seed: int | str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    quality: str | None = None
    prompt_weighting: bool = False
    long_prompts: bool = False
    image: str | None = None
    mask_image: str | None = None
    keep_unmasked: bool = False
    mask_blur: float = 0.0
    strength: float | None = None
    image_guidance_scale: float | None = None
    variation_seed: int | str | None = None
    variation_strength: float | None = None
    cache_interval: int | None = None
    guidance_interval: tuple[float, float] | None = None
    bundle: str | None = None


class ParametersRequest(_Strict):
    """A picture whose parameters are wanted: base64, or a data URL."""

    image: str


class TokensRequest(_Strict):
    """A prompt whose tokens are counted."""

    prompt: Prompt
    bundle: str | None = None
    prompt_weighting: bool = False
    long_prompts: bool = False


class TokensShape(msgspec.Struct, kw_only=True):
    """Number of tokens, how many fit, how many are used, and the end of the prompt that is cut."""

    count: int
    limit: int
    used: int
    cut: str


class ProgressShape(msgspec.Struct, kw_only=True):
    """UNet calls, counted for each picture of the job."""

    call: int
    calls: int
    eta_seconds: float | None
    loading: bool


class PreviewShape(msgspec.Struct, kw_only=True):
    """A preview, by the picture's place in the job: a data URL."""

    picture: int
    image: str


class FailureShape(msgspec.Struct, kw_only=True):
    """Why a job failed."""

    code: str
    message: str


class PictureShape(msgspec.Struct, kw_only=True):
    """A picture on the disk."""

    id: str
    url: str
    created: float
    job: str | None
    index: int | None
    width: int
    height: int
    seed: str
    options: dict[str, Any]
    drawn_by: dict[str, Any]
    text: str


class JobShape(msgspec.Struct, kw_only=True):
    """A job."""

    id: str
    kind: Literal["img_gen"] = "img_gen"
    status: Literal["queued", "generating", "completed", "failed", "cancelled", "interrupted"]
    created: float
    started: float | None
    completed: float | None
    queue_position: int
    bundle: str
    options: dict[str, Any]
    seeds: list[str]
    notes: list[str]
    progress: ProgressShape
    previews: list[PreviewShape]
    pictures: list[PictureShape]
    error: FailureShape | None


class JobsShape(msgspec.Struct, kw_only=True):
    """All jobs, the newest first."""

    jobs: list[JobShape]


class PicturesShape(msgspec.Struct, kw_only=True):
    """A page of pictures; ``next`` is the ``before`` of the next page."""

    pictures: list[PictureShape]
    next: str | None


class WordsShape(msgspec.Struct, kw_only=True):
    """What the built-in demo was taught."""

    things: list[str]
    colours: list[str]
    examples: list[str]


class BundleShape(msgspec.Struct, kw_only=True):
    """A bundle, its defaults, and the state of its graphs."""

    id: str
    name: str
    title: str
    state: Literal["idle", "loading", "loaded"]
    task: str
    width: int
    height: int
    precision: str
    scheduler: str
    num_inference_steps: int
    guidance_scale: float
    qualities: list[str]
    token_limit: int
    edits: bool
    previews: bool
    words: WordsShape | None


class SamplerShape(msgspec.Struct, kw_only=True):
    """A sampler, and what A1111 calls it."""

    name: str
    label: str


class Limits(msgspec.Struct, kw_only=True, frozen=True):
    """The largest values of a request."""

    pictures: int
    queue: int
    prompt_characters: int = MOST_PROMPT_CHARACTERS
    steps: int = 1000


class BundlesShape(msgspec.Struct, kw_only=True):
    """All bundles, the default first, all samplers, and the limits."""

    bundles: list[BundleShape]
    samplers: list[SamplerShape]
    limits: Limits


class ParametersShape(msgspec.Struct, kw_only=True):
    """How a picture was drawn, as keys of a request."""

    program: str
    options: dict[str, Any]
    bundle: str | None
    edited: bool
    masked: bool
    left_out: list[str]


class _Error(msgspec.Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorShape(msgspec.Struct, kw_only=True):
    """An error, in the form that OpenAI's clients show."""

    error: _Error


class FlatErrorShape(msgspec.Struct, kw_only=True):
    """An error, in the form that A1111's clients show."""

    error: str
    detail: str
    body: str
    errors: str
