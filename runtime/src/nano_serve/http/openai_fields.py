"""Reads the fields of OpenAI's images API: its own, and those that people know from elsewhere for the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nano_runtime.rows.columns import field_of
from nano_serve.http.openai_shapes import ImagesRequest

__all__ = ["understood"]

_KNOWN: Final = frozenset(ImagesRequest.__struct_fields__)
_NO_MATTER: Final = frozenset({"user", "moderation", "safety_identifier", "metadata"})  # no picture depends on them
_MOST_SHOWN: Final = 60


def understood(fields: Mapping[str, Any]) -> tuple[ImagesRequest, tuple[str, ...]]:
    """Return the request that fields make, and notes on those that change nothing here.

    An option may have the name that it has on the command line, in a list or in A1111: ``guidance`` and ``cfg_scale``
    are ``guidance_scale``.

    Raises:
        msgspec.ValidationError: a value is not of its field's kind.
    """
    taken = {name: value for name, value in fields.items() if name in _KNOWN}
    notes = []
    for name, value in fields.items():
        if name in _KNOWN or name in _NO_MATTER or value is None:
            continue
        option = field_of(name)
        if option in _KNOWN and option not in taken:
            taken[option] = value
        else:
            notes.append(f"{name[:_MOST_SHOWN]}={str(value)[:_MOST_SHOWN]} changes nothing here")
    return msgspec.convert(taken, ImagesRequest, strict=False), tuple(notes)
