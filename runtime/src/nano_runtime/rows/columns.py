"""The names of columns: those of options, what other programs call them, and names that were probably mistyped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from nano_runtime.errors import RowsFileError
from nano_runtime.errors.wording import shown
from nano_runtime.options import DrawOptions

__all__ = ["ID", "NO_COLUMNS", "check_columns", "field_of", "meant"]

ID: Final = "id"

NO_COLUMNS: Final = frozenset({"latents", "output_type"})
"""Options that no file has a form for."""

_OPTIONS: Final = frozenset(option.name for option in fields(DrawOptions)) - NO_COLUMNS
_ALIASES: Final[Mapping[str, str]] = {
    "custom_id": ID,
    "n": "num_images_per_prompt",
    "count": "num_images_per_prompt",
    "negative": "negative_prompt",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "mask": "mask_image",
    "image_guidance": "image_guidance_scale",
    "denoising_strength": "strength",
    "weights": "prompt_weighting",
    "long_prompt": "long_prompts",
}
_KNOWN: Final[Mapping[str, str]] = {ID: ID, **{name: name for name in _OPTIONS}, **_ALIASES}
_ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("positive", "positive_prompt"), "prompt"),
    **dict.fromkeys(("neg", "neg_prompt"), "negative_prompt"),
    **dict.fromkeys(("sampling_steps", "inference_steps", "ddim_steps", "num_steps"), "steps"),
    **dict.fromkeys(("sampling_method", "sampler_index"), "sampler"),
    **dict.fromkeys(("batch_count", "n_iter", "num_images"), "n"),
    **dict.fromkeys(("init_image", "init_img", "start_image"), "image"),
    **dict.fromkeys(("mask_img", "start_mask"), "mask"),
    **dict.fromkeys(("denoise", "denoising"), "strength"),
    **dict.fromkeys(("subseed_strength", "variation_seed_strength"), "variation_strength"),
    "subseed": "variation_seed",
    "noise_seed": "seed",
    "size": "width and height",
    "no_keep_unmasked": "keep_unmasked",
}
"""What other programs, our command and ``metadata.jsonl`` call an option, in words that hardly mean anything else."""

_NOT_MISTYPED: Final = frozenset({"image_id", "sample", "samples", "speed", "weight"})
_MOST_NAMED: Final = 10
_LEAST_LETTERS: Final = 4  # a shorter name is near to everything


def field_of(column: str) -> str | None:
    """Return the option that a column is, ``ID`` for the row's name; None for a column that is carried along.

    Upper and lower case, spaces, hyphens and underscores are alike: ``CFG scale`` is ``cfg_scale``.
    """
    return _KNOWN.get(_plain(column))


def meant(column: str) -> str | None:
    """Return the name that a column probably should have; None where it is taken as it is.

    A mistyped name would be carried along as if it meant nothing, and the pictures would be others without a word.
    One letter too many, too few or wrong, or two that changed places, is a mistake, if the first letter is right.
    So are words that are not divided, and another program's name for an option.
    """
    name = _plain(column)
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    if name in _KNOWN or name in _NOT_MISTYPED or len(name) < _LEAST_LETTERS:
        return None
    long = [known for known in _KNOWN if len(known) >= _LEAST_LETTERS]
    return next((known for known in long if _is_near(name, known) or _joined(name) == _joined(known)), None)


def check_columns(path: Path, names: Sequence[str], hint: str | None = None) -> None:
    """Refuse a table whose columns cannot be told apart, or that has none of prompts.

    Args:
        path: of the file.
        names: of the columns.
        hint: what to do where none is the prompt; None for the usual.

    Raises:
        RowsFileError: one has no name, or the name of another, or none is the prompt.
    """
    for place, name in enumerate(names, 1):
        if not name:
            raise RowsFileError(path, f"column {place} has no name", "Name it, or remove it (in pandas: index=False).")
        if name in names[: place - 1]:
            raise RowsFileError(path, f"the column {shown(name)} stands there twice", "Rename or remove one.")
    if "prompt" not in map(field_of, names):
        found = ", ".join(map(shown, names[:_MOST_NAMED]))
        usual = "Name the column of the prompts so; CSV and TSV have the names in their first line."
        raise RowsFileError(path, f"it has no column prompt, but {found}", usual if hint is None else hint)


def _plain(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", column.strip().lower())


def _joined(name: str) -> str:
    return name.replace("_", "")


def _is_near(name: str, known: str) -> bool:
    """Return whether one edit, or one exchange of neighbours, turns one name into the other."""
    begin = _common(name, known)
    left, right = name[begin:], known[begin:]
    end = min(_common(left[::-1], right[::-1]), len(left), len(right))
    left, right = left[: len(left) - end], right[: len(right) - end]
    if len(left) == len(right) == 2:  # noqa: PLR2004 - neighbours
        return left == right[::-1]
    return begin > 0 and len(left) <= 1 and len(right) <= 1


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many letters are the same from the beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
