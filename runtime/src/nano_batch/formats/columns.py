"""The kinds of values in the columns of a job: a table has one for each column, where JSON lines have none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Literal

from nano_batch.formats.samples import Records

__all__ = ["Kind", "as_kind", "is_mixed", "kinds_of"]

Kind = Literal["truth", "integer", "large", "number", "text", "json"]
"""True or false, int64, uint64, float64, text, and JSON as text."""

_LARGEST_INT64: Final = 2**63 - 1
_SMALLEST_INT64: Final = -(2**63)
_LARGEST_UINT64: Final = 2**64 - 1
_MOST_EXACT: Final = 2**53  # whole numbers up to here are float64 exactly


def kinds_of(records: Records) -> dict[str, Kind]:
    """Return the kind of each column, in the order in which columns appear; empty ones are text.

    Columns with some text are text, and their other values JSON. So are lists, objects, and numbers that no other kind
    holds all of: nothing is rounded.
    """
    seen: dict[str, _Seen] = {}
    for record in records:
        for name, value in record.items():
            seen.setdefault(name, _Seen()).add(value)
    return {name: of.kind for name, of in seen.items()}


def as_kind(value: Any, kind: Kind) -> Any:  # noqa: ANN401 - JSON
    """Return a value as its column holds it; None stays."""
    if value is None:
        return None
    if kind == "json" or (kind == "text" and not isinstance(value, str)):
        return json.dumps(value, ensure_ascii=False)
    return float(value) if kind == "number" else value


def is_mixed(values: Iterable[Any]) -> bool:
    """Return whether values, or what is at one place in them, are of several kinds, which readers of JSON lines refuse.

    As pyarrow's reader has kinds, by which ``datasets`` opens image folders: true or false, number, text, list, object.
    None is of every kind.
    """
    kinds: dict[tuple[object, ...], str] = {}
    left: list[tuple[tuple[object, ...], Any]] = [((), value) for value in values]
    while left:
        place, value = left.pop()
        if value is None:
            continue
        kind = "number" if type(value) in (int, float) else type(value).__name__
        if kinds.setdefault(place, kind) != kind:
            return True
        if isinstance(value, list):
            left += [((*place, 0), one) for one in value]
        elif isinstance(value, dict):
            left += [((*place, name), one) for name, one in value.items()]
    return False


class _Seen:
    """What the values of one column were."""

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.low = self.high = 0

    def add(self, value: Any) -> None:  # noqa: ANN401 - JSON
        if value is None:
            return
        if isinstance(value, bool):
            self.types.add("truth")
        elif isinstance(value, int):
            self.types.add("integer")
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif isinstance(value, float):
            self.types.add("number")
        elif isinstance(value, str):
            self.types.add("text")
        else:
            self.types.add("json")

    @property
    def kind(self) -> Kind:
        if "text" in self.types or not self.types:
            return "text"
        if self.types == {"truth"}:
            return "truth"
        if self.types == {"integer"}:
            if self.low >= _SMALLEST_INT64 and self.high <= _LARGEST_INT64:
                return "integer"
            return "large" if self.low >= 0 and self.high <= _LARGEST_UINT64 else "json"
        if self.types <= {"integer", "number"} and max(-self.low, self.high) <= _MOST_EXACT:
            return "number"
        return "json"
