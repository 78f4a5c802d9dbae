"""Reads a checkpoint's JSON files, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nano_export.errors import CheckpointError
from nano_export.source.readable import require_text

__all__ = ["read_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a byte order mark, which some editors write, is skipped.

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds none.
    """
    require_text(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CheckpointError(path, f"it is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, ValueError) as error:
        empty = path.stat().st_size == 0
        raise CheckpointError(path, "it is empty" if empty else f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise CheckpointError(path, "it is not a config: it is nested too deeply") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "it is not a JSON object")
    return content
