"""The demo's hint knows what the demo was taught, and says what it was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nano_runtime import Pipeline
from nano_runtime.bundle.folder import DEMO
from nano_runtime.cli import generate
from nano_runtime.drawing.demo_prompts import (
    COLOURS,
    EXAMPLES,
    THINGS,
    guidance_hint,
    negative_hint,
    prompt_hint,
    steps_hint,
)

CONCEPTS = Path(__file__).parents[2] / "models/demo/concepts.json"


def test_the_lists_are_those_of_the_training():
    taught = json.loads(CONCEPTS.read_text())
    assert tuple(concept["name"] for concept in taught["concepts"]) == THINGS
    assert tuple(taught["colors"]) == COLOURS
    for thing in THINGS:
        for colour in COLOURS:
            article = "an" if thing[0] in "aeiou" and not thing.startswith("uni") else "a"
            assert prompt_hint(taught["prompt"].format(article=article, concept=thing, color=colour)) is None


@pytest.mark.parametrize("prompt", [*EXAMPLES, "An Otter.", "an otter on a teal", "  a fox  "])
def test_what_the_demo_knows_gets_no_hint(prompt):
    assert prompt_hint(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat sitting on a table", "was not taught sitting, table:"),
        ("sunset over mountains", "was not taught sunset, over, mountains:"),
        ("a red fox", "was taught no such sentence"),
        ("un zorro rojo", "was not taught un, zorro, rojo"),
        ("一只狐狸", "was not taught 一只狐狸"),
        ("red", "was taught no such sentence"),
        ("", "was taught no such sentence"),
        ("a fox on a fox background", "was taught no such sentence"),
    ],
)
def test_what_it_does_not_know_is_named(prompt, words):
    hint = prompt_hint(prompt)
    assert hint is not None
    assert words in hint
    assert "--examples" in hint


@pytest.mark.parametrize(
    ("prompt", "offered"),
    [
        ("a blue car", "a car on a blue background"),
        ("two cats on a sofa, an orange cat", "a cat on an orange background"),
        ("the unicorn sleeps", "a unicorn on a teal background"),
        ("Apple and pear", "an apple on a teal background"),
        ("cat", "a cat on a teal background"),
        ("the owl", "an owl on a teal background"),
        ("a car on red background", "a car on a red background"),
        ("sunset", EXAMPLES[0]),
        ("", EXAMPLES[0]),
        ("a black cat on a white background", "a cat on a white background"),
        ("two cats on a blue background", "a cat on a blue background"),
        ("penguins on a orange backdrop", "a penguin on an orange background"),
        ("an octopus on a grey background", "an octopus on a gray background"),
        ("an oter on a teal backgruond", "an otter on a teal background"),
        ("a red fax machine", "an otter on a red background"),
    ],
)
def test_it_offers_the_nearest_prompt_that_it_knows(prompt, offered):
    hint = prompt_hint(prompt)
    assert hint is not None
    assert f"\u201c{offered}\u201d" in hint
    assert prompt_hint(offered) is None


def test_weights_are_no_words():
    for prompt in (
        "a (cat:1.4) on a [blue] background",
        "a [cat] on a (blue:1.5) background",
        "a (cat) on a [red]",
    ):
        assert prompt_hint(prompt, weighted=True) is None
        assert prompt_hint(prompt) is not None
    hint = prompt_hint("a (sunset:1.4)", weighted=True)
    assert hint is not None
    assert "was not taught sunset:" in hint


def test_negative_prompts_and_single_steps_get_hints():
    assert negative_hint("ugly, deformed") is not None
    assert (negative_hint(" "), negative_hint("a cat on a red background")) == (None, None)
    assert steps_hint(1) is not None
    assert steps_hint(2) is None


def test_python_is_told_once_a_drawing_and_only_of_the_demo(caplog, tmp_path):
    asked: Any = {"num_inference_steps": 2, "seed": 1, "output_type": "latent"}
    Pipeline.from_pretrained(threads=1)(["a horse", "a horse", "an owl"], **asked)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["the demo was not taught horse"]
    copy = shutil.copytree(DEMO, tmp_path / "bundle")
    caplog.clear()
    Pipeline.from_pretrained(copy, threads=1)("a horse", **asked)
    assert caplog.records == []


@pytest.mark.parametrize(("scheduler", "guidance"), [("pndm", 3.0), ("ddim", 9.0), ("dpmpp_2m_karras", 9.0)])
def test_samplers_that_hold_get_no_hint(scheduler, guidance):
    assert guidance_hint(scheduler, guidance) is None


def test_strong_guidance_with_a_sampler_that_does_not_stand_it_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sheet = ["an otter on a teal background", "--scheduler", "PLMS", "--grid", "seed=1,2", "--grid", "steps=1,2"]
    assert generate.main([*sheet, "--guidance", "7.5", "-o", "sheet.png"]) == 0
    assert capsys.readouterr().err.count("with pndm and guidance 7.5") == 1


def test_examples_are_printed_and_nothing_is_drawn(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert generate.main(["--examples"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[: len(EXAMPLES)] == list(EXAMPLES)
    assert len(printed) == len(EXAMPLES) + 2
    assert list(tmp_path.iterdir()) == []
