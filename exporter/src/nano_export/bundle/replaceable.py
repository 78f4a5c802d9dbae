"""Tells a bundle, which ``--force`` may replace, from a folder with files of somebody else in it.

Many folders have a ``manifest.json``: every browser extension and web app does. A bundle may also hold notes that its
user put there. Whatever no manifest of ours lists stays.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nano_runtime.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, OLDEST_VERSION, Count
from nano_runtime.bundle.reading import manifest_bytes
from nano_runtime.errors import BundleError
from nano_runtime.system.files import paths_below

__all__ = ["reason_to_keep"]


class _Listed(msgspec.Struct):
    """What an entry of ``files`` has in every format."""

    path: str
    size: Count
    sha256: str


class _Ours(msgspec.Struct):
    """What a manifest has in every format, and no other tool's has.

    Less is asked than of a bundle to draw with: what this release refuses for a value must be possible to export again.
    """

    format_version: Annotated[int, Meta(ge=OLDEST_VERSION, le=FORMAT_VERSION)]
    backends: list[str]
    tokenizer: dict[str, Any]
    scheduler: dict[str, Any]
    components: dict[str, Any]
    files: list[_Listed]


def reason_to_keep(folder: Path) -> str | None:
    """Return why a folder must not be replaced; None for a bundle and nothing besides.

    A listed file may be missing, damaged, or a link. A folder without files must be one that listed files belong in.

    Raises:
        OSError: a folder or the manifest cannot be read.
    """
    try:
        manifest = msgspec.json.decode(manifest_bytes(folder), type=_Ours)
    except (BundleError, ValueError, RecursionError):
        return f"its {MANIFEST_NAME} is missing, or none that Nano wrote"
    files = {MANIFEST_NAME, *(entry.path for entry in manifest.files)}
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    for path in sorted(paths_below(folder)):
        inner = path.is_dir() and not path.is_symlink()
        name = path.relative_to(folder).as_posix()
        if inner and any(path.iterdir()):
            continue  # its files are named
        if name not in (folders if inner else files):
            return f"it has {name}, which its {MANIFEST_NAME} does not list"
    return None
