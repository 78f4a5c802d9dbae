"""Spells out textual inversions of several vectors in a prompt, as diffusers' ``maybe_convert_prompt`` does.

Each vector is a token of its own: ``<cat>``, ``<cat>_1``, ``<cat>_2``. A prompt holds the word, and the text encoder
needs all of them. The text is replaced, not the ids: only where the word is written as it was added, letter by letter,
also within another word. A word that the tokenizer itself writes otherwise, in lower case, stands for its first vector
alone. (diffusers replaces one word after the other, in an order that changes from run to run; where
one of a prompt's words holds another, the longer one counts here.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from nano_runtime.errors import PromptError

__all__ = ["MAX_VECTORS", "names_of", "spell_out"]

MAX_VECTORS: Final = 10_000  # of a prompt; its chunks hold 1200


def names_of(word: str, count: int) -> list[str]:
    """Return the tokens of a word with several vectors, in order."""
    return [word, *(f"{word}_{index}" for index in range(1, count))]


def spell_out(
    text: str, embeddings: Mapping[str, Sequence[int]], ids_of: Callable[[], Collection[int]]
) -> tuple[str, Sequence[int]]:
    """Replace each word of several vectors by the names of all.

    Args:
        text: of a prompt, without syntax.
        embeddings: word -> ids of its vectors, for words that the tokenizer writes as they are.
        ids_of: returns the ids of the text as it is; not called where no word is written in it.

    Returns:
        The new text, and for each of its characters the place in the old text that it comes from.

    Raises:
        PromptError: the words stand for more than ``MAX_VECTORS``.
    """
    written = {word: ids for word, ids in embeddings.items() if len(ids) > 1 and word in text}
    if not written:
        return text, range(len(text))
    found = frozenset(ids_of())
    words = sorted((word for word, ids in written.items() if ids[0] in found), key=len, reverse=True)
    if not words:
        return text, range(len(text))
    matches = list(re.finditer("|".join(map(re.escape, words)), text))
    if (count := sum(len(embeddings[match[0]]) for match in matches)) > MAX_VECTORS:
        raise PromptError(f"its embeddings stand for {count} tokens, more than {MAX_VECTORS}")
    pieces: list[str] = []
    places: list[int] = []
    end = 0
    for match in matches:
        names = " ".join(names_of(match[0], len(embeddings[match[0]])))
        pieces += [text[end : match.start()], names]
        places += [*range(end, match.start()), *[match.start()] * len(names)]
        end = match.end()
    pieces.append(text[end:])
    places += range(end, len(text))
    return "".join(pieces), places
