"""Reads the fields of OpenAI's images API: its own, and those that people know from elsewhere for the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from nano_runtime.rows.columns import field_of
from nano_serve.http.openai_shapes import ImagesRequest
from nano_serve.notes import MOST_SHOWN, changes_nothing

__all__ = ["understood"]

_KNOWN: Final = frozenset(ImagesRequest.__struct_fields__)
_NO_MATTER: Final = frozenset({"user", "moderation", "safety_identifier", "metadata"})  # no picture depends on them
_OTHER_NAMES: Final = {"steps": "num_inference_steps", "seed": "rng_seed"}  # of OpenVINO Model Server
_BASE64: Final = "b64_json"
_PNG, _ALL = "png", 100


def understood(fields: Mapping[str, Any]) -> tuple[ImagesRequest, tuple[str, ...]]:
    """Return the request that fields make, and notes on those that change nothing here.

    An option may have the name that it has on the command line, in a list or in A1111: ``guidance`` and ``cfg_scale``
    are ``guidance_scale``.

    Raises:
        msgspec.ValidationError: a value is not of its field's kind.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    taken = {name: value for name, value in given.items() if name in _KNOWN}
    notes = []
    for name, value in given.items():
        if name in _KNOWN or name in _NO_MATTER:
            continue
        option = field_of(name)
        if option in _KNOWN and option not in taken:
            taken[option] = value
        else:
            notes.append(changes_nothing(name, value))
    body = msgspec.convert(taken, ImagesRequest, strict=False)
    return body, (*notes, *_of_two_names(body), *_without_meaning(body))


def _of_two_names(body: ImagesRequest) -> Iterator[str]:
    """Give an option the value that it has under either name; yield a note on the second if it is another."""
    for name, other in _OTHER_NAMES.items():
        first, second = getattr(body, name), getattr(body, other)
        if first is None:
            setattr(body, name, second)
        elif second not in {None, first}:
            yield changes_nothing(other, second)


def _without_meaning(body: ImagesRequest) -> Iterator[str]:
    """Yield notes on values that change nothing."""
    if body.response_format not in {None, "", _BASE64}:
        yield f"response_format={body.response_format[:MOST_SHOWN]}: pictures come as {_BASE64}"
    if body.background not in {None, "", "auto", "opaque", "transparent"}:  # the last is refused
        yield changes_nothing("background", body.background)
    if (body.output_format or _PNG).lower() == _PNG and body.output_compression not in {None, _ALL}:
        yield "output_compression changes nothing in a PNG"
    if body.partial_images and not body.stream:
        yield "partial_images changes nothing without stream"
