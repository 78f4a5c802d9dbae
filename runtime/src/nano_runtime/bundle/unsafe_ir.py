"""Checks an OpenVINO IR before the engine parses it: flat XML, with all constants inside its ``.bin``.

A deeply nested IR can end the process that reads it. OpenVINO's own writer uses a small part of XML: elements and
double-quoted attributes. Only this part is accepted, because its brackets can be counted without a parser. numpy counts
them in 4 MB in about 30 ms.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

__all__ = ["fault_of_ir"]

_MAX_DEPTH: Final = 16  # levels; an exported graph has 6
_MAX_BYTES: Final = 256 << 20
_HEADER: Final = b'<?xml version="1.0"?>\n<net '
_PLACE: Final = re.compile(rb'<data element_type="[^"]*" shape="[^"]*" offset="([0-9]{1,18})" size="([0-9]{1,18})" />')
_OFFSET: Final = re.compile(rb"offset\s*=")
_QUOTE, _LESS, _GREATER, _SLASH = b'"<>/'


def fault_of_ir(raw: bytes, weights_bytes: int) -> str | None:
    """Return the reason to refuse a file, as the end of a sentence, or None.

    Args:
        raw: the ``.xml``.
        weights_bytes: size of the ``.bin`` beside it.
    """
    if not raw.startswith(_HEADER) or len(raw) > _MAX_BYTES:
        return "it does not begin as OpenVINO writes its files, or is very large"
    if b"\0" in raw or b"'" in raw or b"<!" in raw or raw.count(b"<?") > 1:
        return "it has entities, comments, a document type or other things that OpenVINO does not write"
    return _fault_of_nesting(raw) or _fault_of_places(raw, weights_bytes)


def _fault_of_nesting(raw: bytes) -> str | None:
    """Require that each ``<`` has its ``>``, both outside of quotes, that elements are closed, and few levels."""
    text = np.frombuffer(raw, np.uint8)
    less, greater = np.flatnonzero(text == _LESS)[1:], np.flatnonzero(text == _GREATER)[1:]  # without the header's
    quoted = np.cumsum(text == _QUOTE, dtype=np.int32) & 1
    if len(less) != len(greater) or quoted[less].any() or quoted[greater].any():
        return "it has brackets that are not those of elements"
    if not ((less < greater).all() and (greater[:-1] < less[1:]).all()):
        return "it has brackets inside of brackets"
    closes, empty = text[less + 1] == _SLASH, text[greater - 1] == _SLASH
    depth = np.cumsum(np.where(closes, -1, np.where(empty, 0, 1)))
    if depth.min() < 0 or depth[-1] != 0:
        return "it has elements that are not closed"
    return f"it has elements {depth.max()} levels deep" if depth.max() > _MAX_DEPTH else None


def _fault_of_places(raw: bytes, weights_bytes: int) -> str | None:
    """Require that every constant ends inside the ``.bin``."""
    ends = [int(offset) + int(size) for offset, size in _PLACE.findall(raw)]
    if len(ends) != len(_OFFSET.findall(raw)):
        return "it has constants that are not described as OpenVINO does"
    if (end := max(ends, default=0)) > weights_bytes:
        return f"a constant ends at byte {end} of the weights, which have {weights_bytes}"
    return None
