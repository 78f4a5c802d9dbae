"""Reads the model card of a bundle, and writes the metadata that the Hugging Face Hub reads, from the manifest.

The metadata is in the Hub's format: https://huggingface.co/docs/hub/model-cards. It is YAML, which the runtime has no
library for. Every value is therefore written as a quoted string in ASCII: no text of a checkpoint can add a key or
reach a terminal.
"""

from __future__ import annotations

import json
import re
from typing import Final

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.graph_files import FORMATS
from nano_runtime.bundle.manifest import Manifest
from nano_runtime.errors import NoCardError

__all__ = ["front_matter", "read_card"]

_CARD: Final = "README.md"
_MAX_BYTES: Final = 1_000_000

# Identifiers of the Hub that diffusion models are published under. Any other licence is "other", with its name.
_HUB_LICENCES: Final = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd-2-clause",
    "bsd-3-clause", "cc", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-4.0", "cc0-1.0", "creativeml-openrail-m", "gpl-3.0", "lgpl-3.0", "mit", "mpl-2.0", "openrail",
    "openrail++", "unknown", "unlicense", "wtfpl",
})  # fmt: skip


def read_card(bundle: Bundle) -> str:
    """Return the text of a bundle's ``README.md``, after comparing the file with its checksum.

    The text is somebody else's; ``errors.escaping.escaped_lines`` makes it fit to print.

    Raises:
        NoCardError: the bundle has none, or one that is larger than a text for people.
        TamperedFileError: it is not the file the manifest describes.
    """
    if not any(entry.path == _CARD and entry.size <= _MAX_BYTES for entry in bundle.manifest.files):
        raise NoCardError(bundle.path)
    return bundle.content(_CARD).decode("utf-8-sig", errors="backslashreplace")


def front_matter(manifest: Manifest) -> str:
    """Return the metadata block of a model card: the two lines of dashes and all between them, with a final line end.

    ``base_model`` is the Hub id of the original, for bundles made from the Hub. ``base_model_relation`` is "quantized"
    for INT8. A bundle in fp32 states none: it is a conversion, and of the Hub's four relations (adapter, finetune,
    merge, quantized) none says that.

    Args:
        manifest: of the bundle.
    """
    licence = manifest.licence.id.lower()
    fields: dict[str, str | list[str]] = {"license": licence if licence in _HUB_LICENCES else "other"}
    if fields["license"] == "other":
        fields |= {"license_name": manifest.licence.id, "license_link": manifest.licence.file}
    if manifest.source.revision is not None:  # a commit of the Hub; folders and built-in models have none
        fields["base_model"] = manifest.source.model
        if manifest.precision == "int8":
            fields["base_model_relation"] = "quantized"
    fields["pipeline_tag"] = "text-to-image" if manifest.task == "text-to-image" else "image-to-image"
    tags = dict.fromkeys(FORMATS[backend][0].tag for backend in manifest.backends)
    fields["tags"] = ["stable-diffusion", *tags, manifest.precision, "cpu"]
    return "\n".join(["---", *(f"{key}: {_yaml(value)}" for key, value in fields.items()), "---", ""])


def _yaml(value: str | list[str]) -> str:
    """Write a string, or a list of strings, on one line of ASCII: JSON is YAML, but for characters beyond 16 bits."""
    written = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", written)
