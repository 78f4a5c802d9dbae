"""The output of ``nano-bundle info``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.goals import cost_of, shortfalls
from nano_runtime.bundle.manifest import Default, Manifest, Quantization
from nano_runtime.bundle.wiring import Task
from nano_runtime.cli import megabytes
from nano_runtime.errors.escaping import escaped
from nano_runtime.sampling.sampler_table import FALLBACK
from nano_runtime.sampling.samplers.of_checkpoint import is_replaced

__all__ = ["facts", "print_info"]

_TASKS: Final[dict[Task, str]] = {
    "text-to-image": "text-to-image (a prompt, if wished with --image and --mask)",
    "inpainting": "inpainting (a prompt, --image and --mask)",
    "instruct-pix2pix": "instruct-pix2pix (a prompt that says what to change, and --image)",
}
_MEASURES: Final[Mapping[str, str]] = {
    "psnr_db": "{:.1f} dB",
    "max_abs": "at most {:.2g} off",
    "image_psnr_db": "{:.1f} dB",
    "image_ssim": "SSIM {:.3f}",
    "latent_relative_rmse": "latents {:.1%} off",
}
"""Keys of a manifest's ``fidelity``, with the unit of each."""


def print_info(bundle: Bundle) -> None:
    """Print what a bundle is, how it draws, how near it is to the original, and how INT8 came to be so."""
    manifest = bundle.manifest
    revision = "" if manifest.source.revision is None else f" at {manifest.source.revision}"
    height, width = manifest.image_size
    lines = {
        "name": manifest.name,
        "source": f"{manifest.source.model}{revision}",
        "licence": f"{manifest.licence.id} ({manifest.licence.file})",
        "for": _TASKS[manifest.task],
        "pictures": f"{width} x {height} pixels",
        "engines": ", ".join(f"{name} ({megabytes(bundle.size_bytes(name))} MB)" for name in manifest.backends),
        "weights": _weights(manifest),
        "graphs": manifest.graph,
        "digest": bundle.digest,
    }
    _print_lines((*lines.items(), *_additions(bundle)))
    print("\nHow it draws")
    _print_lines(_ways(manifest))
    print("\nHow near it is to the original in fp32: 6 dB more (PSNR) are half the error, SSIM 1 is no difference")
    _print_table(_nearness(manifest))
    for short in shortfalls(manifest):
        reached = f"{short.reached_db:.1f} dB of {short.goal_db:g}"
        print(f"falls short of its goal: {escaped(short.component)} on {short.backend}, {reached}")
    if manifest.quantization is not None:
        _print_changes(manifest.quantization)


def _print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one below the other."""
    for key, value in lines:
        print(f"{key:<12}{escaped(value)}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of equally many cells in columns; the first row names them."""
    shown = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _ways(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what a call draws with that names nothing, and what the presets leave out."""
    yield "default", _default(manifest.default)
    yield "scheduler", f"{_scheduler(manifest.scheduler)}, the checkpoint's own"
    for name, preset in manifest.presets.items():
        low, high = preset.guidance_interval
        calls = "every UNet call" if preset.cache_interval == 1 else f"1 UNet call in {preset.cache_interval}"
        meant = f"{calls} whole, guided from {low:.0%} to {high:.0%} of the steps"
        yield name, f"{preset.work:.0%} of the work, {_distance(preset.fidelity)} from exact: {meant}"


def _nearness(manifest: Manifest) -> list[list[str]]:
    """Return a table: what was measured on each engine of whole pictures and of each graph, beside its goal."""
    goals = {} if manifest.quantization is None else manifest.quantization.goal_db
    rows = [["", "", "", "goal" if goals else "", *manifest.backends, ""]]
    rows.append(["whole pictures", "", "", "", *_cells(manifest.fidelity, manifest.backends)])
    for name, component in manifest.components.items():
        tensors = f"{len(component.inputs)} in, {len(component.outputs)} out"
        goal = f"{goals[name]:g} dB" if name in goals else ""
        rows.append([name, component.precision, tensors, goal, *_cells(component.fidelity, manifest.backends)])
    return rows


def _cells(fidelity: Mapping[str, float], backends: Iterable[str]) -> list[str]:
    """Return what was measured on each engine, and what belongs to none."""
    names = {backend: f"{backend}." for backend in backends}
    parts = {
        backend: {key.removeprefix(of): value for key, value in fidelity.items() if key.startswith(of)}
        for backend, of in names.items()
    }
    rest = {key: value for key, value in fidelity.items() if not key.startswith(tuple(names.values()))}
    return [_distance(of) for of in (*parts.values(), rest)]


def _distance(fidelity: Mapping[str, float]) -> str:
    """Return measures of a distance with their units."""
    return ", ".join(
        _MEASURES[key].format(value) if key in _MEASURES else f"{key} {value:.4g}" for key, value in fidelity.items()
    )


def _scheduler(config: dict[str, Any]) -> str:
    """Return the checkpoint's class of scheduler, and the sampler that replaces it if there is none here."""
    replaced = f" (not implemented: {FALLBACK} takes its place)" if is_replaced(config) else ""
    return f"{config.get('_class_name')}{replaced}"


def _weights(manifest: Manifest) -> str:
    """Return the precision, and the tool that made INT8 of it, if it is another one."""
    by = "nano" if manifest.quantization is None else manifest.quantization.quantizer
    return manifest.precision if by == "nano" else f"{manifest.precision} by {by}"


def _additions(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield what was added to the model: LoRAs as the exporter recorded them, and the words of textual inversions."""
    loras = bundle.manifest.options.get("loras")
    for lora in loras if isinstance(loras, list) else ():
        if isinstance(lora, dict):
            yield "LoRA", f"{lora.get('name')}, scale {lora.get('scale')}"
    for word, ids in bundle.manifest.tokenizer.embeddings.items():
        yield "embedding", f"{word} ({len(ids)} {'token' if len(ids) == 1 else 'tokens'})"


def _default(default: Default | None) -> str:
    """Return sampler and steps of a call that names neither."""
    if default is None:
        return "20 steps of the scheduler"
    of = default.fidelity
    own = {key.removeprefix("own."): value for key, value in of.items() if key.startswith("own.")}
    ours = {key: value for key, value in of.items() if not key.startswith("own.")}
    beside = f"; 20 steps of the scheduler: {_distance(own)}" if own else ""
    near = f"{_distance(ours)} from the finished picture{beside}" if ours else "of its kind, not measured"
    return f"{default.steps} steps of {default.scheduler} ({near})"


def _print_changes(quantization: Quantization) -> None:
    """Print what was done so that INT8 reaches its goal: a row for each layer that was moved; nothing if none was."""
    if quantization.equalized:
        print(f"\nequalized   {quantization.equalized} scales moved from activations into weights, at no cost")
    if not quantization.changes:
        return
    print(f"\nLayers in another scheme than the plan's: {len(quantization.changes)}; {cost_of(quantization.changes)}")
    rows = [["graph", "layer", "scheme", "work", "why"]]
    rows += [[one.component, one.layer, one.scheme, f"{one.share:.1%}", one.reason] for one in quantization.changes]
    _print_table(rows)


def facts(bundle: Bundle) -> dict[str, Any]:
    """Return digest, sizes and the whole manifest, fit for JSON."""
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes(),
        "size_bytes_by_backend": {name: bundle.size_bytes(name) for name in bundle.manifest.backends},
        "manifest": msgspec.to_builtins(bundle.manifest),
    }
