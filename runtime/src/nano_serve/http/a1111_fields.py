"""Reads the fields of A1111's API: its own, and those that people know from elsewhere for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nano_runtime.rows.columns import field_of
from nano_serve.http.a1111_shapes import DrawRequest
from nano_serve.http.a1111_unheeded import unheeded

__all__ = ["OPTIONS", "understood"]

OPTIONS: Final[Mapping[str, str]] = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "image_cfg_scale": "image_guidance_scale",
    "sampler_name": "scheduler",
    "seed": "seed",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
    "denoising_strength": "strength",
}
"""A1111's fields that are options of ours, each with the option's name."""

_FIELDS: Final = {option: name for name, option in OPTIONS.items()} | {
    "num_images_per_prompt": "batch_size",
    "mask_image": "mask",
    "mask_blur": "mask_blur",
}
_KNOWN: Final = frozenset(DrawRequest.__struct_fields__)


def understood(fields: Mapping[str, Any], *, edits: bool) -> tuple[DrawRequest, list[str]]:
    """Return the request that fields make, and notes on those that change nothing here.

    An option may have the name that it has on the command line, in a list or in Python: ``guidance`` and
    ``guidance_scale`` are ``cfg_scale``.

    Args:
        fields: of the body.
        edits: whether it starts from a picture (img2img).

    Raises:
        msgspec.ValidationError: a value is not of its field's kind.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    taken = {name: value for name, value in given.items() if name in _KNOWN}
    others = {}
    for name in given.keys() - taken.keys():
        own = _FIELDS.get(field_of(name) or "")
        if own is None or own in taken:
            others[name] = given[name]
        else:
            taken[own] = given[name]
    body = msgspec.convert(taken, DrawRequest, strict=False)
    return body, unheeded({name: given[name] for name in given if name in others}, body, edits=edits)
