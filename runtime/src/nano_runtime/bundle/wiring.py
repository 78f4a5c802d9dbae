r"""The graphs of a bundle: their names, the order in which they run, and which output feeds which input.

    hoisted    text_encoder -> unet_prompt \
                               unet_time    > unet -> vae_decoder
    standard   text_encoder ----------------> unet -> vae_decoder

Either form may have ``vae_encoder``, to start from a picture, ``unet_shallow``: the outermost layers of ``unet``, for
step caching, and ``preview_decoder``, a cheap ``vae_decoder``. The names of graphs and tensors are those of diffusers
and optimum.

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
    "PREVIEW_DECODER",
    "SAMPLE",
    "TEXT_ENCODER",
    "TIMESTEP",
    "TIMESTEP_COND",
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
    "Task",
    "Wiring",
    "required_graphs",
    "sample_channels",
    "wiring_of",
]

GraphForm: TypeAlias = Literal["hoisted", "standard"]
"""``hoisted``: all that does not change between steps is computed by graphs of its own, before the UNet runs.
``standard``: the UNet has the inputs that diffusers and optimum give it."""

Task: TypeAlias = Literal["text-to-image", "inpainting", "instruct-pix2pix"]
"""The channels that the UNet sees behind the latents: none; a mask and the latents of the masked picture; the latents
of the picture to change. The last two need a picture."""

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
"""Pixels -> mean and logarithm of the variance of latents; or, in as many channels as latents have, the latents."""
PREVIEW_DECODER: Final = "preview_decoder"
"""Latents -> pixels, in little time and roughly: pictures to look at while the real one is drawn."""

INPUT_IDS: Final = "input_ids"
LAST_HIDDEN_STATE: Final = "last_hidden_state"
HIDDEN_STATES: Final = "encoder_hidden_states"  # the same tensor, as the UNet calls it
TIMESTEP: Final = "timestep"
TIMESTEP_COND: Final = "timestep_cond"  # the guidance scale as a vector, for UNets that were trained with it (LCM)
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
        may_have: further inputs that some models have, and that the runtime fills.
        optional: whether pictures can be drawn from prompts without this graph.
    """

    graph: str
    given: tuple[str, ...]
    fed_by: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    optional: bool = False


_TEXT_ENCODER: Final = Wiring(TEXT_ENCODER, given=(INPUT_IDS,))
_VAE_ENCODER: Final = Wiring(VAE_ENCODER, given=(SAMPLE,), optional=True)
_VAE_DECODER: Final = Wiring(VAE_DECODER, given=(LATENT_SAMPLE,))
_PREVIEW_DECODER: Final = Wiring(PREVIEW_DECODER, given=(LATENT_SAMPLE,), optional=True)

WIRING: Final[Mapping[GraphForm, tuple[Wiring, ...]]] = {
    "hoisted": (
        _TEXT_ENCODER,
        Wiring(UNET_PROMPT, given=(HIDDEN_STATES,)),
        Wiring(UNET_TIME, given=(TIMESTEP,), may_have=(TIMESTEP_COND,)),
        _VAE_ENCODER,
        Wiring(UNET, given=(SAMPLE,), fed_by=(UNET_PROMPT, UNET_TIME)),
        Wiring(UNET_SHALLOW, given=(SAMPLE,), fed_by=(UNET_PROMPT, UNET_TIME, UNET), optional=True),
        _VAE_DECODER,
        _PREVIEW_DECODER,
    ),
    "standard": (
        _TEXT_ENCODER,
        _VAE_ENCODER,
        Wiring(UNET, given=(SAMPLE, TIMESTEP, HIDDEN_STATES), may_have=(TIMESTEP_COND,)),
        Wiring(
            UNET_SHALLOW,
            given=(SAMPLE, TIMESTEP, HIDDEN_STATES),
            fed_by=(UNET,),
            may_have=(TIMESTEP_COND,),
            optional=True,
        ),
        _VAE_DECODER,
        _PREVIEW_DECODER,
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


def sample_channels(task: Task, channels: int) -> int:
    """Return the channels of the UNet's ``sample``, where latents have ``channels``."""
    return {"text-to-image": channels, "inpainting": 2 * channels + 1, "instruct-pix2pix": 2 * channels}[task]
