"""The shapes of A1111's API: its clients send text and floats for whole numbers, and null for anything."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["DrawRequest", "DrawShape", "InfoRequest", "InfoShape", "OptionsRequest", "ProgressShape", "UpscaleRequest"]

Number = int | float | None


class DrawRequest(msgspec.Struct, kw_only=True):
    """A request of txt2img or img2img: the fields that have a meaning here; others are noted in ``info``."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: Number = None
    subseed: Number = None
    subseed_strength: Number = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: Number = None
    n_iter: Number = None
    steps: Number = None
    cfg_scale: Number = None
    width: Number = None
    height: Number = None
    model: str | None = None
    infotext: str | None = None
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None
    script_name: str | None = None
    send_images: bool | None = None
    enable_hr: bool | None = None
    hr_scale: Number = None
    hr_resize_x: Number = None
    hr_resize_y: Number = None
    init_images: list[str] | None = None
    include_init_images: bool | None = None
    mask: str | None = None
    denoising_strength: Number = None
    image_cfg_scale: Number = None
    resize_mode: Number = None
    mask_blur: Number = None
    mask_blur_x: Number = None
    mask_blur_y: Number = None
    inpaint_full_res: Any = None
    inpainting_mask_invert: Number = None
    inpainting_fill: Any = None
    eta: Any = None


class DrawShape(msgspec.Struct, kw_only=True):
    """Pictures in base64, what was asked for, and a JSON text of how they were drawn."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class ProgressShape(msgspec.Struct, kw_only=True):
    """How far the picture under way is."""

    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None
    textinfo: str | None
    current_task: str | None


class OptionsRequest(msgspec.Struct, kw_only=True):
    """Settings: the one that has a meaning here; others are noted with every picture."""

    sd_model_checkpoint: str | None = None


class InfoRequest(msgspec.Struct, kw_only=True):
    """A picture whose text is wanted."""

    image: str


class InfoShape(msgspec.Struct, kw_only=True):
    """What a picture says: A1111's text, its parts, and the same taken apart."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


class UpscaleRequest(msgspec.Struct, kw_only=True):
    """A picture that is to be larger."""

    image: str
    resize_mode: Number = None
    upscaling_resize: Number = None
    upscaling_resize_w: Number = None
    upscaling_resize_h: Number = None
    upscaling_crop: bool | None = None
    upscaler_1: str | None = None
    upscaler_2: str | None = None
    extras_upscaler_2_visibility: Number = None
