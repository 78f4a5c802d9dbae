"""What a request of A1111's API asks for and does not get here: each is noted, and the answer's ``info`` says so.

Names and defaults are those of Forge's ``modules/api/models.py`` and ``modules/processing.py`` (dfdcbab).
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, Final

from nano_serve.http.a1111_shapes import DrawRequest

__all__ = ["unheeded", "without_networks"]

_OFF: Final = (None, False, 0, "", "None", "none")
_NEUTRAL: Final[Mapping[str, Container[Any]]] = {
    "tiling": _OFF,
    "restore_faces": _OFF,
    "refiner_checkpoint": _OFF,
    "s_churn": _OFF,
    "seed_resize_from_w": (*_OFF, -1),
    "seed_resize_from_h": (*_OFF, -1),
    "s_noise": (None, 1),
    "initial_noise_multiplier": (None, 1),
}
_SETTINGS: Final[Mapping[str, Container[Any]]] = {
    "CLIP_stop_at_last_layers": (None, 1, "1"),
    "sd_vae": (*_OFF, "Automatic", "automatic"),
    "eta_noise_seed_delta": _OFF,
}
_ORIGINAL: Final = 1  # of inpainting_fill: what is drawn anew begins with the picture, as it does here
_NETWORK: Final = re.compile(r"<(\w{1,40}):([^<>]{1,200})>")
_MOST_SHOWN: Final = 60


def unheeded(body: DrawRequest, scheduler: str) -> list[str]:
    """Return what a request sets that changes nothing here, as notes.

    Args:
        body: the request.
        scheduler: our name of the sampler that draws.
    """
    given = {name: getattr(body, name) for name in _NEUTRAL}
    found = [_note(name, given[name]) for name, quiet in _NEUTRAL.items() if given[name] not in quiet]
    settings = body.override_settings or {}
    found += [_note(name, settings[name]) for name, quiet in _SETTINGS.items() if settings.get(name) not in quiet]
    if isinstance(body.styles, list) and any(one not in _OFF for one in body.styles):  # bots send [null]
        found.append(_note("styles", body.styles))
    if body.mask is not None and body.inpainting_fill not in (None, _ORIGINAL):
        found.append("inpainting_fill: the masked part begins with the picture itself")
    own_eta = _eta_of(scheduler)
    if own_eta is not None and body.eta not in (None, own_eta):
        found.append(_note("eta", body.eta))
    return found


def without_networks(text: str, notes: list[str]) -> str:
    """Return a prompt without A1111's tags of networks (``<lora:name:1>``), which are no words to draw; note each."""
    tags = _NETWORK.findall(text)
    notes += [f"{kind} {name.partition(':')[0][:_MOST_SHOWN]!r} is not here" for kind, name in tags]
    return _NETWORK.sub("", text)


def _eta_of(scheduler: str) -> float | None:
    """Return the eta that a sampler has here; None for those that take any, because they have none."""
    if scheduler == "ddim":
        return 0.0
    return 1.0 if "sde" in scheduler or scheduler.endswith("_a") or "_a_" in scheduler else None


def _note(name: str, value: object) -> str:
    return f"{name}={str(value)[:_MOST_SHOWN]} is not done here"
