"""A1111's prompt syntax against cases read by hand, and what weights do to hidden states."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from nano_runtime.errors import PromptError
from nano_runtime.networks.weighting import Fragment, parse, weigh

# The web UI's arithmetic on Python floats, written out: what is nested multiplies from the inside out.
UP, DOWN = 1.1, 1 / 1.1
CASES: dict[str, list[list[tuple[str, float]]]] = {
    # plain text
    "": [[]],
    "a red fox": [[("a red fox", 1.0)]],
    "10:30, 3:2": [[("10:30, 3:2", 1.0)]],
    # brackets
    "a (red) fox": [[("a ", 1.0), ("red", UP), (" fox", 1.0)]],
    "((red))": [[("red", UP * UP)]],
    "[red]": [[("red", DOWN)]],
    "[[red]]": [[("red", DOWN * DOWN)]],
    "[(red)]": [[("red", UP * DOWN)]],
    "(red [fox])": [[("red ", UP), ("fox", DOWN * UP)]],
    "(a)(b)": [[("ab", UP)]],  # of one weight, and so one text
    "a()b": [[("ab", 1.0)]],
    # numbers
    "(red:1.3)": [[("red", 1.3)]],
    "(red: 1.3 )": [[("red", 1.3)]],
    "(red:+.5)": [[("red", 0.5)]],
    "(red:-2)": [[("red", -2.0)]],
    "(red:0)": [[("red", 0.0)]],
    "((red:1.3):2)": [[("red", 1.3 * 2)]],
    "((house:1.3) roof)": [[("house", 1.3 * UP), (" roof", UP)]],
    "(ratio 3:2)": [[("ratio 3", 2.0)]],  # it is a number before a bracket
    # what only looks like a number is text
    "(red:)": [[("red:", UP)]],
    "(red:many)": [[("red:many", UP)]],
    "(red:1.2.3)": [[("red:1.2.3", UP)]],
    "[red:1.3]": [[("red:1.3", DOWN)]],  # square brackets take none
    "red:1.3)": [[("red:1.3)", 1.0)]],
    "[red:1.3)": [[("red:1.3)", DOWN)]],
    # brackets that do not match
    "(red fox": [[("red fox", UP)]],
    "a [red fox": [[("a ", 1.0), ("red fox", DOWN)]],
    "red) fox]": [[("red) fox]", 1.0)]],
    "((a) b": [[("a", UP * UP), (" b", UP)]],
    "(a [b) c]": [[("a ", UP), ("b", UP * DOWN), (" c", DOWN)]],  # each kind knows only its own
    # escapes
    r"\(red\)": [[("(red)", 1.0)]],
    r"(\(red\):1.3)": [[("(red)", 1.3)]],
    r"\[a\] \\ b": [[("[a] \\ b", 1.0)]],
    r"a\b": [[("ab", 1.0)]],
    "a\\": [[("a", 1.0)]],
    # sections
    "a BREAK b": [[("a", 1.0)], [("b", 1.0)]],
    "a\nBREAK\n\nb": [[("a", 1.0)], [("b", 1.0)]],
    "a BREAK BREAK b": [[("a", 1.0)], [], [("b", 1.0)]],
    "BREAK": [[], []],
    "(a BREAK b:1.3)": [[("a", 1.3)], [("b", 1.3)]],
    "(a) BREAK (b)": [[("a", UP)], [("b", UP)]],
    "BREAKFAST, break, DAYBREAK": [[("BREAKFAST, break, DAYBREAK", 1.0)]],
    "(BREAK)": [[], []],
    # all at once, from the web UI's own documentation
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        [
            ("a ", 1.0),
            ("house", 1.3 * UP * UP),
            (" ", UP),
            ("on", DOWN * UP),
            (" a ", UP),
            ("hill", 0.5 * UP),
            (", sun, ", UP),
            ("sky", UP * UP * UP * UP),
            (".", UP),
        ]
    ],
}
SYNTAX = [*"()[]:\\ .-1a", "BREAK", "é", "🦊", "\n"]


def texts(pieces: list[str]) -> list[str]:
    """Two thousand short texts of these pieces, the same ones every time."""
    rng = random.Random(0)  # noqa: S311 - reproducible, not secret
    return ["".join(rng.choices(pieces, k=rng.randrange(40))) for _ in range(2000)]


@pytest.mark.parametrize("prompt", CASES)
def test_prompts_read_as_by_hand(prompt):
    read = [[(fragment.text, fragment.weight) for fragment in section] for section in parse(prompt)]
    assert read == [[(text, pytest.approx(weight, rel=1e-15)) for text, weight in one] for one in CASES[prompt]]


def test_escaped_text_is_text():
    read = 0
    for text in texts([piece for piece in SYNTAX if piece != "BREAK"]):
        literal = re.sub(r"[()\[\]\\]", r"\\\g<0>", text)
        assert parse(literal) == (((Fragment(text, 1.0),) if text else ()),)
        read += parse(text) != parse(literal)
    assert read > 1000  # negative control: without the escapes, most mean something else


def test_every_text_means_something():
    for text in texts(SYNTAX):
        fragments = [fragment for section in parse(text) for fragment in section]
        assert all(fragment.text for fragment in fragments)
        remaining = iter(text)  # what is read stands in the text, in this order
        assert all(character in remaining for fragment in fragments for character in fragment.text), text


def test_brackets_by_the_thousand_are_read():
    """Weights overflow to infinity, which ``weigh`` refuses; nothing recurses."""
    assert parse("(" * 20_000 + "a") == ((Fragment("a", float("inf")),),)
    ((first, *_), *_) = parse("(a" * 10_000)
    assert first.weight == pytest.approx(UP)


def test_weights_multiply_tokens_and_the_mean_stays():
    hidden = np.array([[[1, 2], [3, 4], [5, 9]]], np.float32)  # mean 4
    weighted = weigh(hidden, np.array([1.0, 2.0, 1.0]))
    # [[1, 2], [6, 8], [5, 9]] has the mean 31 / 6
    np.testing.assert_allclose(weighted, np.array([[[1, 2], [6, 8], [5, 9]]]) * (4 * 6 / 31), rtol=1e-6)
    np.testing.assert_array_equal(hidden[0, 1], [3, 4])


def test_a_weight_of_one_changes_no_bit():
    hidden = np.random.default_rng(0).standard_normal((1, 77, 8)).astype(np.float32)
    np.testing.assert_array_equal(weigh(hidden, np.ones(77)), hidden)


def test_without_a_mean_nothing_is_scaled():
    """A last norm that was never trained centres every token: what is left of the mean is rounding."""
    hidden = np.random.default_rng(0).standard_normal((1, 77, 64)).astype(np.float32)
    hidden -= hidden.mean(axis=2, keepdims=True)
    weights = np.where(np.arange(77) == 3, 1.5, 1.0)
    np.testing.assert_array_equal(weigh(hidden, weights), hidden * weights[:, np.newaxis].astype(np.float32))
    with_mean = hidden + np.float32(0.1)
    scaled = weigh(with_mean, weights)
    assert not np.array_equal(scaled, with_mean * weights[:, np.newaxis].astype(np.float32))


@pytest.mark.parametrize("weight", [1e39, float("inf"), 1e300])
def test_weights_beyond_float32_are_refused(weight):
    with pytest.raises(PromptError, match="weights are too large"):
        weigh(np.ones((1, 3, 2), np.float32), np.array([1.0, weight, 1.0]))
