"""The shapes of OpenAI's images API: requests are read leniently, as its many clients send them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ["DataShape", "EditShape", "ImagesRequest", "ImagesShape", "ModelShape", "ModelsShape"]


class ImagesRequest(msgspec.Struct, kw_only=True):
    """A request to generate or to edit. ``rng_seed`` and the names after it are OpenVINO Model Server's."""

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    background: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    seed: int | None = None
    rng_seed: int | None = None
    negative_prompt: str | None = None
    steps: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    strength: float | None = None
    variation_seed: int | None = None
    variation_strength: float | None = None


_File = Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]


class EditShape(ImagesRequest, kw_only=True):
    """The form of an edit, for the OpenAPI document: the files are read from its parts."""

    image: _File
    mask: _File | None = None


class DataShape(msgspec.Struct, kw_only=True):
    """A picture: base64, its seed, and A1111's text of how it was drawn."""

    b64_json: str
    seed: int
    parameters: str


class ImagesShape(msgspec.Struct, kw_only=True):
    """Pictures; ``notes`` says what of the request was not drawn as it was written."""

    created: int
    data: list[DataShape]
    model: str
    size: str
    quality: str
    output_format: str
    notes: list[str]
    background: Literal["opaque"] = "opaque"


class ModelShape(msgspec.Struct, kw_only=True):
    """A bundle."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "nano"


class ModelsShape(msgspec.Struct, kw_only=True):
    """All bundles."""

    data: list[ModelShape]
    object: Literal["list"] = "list"
