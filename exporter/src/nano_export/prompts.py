"""The prompts that calibrate a quantization and judge its result: everyday subjects, media and lengths."""

from __future__ import annotations

__all__ = ["CALIBRATION_PROMPTS", "JUDGE_PROMPTS"]

CALIBRATION_PROMPTS: tuple[str, ...] = (
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

JUDGE_PROMPTS: tuple[str, ...] = (
    "A watercolor painting of an otter",
    "a lighthouse on a cliff in a storm, dramatic sky",
)
