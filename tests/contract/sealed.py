"""Bundles changed by somebody who can also write the manifest: every checksum is right again afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from nano_runtime.bundle.checksums import entry_of

__all__ = ["copied", "rewrite", "seal"]


def copied(bundle: Path, target: Path) -> Path:
    """Copy a bundle. Not by hard links: onnx_ir reads no weights from a file that has two names."""
    return Path(shutil.copytree(bundle, target))


def rewrite(path: Path, content: bytes) -> None:
    """Give a file of a copy other content."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def seal(bundle: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """Write the manifest of a copy anew, as its files are now."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    for entry in document["files"]:
        entry.update(msgspec.to_builtins(entry_of(bundle, bundle / entry["path"])))
    rewrite(path, json.dumps(document).encode())
    return bundle
