"""Measures how much the output of each network moves when the output of one of its layers moves.

Backpropagation of a random projection of the output, v . f(x), gives at each layer the gradient g. For an error e of
that layer whose numbers are independent, the squared error of the network's output is the sum of e^2 E[g^2] over all
numbers (Hutchinson 1989, as HAWQ-V2, arXiv:1911.03852, uses it). One pass forward and one back serves all layers.
Pictures are cropped, so that memory stays that of a small one: layers are the same at every place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nano_export.judge.original import Probe, Reference
from nano_export.source.checkpoint import Checkpoint
from nano_runtime.bundle.wiring import (
    HIDDEN_STATES,
    LATENT_SAMPLE,
    SAMPLE,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    UNET,
    VAE_DECODER,
    VAE_ENCODER,
)

__all__ = ["Sensitivity", "sensitivities", "sensitivity_of"]

_LATENTS, _PIXELS = 16, 128  # sides of the part that is looked at
_LAYERS = (nn.Linear, nn.Conv2d)


@dataclass
class Sensitivity:
    """Of one network.

    Attributes:
        peak: range of the expected output, the peak of its PSNR.
        size: numbers in the output of one call.
        squares: by path of the module, the mean squared gradient of each output channel, summed over places; float64
            [C'].
    """

    peak: float = 0.0
    size: int = 0
    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def sensitivities(checkpoint: Checkpoint, references: Sequence[Reference]) -> Iterator[tuple[str, Sensitivity]]:
    """Yield each component and its sensitivity, from the probes of the first picture.

    Args:
        checkpoint: in torch, not taken apart yet; its weights are frozen.
        references: pictures of the original.
    """
    networks: dict[str, tuple[nn.Module, str, Callable[[Probe], Tensor]]] = {
        TEXT_ENCODER: (checkpoint.text_encoder, "text_model.", partial(_encode_text, checkpoint)),
        UNET: (checkpoint.unet, "", partial(_predict, checkpoint)),
        VAE_DECODER: (checkpoint.vae, "decoder.", partial(_decode, checkpoint)),
        VAE_ENCODER: (checkpoint.vae, "encoder.", partial(_encode, checkpoint)),
    }
    for name, (module, prefix, run) in networks.items():
        probes = [probe for probe in references[0].probes if probe.component == name]
        yield name, sensitivity_of(module, prefix, run, probes)


def sensitivity_of(
    module: nn.Module, prefix: str, run: Callable[[Probe], Tensor], probes: Sequence[Probe]
) -> Sensitivity:
    """Run each probe forward and back; return the mean squared gradients.

    Args:
        module: the network; its weights are frozen.
        prefix: of the names of its layers, which the graph leaves out.
        run: makes the output of a probe.
        probes: inputs of the network.
    """
    found = Sensitivity(peak=max(float(probe.output.max() - probe.output.min()) for probe in probes))
    module.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(0)
    hooks = [
        layer.register_forward_hook(partial(_watch, found, name.removeprefix(prefix)))
        for name, layer in module.named_modules()
        if isinstance(layer, _LAYERS)
    ]
    try:
        with torch.enable_grad():
            for probe in probes:
                output = run(probe)
                found.size = output.numel()
                torch.autograd.backward([output], [torch.randn(output.shape, generator=generator)])
    finally:
        for hook in hooks:
            hook.remove()
    found.squares = {name: squares / len(probes) for name, squares in found.squares.items()}
    return found


def _watch(found: Sensitivity, name: str, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
    """Have the gradient of a layer's output added, squared, when it is known."""
    if not output.requires_grad:
        return
    axis = 1 if isinstance(_layer, nn.Conv2d) else output.ndim - 1

    def add(gradient: Tensor) -> None:
        others = [i for i in range(gradient.ndim) if i != axis]
        squares = gradient.double().square().sum(others).numpy()
        found.squares[name] = found.squares.get(name, 0) + squares

    output.register_hook(add)  # type: ignore[no-untyped-call]


def _given(array: NDArray[Any], side: int) -> Tensor:
    """Return a part of an array, at most ``side`` high and wide, that gradients are asked of."""
    return torch.from_numpy(np.ascontiguousarray(array[..., :side, :side])).requires_grad_()


def _encode_text(checkpoint: Checkpoint, probe: Probe) -> Tensor:
    embedding = checkpoint.text_encoder.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _layer, _inputs, output: output.requires_grad_())
    try:
        hidden: Tensor = checkpoint.text_encoder(torch.from_numpy(probe.inputs["input_ids"]), return_dict=False)[0]
    finally:
        hook.remove()
    return hidden


def _predict(checkpoint: Checkpoint, probe: Probe) -> Tensor:
    condition = probe.inputs.get(TIMESTEP_COND)
    prediction: Tensor = checkpoint.unet(
        _given(probe.inputs[SAMPLE], _LATENTS),
        torch.from_numpy(probe.inputs[TIMESTEP]),
        torch.from_numpy(probe.inputs[HIDDEN_STATES]),
        timestep_cond=None if condition is None else torch.from_numpy(condition),
        return_dict=False,
    )[0]
    return prediction


def _decode(checkpoint: Checkpoint, probe: Probe) -> Tensor:
    decoded: Tensor = checkpoint.vae.decode(_given(probe.inputs[LATENT_SAMPLE], _LATENTS), return_dict=False)[0]
    return decoded


def _encode(checkpoint: Checkpoint, probe: Probe) -> Tensor:
    encoded = checkpoint.vae.encode(_given(probe.inputs[SAMPLE], _PIXELS))
    moments: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters
    return moments
