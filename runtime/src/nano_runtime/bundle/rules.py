"""What a manifest must not say although every value has the right type: unsafe names, and parts that do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from nano_runtime.bundle.safe_paths import collision, fault_of_name

if TYPE_CHECKING:
    from nano_runtime.bundle.manifest import Component, Manifest

__all__ = ["contradictions"]

_MAX_ELEMENTS: Final = 1 << 28  # of one tensor with a batch of 1; the full-size model's largest has 0.1 million
_SHOWN: Final = 200  # characters of a name in a message


def contradictions(manifest: Manifest, own_name: str) -> Iterator[str]:
    """Yield what in a well-formed manifest cannot be true or is not safe.

    Take the first only: the later ones rely on the earlier ones not being there.

    Args:
        manifest: of the right types, but nothing more.
        own_name: the manifest's, which no other file may have.
    """
    yield from _bad_files(manifest, own_name)
    for name in _pipeline_of(manifest):
        if name not in manifest.components:
            yield f"the component {name!r} is missing"
        for backend in manifest.backends:
            if backend not in manifest.components[name].graphs:
                yield f"the component {name!r} has no graph for {backend}"
    for name, component in manifest.components.items():
        for fault in (*_misplaced(component), *_unbelievable(component)):
            yield f"the component {name!r} has {fault}"
    yield from _miswired(manifest)
    yield from _misshapen(manifest)
    channels = manifest.latent_shape[0]
    if manifest.preview is not None and len(manifest.preview) != channels + 1:
        yield f"preview has {len(manifest.preview)} rows for {channels} channels and one to add"
    for preset, meant in manifest.presets.items():
        if meant.guidance_interval[0] > meant.guidance_interval[1]:
            yield f"the guidance interval of {preset!r} ends before it begins"


def _bad_files(manifest: Manifest, own_name: str) -> Iterator[str]:
    """Yield what is wrong with names of files."""
    listed = {entry.path for entry in manifest.files}
    if len(listed) != len(manifest.files):
        yield "a file is listed twice"
    for name in _paths_in(manifest):
        if (fault := fault_of_name(name)) is not None:
            yield f"the path {name[:_SHOWN]!r} {fault}"
        if name not in listed:
            yield f"the file {name!r} has no checksum"
    if (pair := collision([own_name, *sorted(listed)])) is not None:
        yield f"{pair[0]!r} and {pair[1]!r} are one file on some systems"


def _misplaced(component: Component) -> Iterator[str]:
    """Yield files that an engine would look for elsewhere than the manifest says."""
    for backend, graph in component.graphs.items():
        stem, _, suffix = graph.model.rpartition(".")
        if suffix not in {"onnxruntime": ("onnx",), "openvino": ("onnx", "xml")}[backend]:
            yield f"the graph {graph.model!r}, which is none for {backend}"
        if suffix == "xml" and graph.weights != f"{stem}.bin":
            yield f"no {stem}.bin, which is what the engine reads with {graph.model!r}"
        if graph.weights is not None and _folder_of(graph.weights) != _folder_of(graph.model):
            yield "weights in another folder than the graph"


def _unbelievable(component: Component) -> Iterator[str]:
    """Yield tensors that are there twice, or that nobody could hold."""
    for tensors in (component.inputs, component.outputs):
        if len({tensor.name for tensor in tensors}) != len(tensors):
            yield "two tensors of one name"
        for tensor in tensors:
            if math.prod(size for size in tensor.shape if not isinstance(size, str)) > _MAX_ELEMENTS:
                yield f"a tensor {tensor.name!r} of more than {_MAX_ELEMENTS} values"


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _pipeline_of(manifest: Manifest) -> tuple[str, ...]:
    """Components that a picture from a prompt needs at every quality the bundle has, in the order they run."""
    hoisted = ("unet_prompt", "unet_time") if manifest.graph == "hoisted" else ()
    caching = any(preset.cache_interval > 1 for preset in manifest.presets.values())
    shallow = ("unet_shallow",) if caching or "unet_shallow" in manifest.components else ()
    return ("text_encoder", *hoisted, "unet", *shallow, "vae_decoder")


def _miswired(manifest: Manifest) -> Iterator[str]:
    """Yield what no graph before the UNet feeds."""
    fed = {"sample", "timestep", "encoder_hidden_states"}
    if manifest.graph == "hoisted":
        fed = {"sample"}
        for name in ("unet_prompt", "unet_time"):
            fed |= {tensor.name for tensor in manifest.components[name].outputs}
    unet = manifest.components["unet"]
    dangling = sorted({tensor.name for tensor in unet.inputs} ^ fed)
    if (shallow := manifest.components.get("unet_shallow")) is not None:
        dangling += sorted({tensor.name for tensor in shallow.inputs} - fed - {tensor.name for tensor in unet.outputs})
    if dangling:
        yield f"the tensor {dangling[0]!r} joins no two graphs"


def _misshapen(manifest: Manifest) -> Iterator[str]:
    """Yield tensors whose shapes are not what the sizes of picture, latents and prompt say."""
    components = manifest.components
    latents, pixels = ["batch", *manifest.latent_shape], ["batch", 3, *manifest.image_size]
    joints = (
        ("text_encoder", components["text_encoder"].inputs[0], ["batch", manifest.tokenizer.length]),
        ("unet", next(tensor for tensor in components["unet"].inputs if tensor.name == "sample"), latents),
        ("unet", components["unet"].outputs[0], latents),
        ("vae_decoder", components["vae_decoder"].inputs[0], latents),
        ("vae_decoder", components["vae_decoder"].outputs[0], pixels),
    )
    for name, tensor, shape in joints:
        if tensor.shape != shape:
            yield f"the tensor {tensor.name!r} of {name} has the shape {tensor.shape}, not {shape}"


def _paths_in(manifest: Manifest) -> Iterator[str]:
    """All paths a manifest mentions."""
    yield from (entry.path for entry in manifest.files)
    yield manifest.tokenizer.file
    yield manifest.licence.file
    for component in manifest.components.values():
        for graph in component.graphs.values():
            yield graph.model
            if graph.weights is not None:
                yield graph.weights
