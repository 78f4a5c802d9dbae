"""What decides whether an export is refused: float graphs that differ from diffusers, and no cost of quantization."""

from __future__ import annotations

import logging

import pytest

from nano_export.errors import ParityError
from nano_export.judge.fidelity import Scores, require_parity, require_resemblance


def scores(component: float, image: float, latents: float = 1e-6) -> Scores:
    return Scores(
        component_psnr_db={"text_encoder": 120.0, "unet": component},
        component_max_abs={"text_encoder": 1e-6, "unet": 1e-2},
        image_psnr_db=image,
        image_ssim=0.9,
        latent_rmse=latents,
    )


def test_float_graphs_that_equal_the_original_are_taken():
    require_parity(scores(110.0, 90.0), "onnxruntime")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (scores(60.0, 90.0), "the fp32 unet on openvino"),
        (scores(float("nan"), 90.0), "the fp32 unet on openvino"),
        (scores(110.0, 13.2, 0.5), "a picture drawn on openvino"),  # equal parts, but another schedule
        (scores(110.0, 90.0, float("nan")), "a picture drawn on openvino"),
    ],
)
def test_float_graphs_that_differ_are_refused(found, why):
    with pytest.raises(ParityError, match=why):
        require_parity(found, "openvino")


def test_int8_as_good_as_usual_says_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        require_resemblance(scores(28.0, 24.0), "onnxruntime")
    assert not caplog.records


@pytest.mark.parametrize(
    ("found", "figure"),
    [(scores(17.5, 24.0), "unet 17.5 dB"), (scores(28.0, 13.2), "whole pictures 13.2 dB")],
)
def test_int8_that_falls_short_is_a_warning_with_its_figures(found, figure, caplog):
    with caplog.at_level(logging.WARNING):
        require_resemblance(found, "onnxruntime")
    (record,) = caplog.records
    assert figure in record.getMessage()


@pytest.mark.parametrize("component", [3.0, float("nan")])
def test_int8_that_computes_something_else_is_refused(component):
    with pytest.raises(ParityError, match="the int8 unet"):
        require_resemblance(scores(component, 24.0), "onnxruntime")
