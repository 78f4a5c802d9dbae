"""Reads a model card's metadata: the YAML between two lines of three dashes at the top of a checkpoint's README.md."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["example_prompts", "front_matter", "parameter"]

_LARGEST = 100
_MOST_LETTERS = 200_000  # long lists of data sets and results have some thousands
# The Hub's convention: nothing stands before it but a byte order mark and blanks.
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases: a few hundred bytes of aliases of aliases stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias; the signature is the base's."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a card has no use for aliases")
        return super().compose_node(parent, index)


def front_matter(card: str | None) -> dict[str, Any]:
    """Return a card's metadata; empty if there is none, or if it is damaged."""
    found = None if card is None else _FRONT_MATTER.match(card)
    if found is None:
        return {}
    if len(found[1]) > _MOST_LETTERS:
        return {}
    try:
        meta = _Loader(found[1]).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError):  # a date of no calendar is a ValueError
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
