"""Reads and writes ``manifest.json``: size, strict JSON, version, types, rules, in this order."""

from __future__ import annotations

import errno
import math
import os
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from nano_runtime.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, OLDEST_VERSION, Manifest
from nano_runtime.bundle.rules import first_contradiction
from nano_runtime.bundle.safe_paths import fault_of_place
from nano_runtime.bundle.strict_json import REFUSED, check_json
from nano_runtime.errors import ManifestError, NotABundleError
from nano_runtime.system.files import open_plain

__all__ = ["manifest_bytes", "parse_manifest", "read_manifest", "write_manifest"]

_CHECKPOINT_INDEX: Final = "model_index.json"
"""The file by which diffusers knows a checkpoint's folder."""

_MAX_MANIFEST_BYTES = 1 << 20
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MAX_WHY_CHARACTERS = 300
_FREE = ("scheduler", "options")  # values of any kind


def _no_folder(bundle: Path) -> NotABundleError:
    """Say that there is no such folder, and what was perhaps meant: a file, the demo, or a model on the Hub."""
    if os.path.lexists(bundle):
        return NotABundleError(bundle, "it is no folder")
    if str(bundle) == "demo":
        return NotABundleError(bundle, "there is no such folder", "Name no bundle for the built-in demo.")
    if _HUB_NAME.fullmatch(str(bundle)) is not None and not os.path.lexists(bundle.parent):
        hint = (
            f"Give a folder that nano-export wrote. A model of that name is exported first: nano-export {bundle} --int8"
        )
        return NotABundleError(bundle, "there is no such folder", hint)
    return NotABundleError(bundle, "there is no such folder")


class _Versioned(msgspec.Struct):
    """A document of any version; a wrong version is a better message than the first key that does not fit."""

    format_version: Any = None


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate ``bundle/manifest.json``.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        ManifestError: it is too large, not JSON, of another version, or breaks the schema.
    """
    return parse_manifest(manifest_bytes(bundle), bundle / MANIFEST_NAME)


def manifest_bytes(bundle: Path) -> bytes:
    """Return the content of ``bundle/manifest.json``, not validated.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        ManifestError: it is too large, a link, or not a plain file.
    """
    path = bundle / MANIFEST_NAME
    try:
        there = bundle.is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        there = False
    if not there:
        raise _no_folder(bundle)
    if not os.path.lexists(path):
        if os.path.lexists(bundle / _CHECKPOINT_INDEX):
            raise NotABundleError(
                bundle, "it is a checkpoint", f"Export it first: nano-export {bundle} --int8 -o FOLDER"
            )
        raise NotABundleError(bundle, f"it has no {MANIFEST_NAME}")
    if (fault := fault_of_place(bundle, MANIFEST_NAME)) is not None:
        raise ManifestError(path, fault)
    if (size := path.stat().st_size) > _MAX_MANIFEST_BYTES:
        raise ManifestError(path, f"{size} bytes, more than the {_MAX_MANIFEST_BYTES} allowed")
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(_MAX_MANIFEST_BYTES)


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Validate the content of a manifest; nothing else is opened.

    Args:
        raw: the content.
        path: where it came from, for messages.

    Raises:
        ManifestError: it is not strict JSON, of another version, breaks the schema, or contradicts itself.
    """
    try:
        check_json(raw)
        version = msgspec.json.decode(raw, type=_Versioned).format_version
        known = range(OLDEST_VERSION, FORMAT_VERSION + 1)
        manifest = msgspec.json.decode(raw, type=Manifest) if version in known else None
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors too
        raise ManifestError(path, str(error)[:_MAX_WHY_CHARACTERS]) from error
    if manifest is None:
        reads = f"this runtime reads {OLDEST_VERSION} to {FORMAT_VERSION}"
        raise ManifestError(path, f"format_version {str(version)[:40]}, {reads}")
    if (found := first_contradiction(manifest)) is not None:
        raise ManifestError(path, found)
    return manifest


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write ``bundle/manifest.json``, indented, with the keys in the order of the fields.

    JSON has no infinity. In the scheduler's config and the options it becomes a string; msgspec alone would write null.
    So does a whole number of more than 64 bits there. Characters that no manifest may hold, which names of files and
    licences can have, become underscores.

    Raises:
        ManifestError: another number is not finite.
    """
    path = bundle / MANIFEST_NAME
    document = msgspec.to_builtins(manifest)
    document = {**document, **{key: _as_strings(document[key]) for key in _FREE}}
    if (found := _not_finite(document, "")) is not None:
        raise ManifestError(path, f"{found} is not finite")
    path.write_bytes(msgspec.json.format(msgspec.json.encode(_readable(document)), indent=1) + b"\n")


def _as_strings(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the same value with strings for numbers that are not finite, or that do not fit 64 bits."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _as_strings(one) for key, one in value.items()}
    return [_as_strings(one) for one in value] if isinstance(value, list | tuple) else value


def _readable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the same value without the characters that readers of a manifest refuse."""
    if isinstance(value, str):
        return REFUSED.sub("_", value)
    if isinstance(value, dict):
        return {_readable(key): _readable(one) for key, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, list | tuple) else value


def _not_finite(value: Any, place: str) -> str | None:  # noqa: ANN401 - any JSON
    """Return the place of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = (_not_finite(one, f"{place}.{key}".lstrip(".")) for key, one in pairs)
    return next((one for one in found if one is not None), None)
