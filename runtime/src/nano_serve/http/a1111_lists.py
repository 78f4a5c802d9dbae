"""A1111's routes that only list things: what there is here, and empty lists that bots and editors want to see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from nano_runtime import sampler_names
from nano_serve.http.answers import JsonAnswer
from nano_serve.http.routes import Endpoint, Handler
from nano_serve.studio import Studio

__all__ = ["list_endpoints", "upscalers"]

_API: Final = "/sdapi/v1"
_EMPTY: Final = (
    "loras", "sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles",
    "script-info", "extensions", "latent-upscale-modes",
)  # fmt: skip
_SPREADS: Final = {"automatic": "Automatic", "karras": "Karras", "exponential": "Exponential", "beta": "Beta"}
_ALIASES: Final = ["simple", "normal", "uniform"]


def list_endpoints(studio: Studio) -> list[Endpoint]:
    """Return the routes."""
    fixed: Mapping[str, Any] = {
        **{f"{_API}/{name}": [] for name in _EMPTY},
        f"{_API}/samplers": _samplers(),
        f"{_API}/schedulers": _schedulers(),
        f"{_API}/upscalers": upscalers(),
        f"{_API}/embeddings": {"loaded": {}, "skipped": {}},
        f"{_API}/scripts": {"txt2img": [], "img2img": []},
        f"{_API}/cmd-flags": {"api": True},
        "/config": {"components": []},
        "/startup-events": True,
        "/internal/ping": {},
    }

    async def models(_request: Request) -> Response:
        """List bundles as checkpoints."""
        return JsonAnswer([_model(one.title, one.bundle.manifest.name, one.bundle.digest) for one in studio.shelf])

    async def memory(_request: Request) -> Response:
        """Say how much memory this machine has."""
        return JsonAnswer({"ram": _ram(), "cuda": {"error": "drawing needs no graphics card"}})

    lists = [Endpoint("GET", path, _fixed(answer), None, Any) for path, answer in fixed.items()]
    more = (("sd-models", models), ("memory", memory))
    return [*lists, *(Endpoint("GET", f"{_API}/{name}", handler, None, Any) for name, handler in more)]


def upscalers() -> list[dict[str, Any]]:
    """Return the ways to enlarge a picture."""
    names = ("None", "Lanczos", "Nearest")
    return [{"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4} for name in names]


def _samplers() -> list[dict[str, Any]]:
    """Return the samplers by A1111's names; those that it has not by ours."""
    found: dict[str, list[str]] = {}
    for name, label in sampler_names().items():
        found.setdefault(label, []).append(name)
    return [{"name": label, "aliases": names, "options": {}} for label, names in found.items()]


def _schedulers() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": label,
            "aliases": _ALIASES if name == "automatic" else [],
            "default_rho": 7.0 if name == "karras" else -1.0,
            "need_inner_model": False,
        }
        for name, label in _SPREADS.items()
    ]


def _model(title: str, name: str, digest: str) -> dict[str, Any]:
    return {
        "title": title,
        "model_name": name,
        "hash": digest[:10],
        "sha256": digest,
        "filename": f"{name}.safetensors",  # no such file: clients want a name, and nobody should learn a path
        "config": None,
    }


def _ram() -> dict[str, int]:
    """Return free, used and all memory in bytes; zeros where the system does not say."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return {"free": 0, "used": 0, "total": 0}
    return {"free": free, "used": total - free, "total": total}


def _fixed(answer: Any) -> Handler:  # noqa: ANN401 - as JSON
    """Return a handler that always answers the same."""

    async def handle(_request: Request) -> Response:
        """List what there is."""
        return JsonAnswer(answer)

    return handle
