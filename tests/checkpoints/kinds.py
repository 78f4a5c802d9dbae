"""The kinds of checkpoints that people have: what is changed in each, and what is expected of its export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkpoints.given import Given, plain
from tests.checkpoints.recipes import BETAS, PNDM, Recipe

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        recipe: of its checkpoint.
        options: of its export.
        make: writes it, where it is more than a recipe.
        form: of the UNet that is expected.
        refused: words that its refusal must have; empty where it is to be drawn.
    """

    recipe: Recipe = field(default_factory=Recipe)
    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., Given] = plain
    form: str = "hoisted"
    refused: tuple[str, ...] = ()

    def given(self, folder: Path) -> Given:
        """Write the checkpoint into a new folder."""
        return self.make(self.recipe, folder, **self.options)


def _scheduled(name: str, **keys: Any) -> Kind:  # noqa: ANN401
    return Kind(recipe=Recipe(scheduler={"_class_name": name, **BETAS, **keys}), options={"size": 16})


KINDS: dict[str, Kind] = {
    "stable diffusion 1.5": Kind(options={"size": 16}),
    "scheduler: DDIM, steps_offset 0 and clip_sample": _scheduled("DDIMScheduler", steps_offset=0, clip_sample=True),
    "scheduler: DPM-Solver++ with -Infinity": _scheduled("DPMSolverMultistepScheduler", lambda_min_clipped=float("-inf"), steps_offset=1),
    "scheduler: DEIS": _scheduled("DEISMultistepScheduler"),
    "scheduler: KDPM2": _scheduled("KDPM2DiscreteScheduler"),
    "scheduler: Euler by the index": Kind(recipe=Recipe(index={"scheduler": ["diffusers", "EulerDiscreteScheduler"]}), options={"size": 16}),
    "scheduler: v-prediction": Kind(recipe=Recipe(scheduler={**PNDM, "prediction_type": "v_prediction"}), options={"size": 16}),
    "unet: no mid block": Kind(recipe=Recipe(unet={"mid_block_type": None}), options={"size": 16}),
    "unet: scale_shift": Kind(recipe=Recipe(unet={"resnet_time_scale_shift": "scale_shift"}), options={"size": 16}, form="standard"),
    "vae: no quant conv": Kind(recipe=Recipe(vae={"use_quant_conv": False, "use_post_quant_conv": False}), options={"size": 16}),
    "files: fp16 only": Kind(recipe=Recipe(dtype="float16", variant="fp16"), options={"size": 16}),
    "size: the checkpoint's own": Kind(),
}
