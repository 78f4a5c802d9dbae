"""The output of ``nano-bundle info``."""

from __future__ import annotations

from collections.abc import Iterator
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


def print_info(bundle: Bundle) -> None:
    """Print a bundle as a table: the model, then its graphs, pictures and presets."""
    manifest = bundle.manifest
    revision = "" if manifest.source.revision is None else f" at {manifest.source.revision}"
    height, width = manifest.image_size
    lines = {
        "name": manifest.name,
        "source": f"{manifest.source.model}{revision}",
        "licence": f"{manifest.licence.id} ({manifest.licence.file})",
        "pictures": f"{width} x {height} pixels",
        "for": _TASKS[manifest.task],
        "weights": _weights(manifest),
        "graph": manifest.graph,
        "scheduler": _scheduler(manifest.scheduler),
        "default": _default(manifest.default),
        "engines": ", ".join(f"{name} ({megabytes(bundle.size_bytes(name))} MB)" for name in manifest.backends),
        "digest": bundle.digest,
    }
    for key, value in (*lines.items(), *_additions(bundle)):
        print(f"{key:<12}{escaped(value)}")
    print()
    _print_components(bundle)
    for short in shortfalls(manifest):
        reached = f"{short.reached_db:.1f} dB of {short.goal_db:g}"
        print(f"falls short of its goal: {escaped(short.component)} on {short.backend}, {reached}")
    if manifest.quantization is not None:
        _print_changes(manifest.quantization)


def _scheduler(config: dict[str, Any]) -> str:
    """Return the checkpoint's class of scheduler, and the sampler that replaces it if there is none here."""
    replaced = f" (not implemented: {FALLBACK} takes its place)" if is_replaced(config) else ""
    return f"{config.get('_class_name')}{replaced}"


def _weights(manifest: Manifest) -> str:
    """Return the precision, and for INT8 the tool that made it, if it is another one, and its goals."""
    quantization = manifest.quantization
    if quantization is None:
        return manifest.precision
    parts: list[str] = [manifest.precision]
    if quantization.quantizer != "nano":
        parts.append(f"by {quantization.quantizer}")
    if quantization.goal_db:
        parts.append(f"(goal {', '.join(f'{name} {goal:g} dB' for name, goal in quantization.goal_db.items())})")
    return " ".join(parts)


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
    fidelity = ", ".join(f"{key} {value:.4g}" for key, value in default.fidelity.items())
    return f"{default.steps} steps of {default.scheduler} ({fidelity or 'of its kind, not measured'})"


def _print_components(bundle: Bundle) -> None:
    """Print one row per graph: precision, tensors, and its distance to the original where the exporter measured it."""
    for name, component in bundle.manifest.components.items():
        tensors = f"{len(component.inputs)} in, {len(component.outputs)} out"
        fidelity = ", ".join(f"{key} {value:.4g}" for key, value in component.fidelity.items())
        print(escaped(f"{name:<14}{component.precision:<6}{tensors:<16}{fidelity}".rstrip()))
    for key, value in bundle.manifest.fidelity.items():
        print(escaped(f"{'whole images':<36}{key} {value:.4g}"))
    for name, preset in bundle.manifest.presets.items():
        low, high = preset.guidance_interval
        meant = f"1 UNet call in {preset.cache_interval} whole, guided from {low:.0%} to {high:.0%}"
        distance = ", ".join(f"{key} {value:.4g}" for key, value in preset.fidelity.items())
        print(escaped(f"{name:<14}{meant}: {preset.work:.0%} of the work, {distance} to exact"))


def _print_changes(quantization: Quantization) -> None:
    """Print what was done so that INT8 reaches its goal: a row for each layer that was moved; nothing if none was."""
    if quantization.equalized:
        print(f"\nequalized   {quantization.equalized} scales moved from activations into weights, at no cost")
    if not quantization.changes:
        return
    print(f"\nlayers in another scheme than the plan's: {len(quantization.changes)}; {cost_of(quantization.changes)}")
    width = max(len(escaped(change.layer)) for change in quantization.changes)
    for change in quantization.changes:
        row = f"{change.component:<14}{escaped(change.layer):<{width}}  {change.scheme:<6}{change.share:>6.1%}"
        print(escaped(f"{row}  {change.reason}"))


def facts(bundle: Bundle) -> dict[str, Any]:
    """Return digest, sizes and the whole manifest, fit for JSON."""
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes(),
        "size_bytes_by_backend": {name: bundle.size_bytes(name) for name in bundle.manifest.backends},
        "manifest": msgspec.to_builtins(bundle.manifest),
    }
