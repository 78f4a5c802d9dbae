r"""The graphs of a bundle: their names, the order in which they run, and which output feeds which input.

    hoisted    text_encoder -> unet_prompt \
                               unet_time    > unet -> vae_decoder
    standard   text_encoder ----------------> unet -> vae_decoder

Either form may have ``vae_encoder``, to start from a picture, and ``unet_shallow``: the outermost layers of ``unet``,
for step caching. The names of graphs and tensors are those of diffusers and optimum.

Graphs are joined by name: an output of ``unet_prompt`` or ``unet_time`` has the name of the ``unet`` input that it
feeds. The first output of ``unet`` is the prediction; the others have the names of the ``unet_shallow`` inputs that
they feed. ``text_encoder``, ``vae_encoder`` and ``vae_decoder`` have one input each; a reader takes it as the first,
and their first output, whatever the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = [
    "BATCH",
    "HIDDEN_STATES",
    "INPUT_IDS",
    "LAST_HIDDEN_STATE",
    "LATENT_PARAMETERS",
    "LATENT_SAMPLE",
    "OUT_SAMPLE",
    "SAMPLE",
    "TEXT_ENCODER",
    "TIMESTEP",
    "TOKENS",
    "UNET",
    "UNET_PROMPT",
    "UNET_SHALLOW",
    "UNET_TIME",
    "VAE_DECODER",
    "VAE_ENCODER",
    "WIRING",
    "FreeDimension",
    "GraphForm",
    "Wiring",
    "required_graphs",
    "wiring_of",
]

GraphForm: TypeAlias = Literal["hoisted", "standard"]
"""``hoisted``: all that does not change between steps is computed by graphs of its own, before the UNet runs.
``standard``: the UNet has the inputs that diffusers and optimum give it."""

FreeDimension: TypeAlias = Literal["batch", "tokens"]

TEXT_ENCODER: Final = "text_encoder"
"""Token ids of one chunk -> hidden states."""
UNET_PROMPT: Final = "unet_prompt"
"""Hidden states of one chunk -> keys and values of all cross-attention layers."""
UNET_TIME: Final = "unet_time"
"""Timesteps -> biases of all residual blocks."""
UNET: Final = "unet"
"""Noisy latents -> prediction, and the inner features that ``unet_shallow`` takes."""
UNET_SHALLOW: Final = "unet_shallow"
"""Noisy latents and forecast inner features -> prediction."""
VAE_DECODER: Final = "vae_decoder"
"""Latents -> pixels."""
VAE_ENCODER: Final = "vae_encoder"
"""Pixels -> mean and logarithm of the variance of latents."""

INPUT_IDS: Final = "input_ids"
LAST_HIDDEN_STATE: Final = "last_hidden_state"
HIDDEN_STATES: Final = "encoder_hidden_states"  # the same tensor, as the UNet calls it
TIMESTEP: Final = "timestep"
SAMPLE: Final = "sample"  # diffusers' word: the UNet's noisy latents, and the VAE's pixels
OUT_SAMPLE: Final = "out_sample"  # the UNet's prediction
LATENT_SAMPLE: Final = "latent_sample"
LATENT_PARAMETERS: Final = "latent_parameters"

BATCH: Final = "batch"
"""Free dimension, always the first: how many samples a graph computes at once."""
TOKENS: Final = "tokens"
"""Free dimension, never the first: length of the prompt that ``unet`` attends to, a multiple of the tokenizer's. The
graphs before it see one chunk at a time."""


@dataclass(frozen=True)
class Wiring:
    """The inputs of one graph.

    Attributes:
        graph: its name in the manifest, and of its folder unless it shares the weights of another.
        given: inputs that the runtime fills itself.
        fed_by: graphs whose outputs are the other inputs, each by its own name.
        optional: whether pictures can be drawn from prompts without this graph.
    """

    graph: str
    given: tuple[str, ...]
    fed_by: tuple[str, ...] = ()
    optional: bool = False


_TEXT_ENCODER: Final = Wiring(TEXT_ENCODER, given=(INPUT_IDS,))
_VAE_ENCODER: Final = Wiring(VAE_ENCODER, given=(SAMPLE,), optional=True)
_VAE_DECODER: Final = Wiring(VAE_DECODER, given=(LATENT_SAMPLE,))

WIRING: Final[Mapping[GraphForm, tuple[Wiring, ...]]] = {
    "hoisted": (
        _TEXT_ENCODER,
        Wiring(UNET_PROMPT, given=(HIDDEN_STATES,)),
        Wiring(UNET_TIME, given=(TIMESTEP,)),
        _VAE_ENCODER,
        Wiring(UNET, given=(SAMPLE,), fed_by=(UNET_PROMPT, UNET_TIME)),
        Wiring(UNET_SHALLOW, given=(SAMPLE,), fed_by=(UNET_PROMPT, UNET_TIME, UNET), optional=True),
        _VAE_DECODER,
    ),
    "standard": (
        _TEXT_ENCODER,
        _VAE_ENCODER,
        Wiring(UNET, given=(SAMPLE, TIMESTEP, HIDDEN_STATES)),
        Wiring(UNET_SHALLOW, given=(SAMPLE, TIMESTEP, HIDDEN_STATES), fed_by=(UNET,), optional=True),
        _VAE_DECODER,
    ),
}
"""All graphs of each form, in the order in which they run."""


def wiring_of(form: GraphForm, graph: str) -> Wiring:
    """Return the inputs of one graph.

    Raises:
        KeyError: the form has no such graph.
    """
    for wiring in WIRING[form]:
        if wiring.graph == graph:
            return wiring
    raise KeyError(graph)


def required_graphs(form: GraphForm, *, shallow: bool) -> tuple[str, ...]:
    """Return the graphs that a picture from a prompt needs, in the order in which they run.

    Args:
        form: of the bundle.
        shallow: whether steps are cached, for which ``unet_shallow`` is needed too.
    """
    return tuple(
        wiring.graph for wiring in WIRING[form] if not wiring.optional or (shallow and wiring.graph == UNET_SHALLOW)
    )
