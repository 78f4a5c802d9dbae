"""What a request of A1111's API asks for and does not get here: each is noted, and the answer's ``info`` says so.

Names and defaults are those of Forge's ``modules/api/models.py``, ``modules/processing.py`` and
``modules/shared_options.py`` (dfdcbab), and of what real programs send. What A1111 itself does not heed is not noted:
``hr_scale`` without ``enable_hr``, ``mask_blur`` without a mask.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Any, Final

from nano_runtime.rows.columns import field_of
from nano_serve.http.a1111_shapes import DrawRequest
from nano_serve.notes import MOST_SHOWN, changes_nothing

__all__ = ["eta_unheeded", "setting_unheeded", "unheeded", "without_networks"]

_OFF: Final = (None, False, 0, "", "none")
_ONE: Final = (None, 1)
_FIELDS: Final[Mapping[str, Container[Any]]] = {
    "tiling": _OFF,
    "restore_faces": _OFF,
    "refiner_checkpoint": _OFF,
    "styles": _OFF,
    "clip_skip": (*_OFF, 1, -1),  # of SD.Next, koboldcpp and stable-diffusion.cpp
    "distilled_cfg_scale": (None, 3.5),
    "s_churn": _OFF,
    "s_min_uncond": _OFF,
    "s_tmin": _OFF,
    "s_tmax": _OFF,
    "s_noise": _ONE,
    "initial_noise_multiplier": _ONE,
    "seed_resize_from_w": (*_OFF, -1),
    "seed_resize_from_h": (*_OFF, -1),
    "firstphase_width": _OFF,
    "firstphase_height": _OFF,
}
"""Fields that change A1111's pictures and not ours, each with the values that leave a picture as it is."""

_WITH_MASK: Final[Mapping[str, Container[Any]]] = {
    "mask_round": (None, True),
    "latent_mask": _OFF,
}
"""The same, of a request with a mask."""

_NO_MATTER: Final = frozenset(
    {"save_images", "do_not_save_samples", "do_not_save_grid", "force_task_id", "override_settings_restore_afterwards"}
    | {"comments", "script_args", "disable_extra_networks", "refiner_switch_at", "firstpass_image"}
    | {"inpaint_full_res_padding", "url", "auth"}  # the last two are SillyTavern's own
)
"""Fields that no picture depends on, or only together with one that is noted."""

_HIGH_RESOLUTION: Final = "hr_"
_SETTINGS: Final[Mapping[str, Container[Any]]] = {
    "CLIP_stop_at_last_layers": (*_OFF, 1),
    "sd_vae": (*_OFF, "automatic"),
    "samples_format": (*_OFF, "png"),
    "ddim_discretize": (*_OFF, "uniform"),
    "randn_source": (*_OFF, "gpu", "cpu"),
    "emphasis": (*_OFF, "original"),
    "enable_emphasis": (None, True),
    "inpainting_mask_weight": _ONE,
    "initial_noise_multiplier": _ONE,
    "eta_ancestral": _ONE,
    "s_noise": _ONE,
    "comma_padding_backtrack": (None, 20),
}
"""Settings of which something else than "off" leaves a picture as it is."""

_SETTINGS_NO_MATTER: Final = re.compile(
    r"(save|samples|grid|outdir|directories|live_preview|show|return|jpeg|webp|ui|infotext|add)s?_.*"
    r"|sd_model_checkpoint|sd_checkpoint_hash|enable_pnginfo|send_seed|send_size|do_not_show_images|memmon_poll_rate"
)
"""Settings about files, the page and the text in pictures."""

_ORIGINAL: Final = 1  # of inpainting_fill: what is drawn anew begins with the picture, as it does here
_NETWORK: Final = re.compile(r"<(\w{1,40}):([^<>]{1,200})>")


def unheeded(others: Mapping[str, Any], body: DrawRequest, *, edits: bool) -> list[str]:
    """Return what a request sets that changes nothing here, as notes.

    Args:
        others: fields of the request that have no meaning here.
        body: the rest of it.
        edits: whether it starts from a picture (img2img).
    """
    masked = edits and body.mask is not None
    found = [note for name, value in others.items() if (note := _field_unheeded(name, value, masked=masked))]
    if masked and _plain(body.inpainting_fill) not in (None, _ORIGINAL):
        found.append("inpainting_fill: the masked part begins with the picture itself")
    if edits and body.enable_hr:
        found.append("enable_hr changes nothing in img2img")
    pictures = {"init_images": body.init_images, "mask": body.mask}
    return [*found, *(f"{name} changes nothing in txt2img" for name, one in pictures.items() if one and not edits)]


def setting_unheeded(name: str, value: object) -> str | None:
    """Return a note on a setting (``override_settings``) that changes nothing here; None for one that is as it is."""
    if name in _SETTINGS:
        return None if _plain(value) in _SETTINGS[name] else _note(name, value)
    return None if _is_off(value) or _SETTINGS_NO_MATTER.fullmatch(name) else _note(name, value)


def eta_unheeded(eta: object, scheduler: str) -> str | None:
    """Return a note on an eta that the sampler that draws does not have; None for its own, and for none."""
    own = _eta_of(scheduler)
    return None if own is None or _plain(eta) in {None, own} else _note("eta", eta)


def without_networks(text: str, notes: list[str]) -> str:
    """Return a prompt without A1111's tags of networks (``<lora:name:1>``), which are no words to draw; note each."""
    tags = _NETWORK.findall(text)
    notes += [f"{kind} {name.partition(':')[0][:MOST_SHOWN]!r} is not here" for kind, name in tags]
    return _NETWORK.sub("", text)


def _field_unheeded(name: str, value: object, *, masked: bool) -> str | None:
    """Return a note on a field that has no meaning here; None for one that changes nothing anywhere."""
    if name in _NO_MATTER or name.startswith(_HIGH_RESOLUTION) or (name in _WITH_MASK and not masked):
        return None
    neutral = {**_FIELDS, **_WITH_MASK}.get(name)
    if neutral is not None:
        quiet = _plain(value) in neutral or (neutral is _OFF and _is_off(value))
        return None if quiet else _note(name, value)
    if _is_off(value) and not _is_number(value) and field_of(name) is None:
        return None
    return changes_nothing(name, value)


def _is_off(value: object) -> bool:
    """Return whether a value asks for nothing: bots send ``[null]`` for no styles."""
    if isinstance(value, list):
        return all(map(_is_off, value))
    return value == {} or _plain(value) in _OFF


def _is_number(value: object) -> bool:
    return isinstance(_plain(value), int | float) and not isinstance(_plain(value), bool)


def _plain(value: object) -> object:
    """Return a value as it would be without the quotation marks that some programs send, in lower case."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    with suppress(ValueError):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _eta_of(scheduler: str) -> float | None:
    """Return the eta that a sampler has here; None for those that take any, because they have none."""
    if scheduler == "ddim":
        return 0.0
    return 1.0 if "sde" in scheduler or scheduler.endswith("_a") or "_a_" in scheduler else None


def _note(name: str, value: object) -> str:
    return f"{name[:MOST_SHOWN]}={str(value)[:MOST_SHOWN]} is not done here"
