"""Reads a model card's metadata: the YAML between two lines of three dashes at the top of a checkpoint's README.md."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

__all__ = ["example_prompts", "front_matter", "guidance_scale"]

# The Hub's convention: nothing stands before it but a byte order mark and blanks.
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def front_matter(card: str | None) -> dict[str, Any]:
    """Return a card's metadata; empty if there is none, or if it is damaged."""
    found = None if card is None else _FRONT_MATTER.match(card)
    if found is None:
        return {}
    try:
        meta = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}
    return meta if isinstance(meta, dict) else {}


def example_prompts(card: str | None) -> tuple[str, ...]:
    """Return the author's example prompts: the texts of the Hub's ``widget`` entries."""
    entries = front_matter(card).get("widget")
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())


def guidance_scale(card: str | None) -> float | None:
    """Return the author's guidance scale, from the Hub's ``inference.parameters``; None without one."""
    inference = front_matter(card).get("inference")
    parameters = inference.get("parameters") if isinstance(inference, dict) else None
    scale = parameters.get("guidance_scale") if isinstance(parameters, dict) else None
    return float(scale) if isinstance(scale, (int, float)) and math.isfinite(scale) and scale >= 0 else None
