"""Prompts that calibrate a quantization, and others that judge its result."""

from __future__ import annotations

from dataclasses import dataclass

from nano_export.source.card import example_prompts

__all__ = ["Prompts", "prompts_for"]

_MOST_EXAMPLES = 26

# Everyday subjects, media and lengths.
_CALIBRATION: tuple[str, ...] = (
    "a photo of a red fox sitting in fresh snow, morning light",
    "portrait of an old fisherman with a grey beard, oil painting",
    "a bowl of ramen with egg and spring onions, seen from above",
    "city street at night in the rain, neon signs, reflections",
    "a small wooden cabin beside a mountain lake",
    "close-up of a sunflower, shallow depth of field",
    "steam locomotive crossing a stone bridge, vintage postcard",
    "astronaut riding a bicycle on the moon, digital art",
    "a cup of coffee on a marble table",
    "golden retriever puppy running on a beach",
    "interior of a library with tall shelves and a spiral staircase",
    "minimalist logo of a blue whale, flat colours, white background",
)

_JUDGE: tuple[str, ...] = (
    "A watercolor painting of an otter",
    "a lighthouse on a cliff in a storm, dramatic sky",
)


@dataclass(frozen=True)
class Prompts:
    """Prompts to draw with a checkpoint; none is in both tuples."""

    calibration: tuple[str, ...]
    judge: tuple[str, ...]


def prompts_for(card: str | None) -> Prompts:
    """Choose prompts: the examples in the model's card first, then our own.

    The first two examples judge, the others calibrate. Examples come first because a model of a narrow world gets wrong
    ranges from pictures that it was never meant to draw.

    Args:
        card: text of the checkpoint's README.md; None without one.
    """
    examples = example_prompts(card)[:_MOST_EXAMPLES]
    judging = len(_JUDGE)
    calibration = examples[judging:]
    return Prompts(
        calibration=(*calibration, *_CALIBRATION[len(calibration) :]),
        judge=(*examples[:judging], *_JUDGE[len(examples) :]),
    )
