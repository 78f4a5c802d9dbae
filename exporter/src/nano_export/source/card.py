"""Reads a model card's metadata: the YAML between two lines of three dashes at the top of a checkpoint's README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nano_export.source.readable import is_passed_on
from nano_export.source.yaml_text import parsed_yaml

__all__ = ["example_prompts", "front_matter", "parameter", "read_card"]

_LARGEST = 100
# The Hub's convention: nothing stands before it but a byte order mark and blanks.
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def read_card(folder: Path) -> str | None:
    """Return the text of a checkpoint's README.md, which its bundle carries on; None without one.

    Raises:
        CheckpointError: it cannot be read, or is large.
    """
    path = folder / "README.md"
    return path.read_text(encoding="utf-8", errors="replace") if is_passed_on(path, folder) else None


def front_matter(card: str | None) -> dict[str, Any]:
    """Return a card's metadata; empty if there is none, or if it is damaged."""
    found = None if card is None else _FRONT_MATTER.match(card)
    if found is None:
        return {}
    try:
        meta = parsed_yaml(found[1])
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def example_prompts(card: str | None) -> tuple[str, ...]:
    """Return the author's example prompts: the texts of the Hub's ``widget`` entries."""
    entries = front_matter(card).get("widget")
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())


def parameter(card: str | None, name: str) -> float | None:
    """Return a number of the Hub's ``inference.parameters``, such as ``guidance_scale``; None without.

    Numbers below 0 and beyond 100 are mistakes, and count as none.
    """
    inference = front_matter(card).get("inference")
    parameters = inference.get("parameters") if isinstance(inference, dict) else None
    value = parameters.get(name) if isinstance(parameters, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= _LARGEST else None
