"""Exports checkpoints in INT8 and tabulates how far each network, and whole pictures, are from their own fp32.

The exporter measures that itself: the figures are those of the manifest. It chooses no default sampler and no presets
here, which takes most of an export's time and changes no graph.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.outliers.writing import DEMO

from nano_export import exporting as _exporting
from nano_export.options import Options
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend, Default
from nano_runtime.errors import NanoError

__all__ = ["fidelity", "table"]

COLUMNS = ("text_encoder", "unet", "vae_decoder", "vae_encoder", "pictures")


def table(checkpoints: Sequence[Path], backends: tuple[Backend, ...]) -> Iterator[str]:
    """Yield the rows of a table, in dB; behind the first checkpoint, each figure has its distance to the first's.

    Args:
        checkpoints: diffusers folders.
        backends: engines, one row each.
    """
    yield f"{'':<40} {'engine':<12}" + "".join(f"{name:>18}" for name in COLUMNS) + f"{'export':>10}"
    first: dict[Backend, dict[str, float]] = {}
    for checkpoint in checkpoints:
        begun = time.monotonic()
        try:
            found = {backend: fidelity(checkpoint, backend) for backend in backends}
        except NanoError as error:
            yield f"{name_of(checkpoint):<40} {' '.join(str(error).split())}"
            continue
        seconds = (time.monotonic() - begun) / len(backends)
        for backend, figures in found.items():
            beside = first.setdefault(backend, figures)
            cells = [
                f"{figures[name]:.1f}" + (f" ({figures[name] - beside[name]:+.1f})" if beside is not figures else "")
                for name in COLUMNS
            ]
            yield (
                f"{name_of(checkpoint):<40} {backend:<12}"
                + "".join(f"{cell:>18}" for cell in cells)
                + f"{seconds:>8.0f} s"
            )


def fidelity(checkpoint: Path, backend: Backend) -> dict[str, float]:
    """Export a checkpoint in INT8 for one engine; return the dB of each network and of whole pictures.

    Raises:
        NanoError: it cannot be exported.
    """
    exporting: Any = _exporting
    few = Default(scheduler="ddim", steps=2, fidelity={})
    kept = exporting.choose_default, exporting.choose_presets
    exporting.choose_default, exporting.choose_presets = lambda *_: iter([(1.0, few)]), lambda *_: iter([(1.0, {})])
    try:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "bundle"
            options = Options(model=str(checkpoint), output=output, precision="int8", backends=(backend,))
            for _ in exporting.export(options):
                pass
            manifest = Bundle.open(output).manifest
    finally:
        exporting.choose_default, exporting.choose_presets = kept
    key = f"{backend}.psnr_db"
    figures = {name: part.fidelity[key] for name, part in manifest.components.items() if key in part.fidelity}
    return {**figures, "pictures": manifest.fidelity[f"{backend}.image_psnr_db"]}


def name_of(checkpoint: Path) -> str:
    """Return what a checkpoint is called in the table."""
    return "demo" if checkpoint == DEMO else checkpoint.name
