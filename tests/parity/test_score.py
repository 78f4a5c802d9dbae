"""The demo's judge: right on the templates themselves, at chance on shuffled prompts, worse on damaged pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models.demo.score import Scorer, Verdict, load_scorer, measure
from PIL import Image, ImageFilter

DEMO = Path(__file__).parents[2] / "models/demo"
SIDE = 128


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """The judge, which looks at equal pictures once."""
    scorer, known = load_scorer(DEMO), {}
    judge = scorer.judge

    def judge_once(picture: np.ndarray) -> Verdict:
        key = picture.tobytes()
        if key not in known:
            known[key] = judge(picture)
        return known[key]

    scorer.judge = judge_once  # type: ignore[method-assign]
    return scorer


def paint(scorer: Scorer, pairs: list[tuple[str, str]], rng: np.random.Generator) -> list[np.ndarray]:
    """Clean pictures: the shipped templates, enlarged to a random size, at a random place on the asked colour."""
    with Image.open(DEMO / "templates.png") as image:
        sheet = image.convert("RGBA")
    pictures = []
    for concept, color in pairs:
        index = scorer.knowledge.names.index(concept)
        left, top = index % 10 * 64, index // 10 * 64
        side = int(rng.integers(90, 119))
        glyph = sheet.crop((left, top, left + 64, top + 64)).resize((side, side), Image.Resampling.BICUBIC)
        canvas = Image.new("RGBA", (SIDE, SIDE), scorer.knowledge.colors[color])
        x, y = (int(value) for value in rng.integers(4, SIDE - side - 3, size=2))
        canvas.alpha_composite(glyph, (x, y))
        pictures.append(np.asarray(canvas.convert("RGB")))
    return pictures


@pytest.fixture(scope="module")
def clean(scorer: Scorer) -> tuple[list[tuple[str, str]], list[np.ndarray]]:
    """Every concept once, on colours in turn."""
    colors = list(scorer.knowledge.colors)
    pairs = [(name, colors[index % len(colors)]) for index, name in enumerate(scorer.knowledge.names)]
    return pairs, paint(scorer, pairs, np.random.default_rng(0))


def test_the_model_knows_100_words_and_12_colours_and_holds_60_pairs_back(scorer: Scorer) -> None:
    knowledge = scorer.knowledge
    assert len(set(knowledge.names)) == 100
    assert len(knowledge.colors) == 12
    assert len(knowledge.held_out) == 60
    assert ("otter", "teal") in knowledge.held_out
    assert knowledge.held_out <= set(knowledge.pairs)
    assert knowledge.prompt("otter", "teal") == "an otter on a teal background"


def test_clean_pictures_are_all_recognised(scorer: Scorer, clean) -> None:
    pairs, pictures = clean
    accuracy, verdicts = measure(scorer, pictures, pairs)
    assert accuracy.both == 1.0
    assert max(verdict.distance for verdict in verdicts) == 0
    assert min(verdict.correlation for verdict in verdicts) > 0.8  # scaling and half-pixel shifts cost the rest


def test_shuffled_prompts_score_at_chance(scorer: Scorer, clean) -> None:
    pairs, pictures = clean
    pictures = pictures[:50]
    shifted = [pairs[(index + 37) % len(pairs)] for index in range(len(pictures))]
    accuracy, _ = measure(scorer, pictures, shifted)
    # 37 concepts on, the concept always differs, and the colour, 37 mod 12 = 1 further, too.
    assert accuracy.concept == 0
    assert accuracy.color == 0


def test_a_blurred_picture_correlates_less(scorer: Scorer, clean) -> None:
    pairs, pictures = clean[0][:30], clean[1][:30]
    blurred = [np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(6))) for p in pictures]
    _, before = measure(scorer, pictures, pairs)
    _, after = measure(scorer, blurred, pairs)
    assert all(b.correlation > a.correlation for b, a in zip(before, after, strict=True))


@pytest.mark.slow
def test_noise_lowers_the_correlation_and_then_the_accuracy(scorer: Scorer, clean) -> None:
    pairs, pictures = clean[0][:30], clean[1][:30]
    rng = np.random.default_rng(1)
    means, accuracies = [], []
    for deviation in (0, 40, 160, 640):
        noisy = [
            np.clip(picture + rng.normal(0, deviation, picture.shape), 0, 255).astype(np.uint8) for picture in pictures
        ]
        accuracy, verdicts = measure(scorer, noisy, pairs)
        means.append(float(np.mean([verdict.correlation for verdict in verdicts])))
        accuracies.append(accuracy.both)
    assert means == sorted(means, reverse=True)
    assert accuracies[0] == 1.0
    assert accuracies[-1] < 0.5


@pytest.mark.slow
def test_pure_noise_scores_at_chance(scorer: Scorer) -> None:
    rng = np.random.default_rng(2)
    pairs = [scorer.knowledge.pairs[index] for index in rng.choice(1200, 50, replace=False)]
    noise = [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in pairs]
    accuracy, verdicts = measure(scorer, noise, pairs)
    # Chance is 1 %: four hits in fifty have a probability below 0.2 %.
    assert accuracy.concept < 0.08
    assert max(verdict.correlation for verdict in verdicts) < 0.3


def test_a_flat_picture_has_no_concept_but_a_colour(scorer: Scorer) -> None:
    teal = np.full((SIDE, SIDE, 3), scorer.knowledge.colors["teal"], np.uint8)
    verdict = scorer.judge(teal)
    assert verdict.color == "teal"
    assert verdict.correlation == 0


def test_no_pictures_are_refused(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="no picture"):
        measure(scorer, [], [])
