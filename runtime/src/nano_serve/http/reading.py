"""Reads how a picture was drawn, by us or by another program."""

from __future__ import annotations

import io
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from nano_runtime import DrawOptions, NanoError, read_foreign, read_parameters
from nano_serve import views
from nano_serve.errors import NotFoundError
from nano_serve.shapes import ParametersShape

__all__ = ["parameters_in", "parameters_of", "stopped"]


def parameters_in(content: bytes) -> ParametersShape:
    """Return how a picture was drawn, as far as its file says.

    Raises:
        NotFoundError: it does not say.
    """
    with tempfile.TemporaryDirectory(prefix="nano-serve-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            ours = read_parameters(path)
        except NanoError:
            ours = None
        try:
            foreign = read_foreign(path) if ours is None else None
        except NanoError:
            foreign = None
    if ours is not None:
        return ParametersShape(
            program=f"nano-runtime {ours.version}",
            options=_as_keys(ours.repeated()),
            bundle=ours.bundle,
            edited=ours.edited is not None,
            masked=ours.masked,
            left_out=[] if ours.interrupted_after is None else [stopped(ours.interrupted_after)],
        )
    if foreign is None:
        raise NotFoundError("the picture does not say how it was drawn", "Pictures of ours and of A1111 do.")
    return ParametersShape(
        program=foreign.program,
        options=_as_keys(foreign.repeated()),
        bundle=foreign.model,
        edited=foreign.edited,
        masked=foreign.masked,
        left_out=list(foreign.left_out),
    )


def stopped(calls: int) -> str:
    """Return a note on a picture that was decoded before its time."""
    return "stopped after 1 UNet call" if calls == 1 else f"stopped after {calls} UNet calls"


def parameters_of(text: str) -> ParametersShape | None:
    """Return what A1111's parameters text says; None if it says nothing.

    The text is read where it usually is: in a picture.
    """
    from PIL import Image, PngImagePlugin  # noqa: PLC0415 - see fit

    said = PngImagePlugin.PngInfo()
    said.add_itxt("parameters", text)
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=said)
    try:
        return parameters_in(file.getvalue())
    except NotFoundError:
        return None


def _as_keys(options: DrawOptions) -> dict[str, Any]:
    """Return options as keys of a request: those that are set."""
    return views.as_request({field.name: getattr(options, field.name) for field in fields(options)})
