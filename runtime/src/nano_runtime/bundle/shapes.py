"""The rules about shapes in a manifest: tensors of picture, latents and prompt, and of two graphs that are joined.

Each graph computes what its description says, and the engine's outputs are compared with that. Here the descriptions
are compared with each other, and with what the code around the graphs takes for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from nano_runtime.bundle.manifest import Manifest, TensorSpec
from nano_runtime.bundle.wiring import (
    BATCH,
    HIDDEN_STATES,
    PREVIEW_DECODER,
    SAMPLE,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    TOKENS,
    UNET,
    UNET_PROMPT,
    UNET_SHALLOW,
    UNET_TIME,
    VAE_DECODER,
    VAE_ENCODER,
    sample_channels,
    wiring_of,
)

__all__ = ["SHAPE_RULES"]

_HIDDEN_AXES: Final = 3  # samples, tokens, width
_ALONE: Final = (TEXT_ENCODER, UNET_PROMPT, VAE_DECODER, VAE_ENCODER, PREVIEW_DECODER)  # graphs of one input


def shapes_fit_the_picture(manifest: Manifest) -> str | None:
    """Compare shapes of tensors with the sizes of picture, latents and prompt."""
    components = manifest.components
    channels, *sides = manifest.latent_shape
    latents, pixels = [BATCH, channels, *sides], [BATCH, 3, *manifest.image_size]
    sample = [BATCH, sample_channels(manifest.task, channels), *sides]
    joints = [
        (TEXT_ENCODER, components[TEXT_ENCODER].inputs[0], [[BATCH, manifest.tokenizer.length]]),
        (UNET, next(tensor for tensor in components[UNET].inputs if tensor.name == SAMPLE), [sample]),
        (UNET, components[UNET].outputs[0], [latents]),
    ]
    if UNET_SHALLOW in components:
        shallow = components[UNET_SHALLOW]
        joints += [(UNET_SHALLOW, tensor, [sample]) for tensor in shallow.inputs if tensor.name == SAMPLE]
        joints.append((UNET_SHALLOW, shallow.outputs[0], [latents]))
    if manifest.graph == "hoisted":
        joints += [(UNET_TIME, tensor, [[BATCH]]) for tensor in components[UNET_TIME].inputs if tensor.name == TIMESTEP]
    for name in (VAE_DECODER, PREVIEW_DECODER):
        if name in components:
            joints += [(name, components[name].inputs[0], [latents]), (name, components[name].outputs[0], [pixels])]
    if VAE_ENCODER in components:
        moments = [BATCH, 2 * channels, *sides]
        joints += [
            (VAE_ENCODER, components[VAE_ENCODER].inputs[0], [pixels]),
            (VAE_ENCODER, components[VAE_ENCODER].outputs[0], [moments, latents]),
        ]
    for name, tensor, shapes in joints:
        if tensor.shape not in shapes:
            return f"the tensor {tensor.name!r} of {name} has the shape {tensor.shape}, not {shapes[0]}"
    return None


def guidance_is_a_vector(manifest: Manifest) -> str | None:
    """Require one row of float32 for each sample where a UNet has the guidance scale as an input."""
    for name, component in manifest.components.items():
        for tensor in component.inputs:
            if tensor.name == TIMESTEP_COND and (tensor.dtype != "float32" or len(tensor.shape) != 2):  # noqa: PLR2004
                return f"the tensor {tensor.name!r} of {name} is no vector of float32 for each sample"
    return None


def graphs_take_and_give_what_is_used(manifest: Manifest) -> str | None:
    """Require one input where one is fed, the timestep where it is, and numbers in float32 from every graph."""
    for name, component in manifest.components.items():
        if name in _ALONE and len(component.inputs) != 1:
            return f"the component {name!r} has {len(component.inputs)} inputs, and is fed one"
        for tensor in component.outputs:
            if tensor.dtype != "float32":
                return f"the tensor {tensor.name!r} of {name} is computed in {tensor.dtype}, not float32"
    timed = UNET_TIME if manifest.graph == "hoisted" else UNET
    fed = {UNET_PROMPT: HIDDEN_STATES, timed: TIMESTEP}
    for name, needed in fed.items():
        if name in manifest.components and _input(manifest, name, needed) is None:
            return f"the component {name!r} has no input {needed!r}"
    return None


def rows_are_free(manifest: Manifest) -> str | None:
    """Require a free first axis of all tensors that have a row for each sample.

    All samples of a UNet's call have one timestep, so what it takes of that may have one row.
    """
    of_time = {TIMESTEP}
    if manifest.graph == "hoisted":
        of_time |= {tensor.name for tensor in manifest.components[UNET_TIME].outputs}
    for name in _described(manifest):
        component = manifest.components[name]
        outputs = component.outputs[:1] if name == TEXT_ENCODER else component.outputs  # others are not used
        for tensor in (*component.inputs, *outputs):
            one_row = name in {UNET, UNET_SHALLOW} and tensor.name in of_time and tensor.shape[:1] in ([], [1])
            if tensor.shape[:1] != [BATCH] and not one_row:
                return f"the tensor {tensor.name!r} of {name} has the shape {tensor.shape}, without {BATCH!r} in front"
    return None


def shapes_join_graphs(manifest: Manifest) -> str | None:
    """Compare what one graph computes with what another takes under the same name."""
    for name, made, taken in _joints(manifest):
        expected = [manifest.tokenizer.length if size == TOKENS else size for size in taken.shape]
        if made.shape[1:] not in (expected[1:], taken.shape[1:]):
            return f"the tensor {made.name!r} of {name} has the shape {made.shape}, and is taken as {taken.shape}"
    hidden = manifest.components[TEXT_ENCODER].outputs[0]
    if len(hidden.shape) != _HIDDEN_AXES or hidden.shape[1] != manifest.tokenizer.length:
        length = manifest.tokenizer.length
        return f"the tensor {hidden.name!r} of {TEXT_ENCODER} has the shape {hidden.shape}, not {length} tokens"
    return None


def pictures_are_multiples_of_latents(manifest: Manifest) -> str | None:
    """Require as many pixels for each latent in both directions."""
    (height, width), (_, rows, columns) = manifest.image_size, manifest.latent_shape
    if height % rows or width % columns or height // rows != width // columns:
        return f"pictures of {height} x {width} pixels are no multiple of {rows} x {columns} latents"
    return None


def _described(manifest: Manifest) -> list[str]:
    """Return the names of the components that the runtime runs, among those that are there."""
    known = (*_ALONE, UNET_TIME, UNET, UNET_SHALLOW)
    hoisted = (UNET_PROMPT, UNET_TIME)
    return [
        name for name in known if name in manifest.components and (manifest.graph == "hoisted" or name not in hoisted)
    ]


def _input(manifest: Manifest, graph: str, name: str) -> TensorSpec | None:
    """Return a graph's input of a name; None if it has none."""
    return next((tensor for tensor in manifest.components[graph].inputs if tensor.name == name), None)


def _joints(manifest: Manifest) -> Iterator[tuple[str, TensorSpec, TensorSpec]]:
    """Yield each graph with an output that another takes, that output, and the input."""
    present = _described(manifest)
    for name in (UNET, UNET_SHALLOW):
        for source in wiring_of(manifest.graph, name).fed_by if name in present else ():
            for made in manifest.components[source].outputs:
                if (taken := _input(manifest, name, made.name)) is not None:
                    yield source, made, taken
    hidden = manifest.components[TEXT_ENCODER].outputs[0]
    for name in (UNET_PROMPT,) if manifest.graph == "hoisted" else (UNET, UNET_SHALLOW):
        if name in present and (taken := _input(manifest, name, HIDDEN_STATES)) is not None:
            yield TEXT_ENCODER, hidden, taken


# A rule may rely on all that stand before it.
SHAPE_RULES: Final[tuple[Callable[[Manifest], str | None], ...]] = (
    graphs_take_and_give_what_is_used,
    pictures_are_multiples_of_latents,
    shapes_fit_the_picture,
    guidance_is_a_vector,
    rows_are_free,
    shapes_join_graphs,
)
