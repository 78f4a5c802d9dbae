"""What the demo model knows: the concepts, colours and held-out pairs of `concepts.json`."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Knowledge", "load_knowledge"]


@dataclass(frozen=True)
class Knowledge:
    """The contents of `concepts.json`: everything the model is asked to know.

    Attributes:
        template: prompt with the fields `{article}`, `{concept}` and `{color}`.
        names: one word per concept.
        characters: the emoji of each concept, in the order of `names`.
        colors: background colours, name to RGB in 0..255.
        held_out: (concept, colour) pairs that no training picture shows.
    """

    template: str
    names: tuple[str, ...]
    characters: tuple[str, ...]
    colors: dict[str, tuple[int, int, int]]
    held_out: frozenset[tuple[str, str]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All (concept, colour) pairs, concepts slowest; a pair's position in this list is its number in caches."""
        return [(name, color) for name in self.names for color in self.colors]

    def prompt(self, concept: str, color: str) -> str:
        """The sentence that asks for `concept` on `color`."""
        vowel = concept[0] in "aeiou" and not concept.startswith("uni")
        article = "an" if vowel else "a"
        return self.template.format(article=article, concept=concept, color=color)

    def sample(self, count: int) -> list[tuple[str, str]]:
        """The `count` pairs to judge by, always the same: all held-out ones, at most a quarter, and trained ones."""
        rng = random.Random(0)  # noqa: S311 - a sample, not a secret
        held = sorted(self.held_out)
        trained = [pair for pair in self.pairs if pair not in self.held_out]
        first = rng.sample(held, min(len(held), count // 4))
        return [*first, *rng.sample(trained, count - len(first))]


def load_knowledge(path: Path) -> Knowledge:
    """Read `concepts.json`."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Knowledge(
        template=raw["prompt"],
        names=tuple(concept["name"] for concept in raw["concepts"]),
        characters=tuple(concept["character"] for concept in raw["concepts"]),
        colors={name: (rgb[0], rgb[1], rgb[2]) for name, rgb in raw["colors"].items()},
        held_out=frozenset((concept, color) for concept, color in raw["held_out"]),
    )
