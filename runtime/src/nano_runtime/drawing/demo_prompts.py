"""What the built-in demo was taught, a hundred things on twelve colours: ``models/demo/concepts.json`` has the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from nano_runtime.networks.weighting import parse

if TYPE_CHECKING:
    from nano_runtime.drawing.plan import Plan

__all__ = ["COLOURS", "EXAMPLES", "THINGS", "demo_hints", "guidance_hint", "negative_hint", "prompt_hint", "steps_hint"]

_THINGS = (
    "otter cat dog fox bear panda koala tiger lion cow pig frog monkey chicken penguin duck owl bat unicorn "
    "bee butterfly snail ladybug spider turtle snake octopus crab fish dolphin whale shark crocodile elephant "
    "giraffe flamingo parrot rabbit hedgehog sloth apple pear lemon banana watermelon grapes strawberry "
    "cherries peach pineapple tomato avocado eggplant carrot corn broccoli mushroom bread croissant cheese "
    "pizza hamburger taco donut cookie cupcake cactus tree rose sunflower car bus tractor bicycle train "
    "airplane rocket helicopter sailboat truck guitar trumpet drum umbrella camera clock key bulb book crown "
    "hat balloon gift bell trophy basketball robot ghost snowman house "
)
THINGS = tuple(_THINGS.split())
"""All that the demo can draw."""

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "gray", "black", "white")
"""The backgrounds that it knows."""

EXAMPLES = (
    "an otter on a teal background",
    "a cactus on an orange background",
    "an owl on a purple background",
    "a rocket on a black background",
    "a penguin on a blue background",
    "a strawberry on a white background",
    "a robot on a green background",
    "a pizza on a red background",
)
"""Prompts of which it draws a recognisable picture."""

# PNDM and LMS extrapolate four calls. At 20 steps and guidance 4 they are 13 and 18 dB from finished pictures, at 7.5
# 7 dB; all other samplers stay above 15 dB at 7.5 (bench/LOG.md).
_WEAK, _MOST_GUIDANCE = ("pndm", "lms"), 3.0

# Without the article the demo draws a blob, and without the second one any background.
_SENTENCE = re.compile(r"an? (?P<thing>\w+)(?: on an? (?P<colour>\w+)(?: background)?)?")
_ALIKE = 0.75  # of difflib's ratio, from which on a word is taken for another one that was mistyped


def demo_hints(plan: Plan) -> list[str]:
    """Say what of a plan the demo cannot draw, each once.

    Args:
        plan: of a pipeline that draws with the demo.
    """
    hints = [prompt_hint(text, weighted=plan.reading.weighted) for text in plan.prompts]
    hints += [negative_hint(text, weighted=plan.reading.weighted) for text in plan.negative_prompts if plan.guided]
    hints += [guidance_hint(plan.scheduler, plan.guidance_scale), steps_hint(plan.steps)]
    return list(dict.fromkeys(hint for hint in hints if hint is not None))


def prompt_hint(prompt: str, *, weighted: bool = False) -> str | None:
    """Say what the demo makes of a prompt that it was not taught; None for one that it was.

    Args:
        prompt: as it was given.
        weighted: whether ``(word:1.3)`` is read as a weight.
    """
    words = _unknown(prompt, weighted=weighted)
    if words is None:
        return None
    unknown = [word for word in words if word not in _KNOWN]
    what = f"was not taught {', '.join(unknown[:5])}" if unknown else "was taught no such sentence"
    return (
        f"the demo {what}: it knows a hundred things, as in \u201c{_nearest(words)}\u201d "
        "(nano-generate --examples shows them); for other prompts, export a model"
    )


def negative_hint(negative_prompt: str, *, weighted: bool = False) -> str | None:
    """Say that a negative prompt that the demo was not taught means nothing to it; None for one that it was.

    Args:
        negative_prompt: as it was given; the empty one is what the demo was trained with.
        weighted: whether ``(word:1.3)`` is read as a weight.
    """
    if not negative_prompt.strip() or _unknown(negative_prompt, weighted=weighted) is None:
        return None
    return "the demo knows no such negative prompt, which changes its pictures by chance"


def guidance_hint(scheduler: str, guidance_scale: float) -> str | None:
    """Say that the demo draws badly with a sampler and so strong a guidance; None where it does not.

    Args:
        scheduler: full name of the sampler.
        guidance_scale: of the call.
    """
    if scheduler not in _WEAK or guidance_scale <= _MOST_GUIDANCE:
        return None
    return (
        f"the demo draws little that one recognises with {scheduler} and guidance {guidance_scale:g}: "
        f"choose another sampler, or guidance of {_MOST_GUIDANCE:g} or less"
    )


def steps_hint(steps: int) -> str | None:
    """Say that the demo draws nothing in one step; None for more.

    Args:
        steps: of the call.
    """
    return "the demo draws nothing that one recognises in one step: give it 4 or more" if steps == 1 else None


def _unknown(prompt: str, *, weighted: bool) -> list[str] | None:
    """Return the words of a prompt that the demo was not taught; None for one that it was."""
    if weighted:
        prompt = " ".join(fragment.text for section in parse(prompt) for fragment in section)
    text = " ".join(prompt.split()).rstrip(".!").lower()
    found = _SENTENCE.fullmatch(text)
    if found is not None and found["thing"] in THINGS and (found["colour"] or COLOURS[0]) in COLOURS:
        return None
    return list(dict.fromkeys(re.findall(r"\w+", text)))


def _nearest(words: Sequence[str]) -> str:
    """Return a prompt that the demo knows, of a thing and a colour among the words if there are any.

    Of two colours the last one is taken: of "a black cat on a white background", the background's.
    """
    things, colours = ([of for word in words for of in _meant(word, known)] for known in (THINGS, COLOURS))
    if not things:
        return EXAMPLES[0] if not colours else f"an otter on {_article(colours[-1])} {colours[-1]} background"
    thing, colour = things[0], (colours or ["teal"])[-1]
    return f"{_article(thing)} {thing} on {_article(colour)} {colour} background"


def _meant(word: str, known: Sequence[str]) -> list[str]:
    """Return the known word that a word is, is the plural of, or was perhaps meant to be; at most one."""
    if word in _KNOWN:
        return [word] if word in known else []
    return get_close_matches(word, known, 1, cutoff=_ALIKE)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" and word != "unicorn" else "a"


_KNOWN = frozenset(("a", "an", "the", "on", "background", *THINGS, *COLOURS))
