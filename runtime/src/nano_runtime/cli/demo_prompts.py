"""What the built-in demo was taught, a hundred things on twelve colours: ``models/demo/concepts.json`` has the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["COLOURS", "EXAMPLES", "THINGS", "demo_hint", "guidance_hint"]

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


def demo_hint(prompt: str) -> str | None:
    """Say what the demo makes of a prompt that it was not taught; None for one that it was.

    Args:
        prompt: as it was typed.
    """
    text = prompt.strip().rstrip(".!").lower()
    found = _SENTENCE.fullmatch(text)
    if not text or (found is not None and found["thing"] in THINGS and (found["colour"] or COLOURS[0]) in COLOURS):
        return None
    words = re.findall(r"\w+", text)
    known = {"a", "an", "the", "on", "background", *THINGS, *COLOURS}
    unknown = list(dict.fromkeys(word for word in words if word not in known))
    what = f"was not taught {', '.join(unknown[:5])}" if unknown else "was taught no such sentence"
    return (
        f"the demo {what}: it knows a hundred things, as in \u201c{_nearest(words)}\u201d "
        "(nano-generate --examples shows them); for other prompts, export a model"
    )


def guidance_hint(scheduler: str, guidance_scale: float) -> str | None:
    """Say that the demo draws nothing recognisable with a sampler and so strong a guidance; None where it does.

    Args:
        scheduler: full name of the sampler.
        guidance_scale: of the call.
    """
    if scheduler not in _WEAK or guidance_scale <= _MOST_GUIDANCE:
        return None
    return (
        f"the demo draws nothing recognisable with {scheduler} and guidance {guidance_scale:g}: "
        f"leave --scheduler out, or give --guidance {_MOST_GUIDANCE:g} or less"
    )


def _nearest(words: Sequence[str]) -> str:
    """Return a prompt that the demo knows, of a thing and a colour among the words if there are any."""
    things, colours = ([word for word in words if word in of] for of in (THINGS, COLOURS))
    if not things:
        return EXAMPLES[0]
    thing, colour = things[0], (*colours, "teal")[0]
    return f"{_article(thing)} {thing} on {_article(colour)} {colour} background"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" and word != "unicorn" else "a"
