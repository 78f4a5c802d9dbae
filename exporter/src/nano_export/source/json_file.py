"""Reads a checkpoint's JSON files, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nano_export.errors import CheckpointError

__all__ = ["read_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(path, "it is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "it is not a JSON object")
    return content
