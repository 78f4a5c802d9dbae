"""Files of LoRAs and embeddings that are never read, because a pickle can run code."""

from __future__ import annotations

__all__ = ["PICKLED", "PICKLES"]

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
"""Their suffixes."""

PICKLED = (
    "it is a pickle, which can run code when it is read (where you trust it, convert it: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW))"
)
"""Why such a file is not read, and the way out."""
