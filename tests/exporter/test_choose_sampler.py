"""The choice of sampler and steps, with samplers whose pictures are as far from finished as the test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from nano_export.choose.sampler import choose_default
from nano_runtime.options import DrawOptions
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import NOISY, RECORDS

PROMPTS = ("a fox", "a lighthouse")
Levels = dict[tuple[str, int], float]
UNIPC = tuple(("unipc_karras", steps) for steps in (9, 10, 12, 15))
EULER = tuple(("euler_karras", steps) for steps in (12, 15, 18))


class Painter:
    """Stands in for a pipeline: a picture of noise level ``levels[scheduler, steps]``, the finished one without.

    With strong guidance the level is that of ``strong``, and the finished picture is another.
    """

    def __init__(self, own: str, levels: Levels, guidance_scale: float = 7.5, strong: Levels | None = None) -> None:
        self.own_scheduler = own
        self.levels, self.strong = levels, strong
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(guidance_scale=guidance_scale))
        self.drawn: list[tuple[str, int]] = []

    def __call__(self, call, *, seed, scheduler, num_inference_steps, output_type):
        assert (tuple(call.prompt), seed, output_type) == (PROMPTS, 0, "np")
        self.drawn.append((scheduler, num_inference_steps))
        assert call.guidance_scale in (None, 9.0)
        levels = self.levels if call.guidance_scale is None else self.strong
        assert levels is not None, "it was not to be drawn with strong guidance"
        rng = np.random.default_rng(1 if call.guidance_scale is None else 2)
        finished = rng.random((2, 16, 16, 3))
        level = levels.get((scheduler, num_inference_steps), 0.0)
        return SimpleNamespace(images=finished + level * rng.standard_normal(finished.shape))


def chosen(painter: Painter):
    events = list(choose_default(cast("Pipeline", painter), [DrawOptions(prompt=PROMPTS)]))
    shares = [share for share, _ in events]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    return events[-1][1]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.02, 0.01, 0.007, 0.005), ("unipc_karras", 9)),  # the first is nearer than the checkpoint's own, at 0.03
        ((0.04, 0.02, 0.01, 0.007), ("unipc_karras", 10)),
        ((0.06, 0.04, 0.02, 0.01), ("unipc_karras", 12)),
        ((0.08, 0.06, 0.04, 0.02), ("unipc_karras", 15)),
        ((0.08, 0.07, 0.06, 0.04), ("pndm", 20)),  # none is
    ],
)
def test_the_cheapest_that_is_as_near_as_the_own_sampler(levels, expected):
    tried = {**dict(zip(UNIPC, levels, strict=True)), **dict.fromkeys(EULER, 0.1)}
    painter = Painter("pndm", {("pndm", 20): 0.03, **tried})
    default = chosen(painter)
    assert (default.scheduler, default.steps) == expected
    level = {("pndm", 20): 0.03, **tried}[expected]
    assert default.fidelity["image_psnr_db"] == pytest.approx(-20 * np.log10(level), abs=0.3)
    assert default.fidelity["own.image_psnr_db"] == pytest.approx(-20 * np.log10(0.03), abs=0.3)
    if expected[0] != "pndm":
        assert painter.drawn[-1] == expected  # dearer ones are not drawn any more


@pytest.mark.parametrize(
    ("guidance_scale", "confetti", "expected"),
    [
        (2.0, (), ("unipc_karras", 9)),
        (2.0, UNIPC[:1], ("unipc_karras", 10)),
        (2.0, UNIPC, ("euler_karras", 15)),  # 12 steps are too far from finished with the model's own guidance
        (2.0, (*UNIPC, *EULER), ("pndm", 20)),
    ],
)
def test_the_default_of_a_model_of_weak_guidance_holds_for_strong_guidance(guidance_scale, confetti, expected):
    levels = {("pndm", 20): 0.03, **dict.fromkeys((*UNIPC, *EULER), 0.02), EULER[0]: 0.04}
    strong = {**dict.fromkeys((*UNIPC, *EULER), 0.05), **dict.fromkeys(confetti, 0.1)}  # 26 and 20 dB
    default = chosen(Painter("pndm", levels, guidance_scale, strong))
    assert (default.scheduler, default.steps) == expected


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5, 9.0])
def test_it_is_not_asked_of_models_of_the_usual_guidance_nor_of_none(guidance_scale):
    levels = {("pndm", 20): 0.03, **dict.fromkeys(UNIPC, 0.02)}
    assert chosen(Painter("pndm", levels, guidance_scale)).steps == UNIPC[0][1]


@pytest.mark.parametrize("own", ["euler_a", "lcm", "dpmpp_2m_sde_karras"])
def test_a_sampler_that_adds_noise_stays(own):
    """More steps are another picture there, not a better one: nothing to measure, and nothing is drawn."""
    painter = Painter(own, {})
    assert chosen(painter) is None
    assert painter.drawn == []


def test_every_sampler_is_known_to_add_noise_or_not():
    assert set(RECORDS) > NOISY
