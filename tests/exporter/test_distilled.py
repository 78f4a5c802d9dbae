"""How models are drawn with that were distilled to draw in a few steps: by their kind, or as their card says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nano_export.source.checkpoint import Checkpoint
from nano_export.source.distilled import Habits, habits_of

TRAILING = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
LEADING = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
LCM, TCD = {"_class_name": "LCMScheduler"}, {"_class_name": "TCDScheduler"}


def habits(
    model: str, scheduler: dict[str, Any], embedded: int | None = None, card: str | None = None
) -> Habits | None:
    unet = SimpleNamespace(config=SimpleNamespace(time_cond_proj_dim=embedded))
    found = SimpleNamespace(unet=unet, scheduler=scheduler, card=card, source=SimpleNamespace(model=model))
    return habits_of(cast("Checkpoint", found))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (habits("SimianLuo/LCM_Dreamshaper_v7", LCM, 256), Habits(4, 8.5, "lcm")),
        (habits("someone/mine", LEADING, 256), Habits(4, 8.5, "lcm")),
        (habits("someone/mine", LCM), Habits(4, 1.0, "lcm")),
        (habits("someone/mine-8step", TCD), Habits(8, 1.0, "tcd")),
        (habits("stabilityai/sd-turbo", TRAILING), Habits(4, 1.0, "euler")),
        (habits("someone/hyper-sd15-1-step", TRAILING), Habits(1, 1.0, "euler")),
        (habits("someone/mine", TRAILING, card="---\ntags:\n- sd-turbo\n---\n"), Habits(4, 1.0, "euler")),
        (
            habits(
                "someone/turbo",
                TRAILING,
                card="---\ninference:\n  parameters: {guidance_scale: 1.5, num_inference_steps: 2}\n---\n",
            ),
            Habits(2, 1.5, "euler"),
        ),
    ],
)
def test_distilled_models_are_drawn_in_few_steps(found, expected):
    assert found == expected


@pytest.mark.parametrize(
    ("model", "scheduler", "card"),
    [
        ("stabilityai/stable-diffusion-2-1", LEADING, None),
        ("someone/turbo-cars", LEADING, None),  # a name alone says nothing: few steps need the noisiest timestep
        ("someone/zero-terminal-snr", TRAILING, None),
        ("someone/mine", TRAILING, "---\ninference:\n  parameters: {num_inference_steps: 2}\n---\n"),
    ],
)
def test_other_models_are_not(model, scheduler, card):
    assert habits(model, scheduler, card=card) is None
