"""Names of the pictures: their keys, or a pattern's, which every system can have and which never meet."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nano_batch.errors import NamePatternError
from nano_runtime.errors.escaping import unseen

__all__ = ["FIELDS", "Naming"]

FIELDS: Final = ("id", "i", "key", "prompt", "seed")
"""What may stand in braces in a pattern."""

_SUFFIX: Final = ".png"
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]')
_RESERVED: Final = re.compile(
    r"(?:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.IGNORECASE
)
_MOST_BYTES: Final = 200  # of one part; systems have 255, and an unfinished file needs none of them
_LONG: Final = ("prompt", "id")
_MOST_OF_PROMPT: Final = 80  # characters
_FOLDER: Final = "images"


@dataclass(frozen=True)
class Naming:
    """How pictures are named.

    Attributes:
        pattern: with fields in braces, as ``{id}-{i}``, and slashes between folders; None names them by their keys.
    """

    pattern: str | None = None

    def __post_init__(self) -> None:
        """Check the pattern.

        Raises:
            NamePatternError: it has another field, none, or leaves the folder.
        """
        if self.pattern is None:
            return
        try:
            fields = _fields_of(self.pattern)
            odd = [part for part in string.Formatter().parse(self.pattern) if part[2] or part[3]]
        except ValueError as error:
            raise NamePatternError(self.pattern, f"{error}") from error
        unknown = [field for field in fields if field not in FIELDS]
        if unknown or odd:
            raise NamePatternError(self.pattern, f"{{{(unknown or [str(odd[0][1])])[0]}}} is no field of a name")
        if not fields:
            raise NamePatternError(self.pattern, "all pictures would have one name")
        parts = self._without_suffix().split("/")
        if any(part.strip(". ") == "" for part in parts) or "\\" in self.pattern:
            raise NamePatternError(self.pattern, "a part of it is no name, or leads out of the folder")
        if (found := _UNSAFE.search(self.pattern.replace("/", ""))) is not None:
            raise NamePatternError(self.pattern, f"no file can have {found[0]!r} in its name everywhere")

    def name(self, values: Mapping[str, object]) -> str:
        """Return the name of a picture below the job's folder, with slashes.

        Characters that a system cannot have in a name become ``_``, long texts are cut, and names that Windows
        reserves get a ``_`` in front.

        Args:
            values: for each of ``FIELDS``.
        """
        if self.pattern is None:
            key = str(values["key"])
            return f"{_FOLDER}/{key[:2]}/{key}{_SUFFIX}"
        safe = {name: _safe(str(value)) for name, value in values.items()}
        safe["prompt"] = safe["prompt"][:_MOST_OF_PROMPT]
        parts = self._without_suffix().split("/")
        return "/".join([_FOLDER, *(_part(_filled(part, safe)) for part in parts)]) + _SUFFIX

    def has(self, field: str) -> bool:
        """Return whether a field is part of the names."""
        return self.pattern is not None and field in _fields_of(self.pattern)

    def _without_suffix(self) -> str:
        return str(self.pattern).removesuffix(_SUFFIX)


def _fields_of(pattern: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(pattern) if field is not None]


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    """Return a pattern with its values; the long texts among them are cut so that all others stay whole."""
    text = pattern.format_map(values)
    for name in _LONG:
        excess = len(text.encode()) - _MOST_BYTES
        if excess > 0 and (uses := _fields_of(pattern).count(name)):
            content = values[name].encode()
            kept = content[: max(0, len(content) + -excess // uses)]
            values = {**values, name: kept.decode(errors="ignore")}
            text = pattern.format_map(values)
    return text


def _safe(text: str) -> str:
    """Return a text with ``_`` for what no system, or no terminal that shows the name, may get."""
    hidden = set(unseen(text))
    seen = text if not hidden else "".join("_" if index in hidden else one for index, one in enumerate(text))
    return _UNSAFE.sub("_", seen)


def _part(text: str) -> str:
    """Return a name of a file or folder that every system can have."""
    cut = text.encode()[:_MOST_BYTES].decode(errors="ignore").strip(" ").rstrip(".").rstrip(" ")
    if not cut.strip("."):
        cut = "_" + cut
    return f"_{cut}" if cut.startswith(".") or _RESERVED.fullmatch(cut) else cut
