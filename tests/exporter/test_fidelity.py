"""Which exports are refused: graphs that compute something else, and with ``--strict`` INT8 that misses its goal."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest

from nano_export.errors import GoalError, ParityError
from nano_export.judge.fidelity import Scores, goals_for, require_goal, require_parity, require_resemblance
from nano_runtime.bundle.manifest import Backend


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


GOALS = goals_for(None)


def test_int8_that_reaches_its_goal_says_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        require_goal({"onnxruntime": scores(38.0, 24.0)}, GOALS, strict=True)
    assert not caplog.records


@pytest.mark.parametrize(
    ("found", "figure"),
    [
        (scores(17.5, 24.0), "unet 17.5 dB of 36; whole pictures 24.0 dB from fp32, on openvino"),
        (scores(2.0, 5.0), "unet 2.0 dB of 36"),  # INT8 that is no use at all is no wrong graph
        (scores(41.0, 13.2), "pictures of 20 dB; whole pictures 13.2 dB"),
    ],
)
def test_int8_that_falls_short_is_a_warning_with_its_figures_and_refused_if_strict(found, figure, caplog):
    both: dict[Backend, Scores] = {"onnxruntime": scores(41.0, 24.0), "openvino": found}
    with caplog.at_level(logging.WARNING):
        require_goal(both, GOALS, strict=False)
    (record,) = caplog.records
    assert figure in record.getMessage()
    with pytest.raises(GoalError, match=re.escape(figure)):
        require_goal(both, GOALS, strict=True)


def test_a_goal_of_ones_own_is_for_every_component():
    found: dict[Backend, Scores] = {"onnxruntime": scores(41.0, 24.0)}
    require_goal(found, goals_for(41.0), strict=True)
    with pytest.raises(GoalError, match=r"unet 41\.0 dB of 42;"):
        require_goal(found, goals_for(42.0), strict=True)
    with pytest.raises(GoalError, match=r"text_encoder 120\.0 dB of 121, unet 41\.0 dB of 121;"):
        require_goal(found, goals_for(121.0), strict=True)


@pytest.mark.parametrize("db", [4.0, 9.9, 25.0, 60.0])
def test_poor_int8_is_no_wrong_graph_where_the_engines_agree(db):
    require_resemblance({"onnxruntime": scores(db, 12.0)})
    require_resemblance({"onnxruntime": scores(db, 12.0), "openvino": scores(db + 3, 12.0)})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (scores(4.0, 24.0), r"the int8 unet on openvino .*4\.0 dB, the 41\.0 dB of the same graph on another engine"),
        (scores(float("nan"), 24.0), "the int8 unet on openvino"),
        (replace(scores(18.0, 24.0), lifeless=("unet",)), "the int8 unet on openvino .*all its values are equal"),
    ],
)
def test_an_engine_that_computes_something_else_is_refused(wrong, why):
    with pytest.raises(ParityError, match=why):
        require_resemblance({"onnxruntime": scores(41.0, 24.0), "openvino": wrong})
