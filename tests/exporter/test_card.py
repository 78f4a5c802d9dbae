"""What a model's card says about how to draw with it, and which prompts an export takes from it."""

from __future__ import annotations

import pytest

from nano_export.judge.prompts import prompts_for
from nano_export.source.card import example_prompts, front_matter, parameter


def card(metadata: str) -> str:
    return f"---\n{metadata}\n---\n# A model\nwidget: in the text is no metadata\n"


EXAMPLES = card("widget:\n" + "\n".join(f"- text: picture {i}" for i in range(40)))


def test_examples_are_the_texts_of_the_widgets():
    assert example_prompts(card('widget:\n- text: " a cat "\n- text: a dog\n  output: {url: a.png}')) == (
        "a cat",
        "a dog",
    )


@pytest.mark.parametrize(
    "metadata",
    [
        "widget: cat",
        "widget: [1, {src: a.png}, {text: 3}, {text: ' '}]",
        "widget: {text: cat}",
        "[",
        "a: b",
        "date: 2023-02-30",
    ],
)
def test_other_widgets_give_nothing(metadata):
    assert example_prompts(card(metadata)) == ()


def test_a_card_without_metadata_says_nothing():
    assert front_matter("# A model\n---\nlicense: mit\n---\n") == {}
    assert front_matter(None) == {}


def test_the_guidance_scale_is_the_inference_parameter():
    assert parameter(card("inference:\n  parameters:\n    guidance_scale: 3"), "guidance_scale") == 3.0


@pytest.mark.parametrize(
    "metadata",
    [
        "inference: false",
        "inference: {parameters: 3}",
        "inference: {parameters: {guidance_scale: strong}}",
        "inference: {parameters: {guidance_scale: .nan}}",
        "inference: {parameters: {guidance_scale: -1}}",
        "inference: {parameters: {guidance_scale: 101}}",
        f"inference: {{parameters: {{guidance_scale: {10**400}}}}}",
        "guidance_scale: 3",
    ],
)
def test_other_forms_of_guidance_are_unsaid(metadata):
    assert parameter(card(metadata), "guidance_scale") is None


@pytest.mark.parametrize("text", [None, card("license: mit"), card("widget:\n- text: a cat"), EXAMPLES])
def test_nothing_is_judged_that_was_calibrated_on(text):
    prompts = prompts_for(text)
    assert len(prompts.judge) == 2
    assert len(prompts.calibration) >= 12
    assert not set(prompts.judge) & set(prompts.calibration)


def test_a_models_own_examples_come_first():
    prompts = prompts_for(EXAMPLES)
    assert prompts.judge == ("picture 0", "picture 1")
    assert prompts.calibration[0] == "picture 2"
    assert len(prompts.calibration) == 24  # a card may hold thousands
