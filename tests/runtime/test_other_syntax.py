"""Instructions of other programs in a prompt are named, with what to use instead; plain sentences are left alone."""

from __future__ import annotations

import logging

import pytest
from tests.runtime.fakes import FakeGraphs, pipeline_of

from nano_runtime.networks.other_syntax import read_as_words


@pytest.mark.parametrize(
    ("prompt", "found", "instead"),
    [
        ("a fox <lora:ink:0.8>", "<lora:ink:0.8>", "--lora"),
        ("a fox <lora:ink>, <lyco:x:1>", "<lora:ink>", "--lora"),
        ("<hypernet:ink:0.5> a fox", "<hypernet:ink:0.5>", "hypernetworks"),
        ("a fox, embedding:ink", "embedding:ink", "--embedding"),
        ("a fox AND an owl", "AND", "not mixed"),
        ("a fox AND an owl :1.2", "AND", "not mixed"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5]", "prompt editing"),
        ("a [dog:0.25]", "[dog:0.25]", "prompt editing"),
        ("a [cat::10]", "[cat::10]", "prompt editing"),
        ("a [cat|dog] in the snow", "[cat|dog]", "prompt editing"),
        ("a {cat|dog}", "{cat|dog}", "one prompt for each choice"),
        ("a __animal__", "__animal__", "one prompt for each choice"),
        ("a (red:1.3) fox", "(red:1.3)", "--weights"),
    ],
)
def test_an_instruction_is_named_with_what_to_do_instead(prompt, found, instead):
    ((instruction, what),) = read_as_words(prompt, weighted=False)
    assert instruction == found
    assert instead in what


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a fox and an owl",
        "AND",
        "a fox, 4:3, at 10:30 (in the morning)",
        "a [fox] (in the snow)",
        "a fox | an owl",
        "snake_case and __init__ of a fox_",
        "5 < 6 and 7 > 3",
        r"a fox \(red:1.3\)",
    ],
)
def test_sentences_are_left_alone(prompt):
    said = read_as_words(prompt, weighted=False)
    assert [one for one in said if one[0] != "__init__"] == []


def test_a_weight_that_is_read_needs_no_hint():
    assert read_as_words("a (red:1.3) fox", weighted=True) == []
    assert len(read_as_words("a (red:1.3) fox <lora:x:1>", weighted=True)) == 1


def test_a_drawing_warns_once_and_draws(hoisted, caplog):
    pipe = pipeline_of(FakeGraphs(hoisted))
    with caplog.at_level(logging.WARNING):
        pipe("a fox <lora:ink:0.8>", seed=7, negative_prompt="blurry", num_inference_steps=1)
    said = [record.getMessage() for record in caplog.records]
    (warning,) = [message for message in said if "read as words" in message]
    assert warning.startswith("<lora:ink:0.8> in the prompt is read as words: nano-export --lora")
