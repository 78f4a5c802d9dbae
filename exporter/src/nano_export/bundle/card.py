"""Writes the model card of a bundle, its README.md: source, changes, use, figures, licence.

The OpenRAIL-M licences ask for two of its notices (paragraph 4): files that were changed say so prominently, and the
next user is told that paragraph 5 restricts the use.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from nano_export.bundle.facts import ORIGINAL_CARD, Contents
from nano_runtime.bundle.card import front_matter
from nano_runtime.bundle.goals import cost_of, shortfalls
from nano_runtime.bundle.graph_files import IR, ONNX
from nano_runtime.bundle.manifest import Manifest
from nano_runtime.bundle.wiring import Task
from nano_runtime.errors.escaping import escaped

__all__ = ["card_of"]

_FORMATS = {ONNX.suffix: "ONNX", IR.suffix: "OpenVINO"}
_NOTICE_OF_RESTRICTIONS = """\
> **Use restrictions.** This model is subject to paragraph 5 of its licence: nobody may use it, or anything derived
> from it, in the ways that Attachment A of the licence lists. This binds every user.
> Whoever passes the model on passes on the licence, these restrictions as a binding provision, and the notice above
> that files were changed."""
_PICTURES: dict[Task, str] = {
    "text-to-image": "",
    "inpainting": " --image picture.png --mask mask.png",
    "instruct-pix2pix": " --image picture.png",
}
_RESTRICTED = "use-based restrictions"  # the words of every OpenRAIL licence, in any case


def card_of(manifest: Manifest, contents: Contents) -> str:
    """Return the card; equal arguments give equal text, so it names no date.

    Args:
        manifest: of the bundle; its list of files may still be empty.
        contents: of the bundle.
    """
    sections = [
        f"# {escaped(manifest.name)}, {_precision(manifest)} for CPUs",
        _summary(manifest),
        _notice_of_changes(manifest, contents),
        f"## Draw with it\n\nIn the folder of the bundle:\n\n{_command(manifest, contents)}",
        "## Facts\n\n" + "\n".join(f"- {fact}" for fact in _facts(manifest, contents)),
        f"## Licence\n\nThe weights are under {_code(manifest.licence.id)}; see {_link(manifest.licence.file)}.",
    ]
    if _is_restricted(contents):
        sections.append(_NOTICE_OF_RESTRICTIONS)
    if contents.has_card:
        sections += [
            "## The original's card",
            f"{_link(ORIGINAL_CARD)} is the original's card, as its author wrote it.",
        ]
    return front_matter(manifest) + "\n" + "\n\n".join(sections) + "\n"


def _summary(manifest: Manifest) -> str:
    height, width = manifest.image_size
    size = f"{width}x{height} pixels"
    does = {
        "text-to-image": f"draws pictures of {size} from text",
        "inpainting": f"paints parts of pictures of {size} anew, as a text says",
        "instruct-pix2pix": f"changes pictures of {size} as a text says",
    }
    return (
        f"This bundle {does[manifest.task]}, on a CPU, offline and without PyTorch.\n"
        f"It holds {_formats(manifest)} graphs of a Stable Diffusion model, its tokenizer and its noise schedule."
    )


def _notice_of_changes(manifest: Manifest, contents: Contents) -> str:
    if manifest.exporter != "nano":
        return (
            f"> **Changed files.** Made from {_source(manifest)}, whose graphs {manifest.exporter} had exported.\n"
            f"> nano-export {manifest.versions['nano-export']} fixed their sizes; the weights in them were not changed."
        )
    other = "with another autoencoder, " if contents.vae is not None else ""
    merged = "with LoRAs merged into the weights, " if contents.loras else ""
    added = "with words added to the tokenizer and the text encoder, " if contents.embeddings else ""
    quantized = " and quantized to INT8" if manifest.precision == "int8" else ""
    return (
        f"> **Changed files.** Made from {_source(manifest)}, {other}{merged}{added}"
        f"converted to {_formats(manifest)} graphs{quantized} by nano-export {manifest.versions['nano-export']}.\n"
        "> All weight files were changed."
    )


def _command(manifest: Manifest, contents: Contents) -> str:
    extra = manifest.backends[0] if len(manifest.backends) == 1 else "all"
    return (
        f'```sh\npip install "nano-runtime[{extra}]"\n'
        f"nano-generate {shlex.quote(escaped(contents.example))} --bundle .{_PICTURES[manifest.task]}\n```"
    )


def _facts(manifest: Manifest, contents: Contents) -> Iterator[str]:
    """Yield the lines of the list of facts."""
    height, width = manifest.image_size
    if contents.vae is not None:
        yield f"Autoencoder: {_code(contents.vae)} instead of the original's"
    for lora in contents.loras:
        yield f"LoRA merged: {_code(lora['name'])}, scale {lora['scale']:g}, sha256 {_code(lora['sha256'])}"
    for one in contents.embeddings:
        tokens = "1 token" if one["vectors"] == 1 else f"{one['vectors']} tokens"
        yield (
            f"Embedding added: {_code(one['word'])} in a prompt ({tokens}), from {_code(one['name'])}, "
            f"sha256 {_code(one['sha256'])}"
        )
    yield f"Precision: {_precision(manifest)}"
    yield from _changes(manifest)
    for short in shortfalls(manifest):
        yield (
            f"**Short of its goal** on {short.backend}: {short.component} reaches {short.reached_db:.1f} dB PSNR of "
            f"{short.goal_db:g}; compare its pictures with those of the original"
        )
    yield f"Picture size: {width}x{height} pixels"
    yield f"Engines: {', '.join(manifest.backends)}"
    yield f"Guidance scale: {manifest.guidance_scale:g}"
    if manifest.default is not None:
        yield f"Sampler: {_code(manifest.default.scheduler)} in {manifest.default.steps} steps, unless you name another"
    for backend in manifest.backends:
        if (fidelity := manifest.fidelity.get(f"{backend}.image_psnr_db")) is not None:
            yield f"Fidelity on {backend}: {fidelity:.1f} dB PSNR, pictures of equal seeds against the original in fp32"


def _changes(manifest: Manifest) -> Iterator[str]:
    """Yield how many layers are quantized otherwise than by the plan, so that INT8 reaches its goal."""
    if manifest.quantization is not None and manifest.quantization.changes:
        changes = manifest.quantization.changes
        layers = "1 layer is" if len(changes) == 1 else f"{len(changes)} layers are"
        yield (
            f"For this checkpoint, {layers} in another scheme than the plan's ({cost_of(changes)}): "
            f"{_code('nano-bundle info .')} lists them"
        )


def _source(manifest: Manifest) -> str:
    """Name the original and its commit."""
    source = manifest.source
    if source.revision is None:
        return f"the checkpoint {_code(source.model)}"
    return f"{_code(source.model)} on the Hugging Face Hub, commit {_code(source.revision)}"


def _formats(manifest: Manifest) -> str:
    """Name the formats of the graphs."""
    models = [graph.model for component in manifest.components.values() for graph in component.graphs.values()]
    return " and ".join(name for suffix, name in _FORMATS.items() if any(model.endswith(suffix) for model in models))


def _precision(manifest: Manifest) -> str:
    return manifest.precision.upper() if manifest.precision == "int8" else manifest.precision


def _is_restricted(contents: Contents) -> bool:
    """Return whether the licence restricts the use, by its identifier or, if that says nothing, by its text."""
    name = contents.licence.id.lower()
    return "openrail" in name or "-rail-" in name or _RESTRICTED in contents.licence_text.lower()


def _code(text: str) -> str:
    """Show a text of unknown origin in Markdown as it is, on one line."""
    return f"`{escaped(text).replace('`', chr(39))}`"


def _link(file: str) -> str:
    return f"[{file}]({file})"
