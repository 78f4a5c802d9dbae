"""Fits the graphs of a folder to the wiring of a standard bundle: which tensor is which, and what sizes they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nano_export.adoption.folder import GraphFolder
from nano_export.adoption.tensors import ForeignGraph, Tensor, precision_of
from nano_export.errors import AdoptionError, ImageSizeError
from nano_runtime.bundle.manifest import Precision, TensorSpec
from nano_runtime.bundle.wiring import (
    BATCH,
    HIDDEN_STATES,
    INPUT_IDS,
    LAST_HIDDEN_STATE,
    LATENT_PARAMETERS,
    LATENT_SAMPLE,
    OUT_SAMPLE,
    SAMPLE,
    TEXT_ENCODER,
    TIMESTEP,
    TIMESTEP_COND,
    TOKENS,
    UNET,
    VAE_DECODER,
    VAE_ENCODER,
    FreeDimension,
    Task,
)

__all__ = ["Fitted", "Sizes", "fit", "sizes_of", "task_for"]

_LARGEST_SIZE = 1024  # pixels, as for graphs that nano-export traces
_SIZE = 512  # of diffusers' ONNX pipeline, where no config names one
_TOKENS = 77
_LEVELS, _VAE_LEVELS = 4, 4  # of the UNet and the autoencoder, where no config names them

_Shape = tuple[int | FreeDimension, ...]
_Dtype = Literal["float32", "float16", "int64", "int32"]
_DTYPES: Mapping[str, _Dtype] = {"float32": "float32", "float16": "float16", "int64": "int64", "int32": "int32"}
_FED: Mapping[str, _Dtype] = {"float32": "float32", "float16": "float32", "int64": "int64", "int32": "int64"}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model's tensors.

    Attributes:
        pixels: height and width of a picture.
        latents: channels, height and width.
        sample_channels: channels of the UNet's sample: those of the latents, and what the task adds.
        length: tokens of a chunk.
        tokens: of the UNet's prompt; free unless the graph has one length.
        width: of the hidden states.
    """

    pixels: tuple[int, int]
    latents: tuple[int, int, int]
    sample_channels: int
    length: int
    tokens: int | FreeDimension
    width: int


@dataclass(frozen=True)
class Fitted:
    """A component of the bundle: what the runtime feeds and gets, and the graph's own tensors in the same order."""

    precision: Precision
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    own_inputs: list[TensorSpec]
    own_outputs: list[TensorSpec]


@dataclass(frozen=True)
class _Slot:
    """A tensor that the wiring has: its name there, its sizes, and the kind of its numbers."""

    name: str
    shape: _Shape
    kind: Literal["float", "int", "number"] = "float"


def sizes_of(folder: GraphFolder, graphs: Mapping[str, ForeignGraph], length: int | None, size: int | None) -> Sizes:
    """Find out sizes from the graphs, and from the configs where graphs leave them free.

    Args:
        folder: with the configs.
        graphs: by component.
        length: of the tokenizer; None if it names none.
        size: height and width that the caller asks for, in pixels; None for the folder's own.

    Raises:
        AdoptionError: a tensor is missing or has another rank, or the graphs have another size.
        ImageSizeError: the networks cannot draw pictures of that size.
    """
    unet = _by_name(folder, UNET, graphs[UNET])
    sample, prompt = (_of_rank(folder, UNET, unet, name, rank) for name, rank in ((SAMPLE, 4), (HIDDEN_STATES, 3)))
    latent = _only(folder, VAE_DECODER, graphs[VAE_DECODER].inputs)
    ids = _only(folder, TEXT_ENCODER, graphs[TEXT_ENCODER].inputs)
    factor = 2 ** (_levels(folder.vae("block_out_channels", None), _VAE_LEVELS) - 1)
    height, width = (_side(folder, axis, (sample.shape[axis], latent.shape[axis]), factor, size) for axis in (2, 3))
    channels = _known(latent.shape[1], folder.vae("latent_channels", None), 4)
    return Sizes(
        pixels=(height * factor, width * factor),
        latents=(channels, height, width),
        sample_channels=_known(
            sample.shape[1], graphs[UNET].channels_into(SAMPLE), folder.config(UNET).get("in_channels"), channels
        ),
        length=_known(ids.shape[1], length, folder.config(TEXT_ENCODER).get("max_position_embeddings"), _TOKENS),
        tokens=TOKENS if prompt.shape[1] is None else prompt.shape[1],
        width=_known(
            prompt.shape[2],
            folder.config(UNET).get("cross_attention_dim"),
            folder.config(TEXT_ENCODER).get("hidden_size"),
            768,
        ),
    )


def task_for(folder: GraphFolder, sizes: Sizes) -> Task:
    """Return what the UNet's channels behind the latents are.

    Raises:
        AdoptionError: they are none that Nano draws with.
    """
    channels = sizes.latents[0]
    tasks: dict[int, Task] = {
        channels: "text-to-image",
        2 * channels + 1: "inpainting",
        2 * channels: "instruct-pix2pix",
    }
    if sizes.sample_channels not in tasks:
        raise AdoptionError(
            folder.path / UNET, f"its UNet takes {sizes.sample_channels} channels, and {[*tasks]} are known"
        )
    return tasks[sizes.sample_channels]


def fit(folder: GraphFolder, name: str, graph: ForeignGraph, sizes: Sizes) -> Fitted:
    """Match a graph's tensors with the wiring's, and fix its shapes.

    Raises:
        AdoptionError: a tensor is missing or unknown, or has another shape or type.
    """
    given, wanted = _slots(name, graph, sizes)
    found = _by_name(folder, name, graph) if len(given) > 1 else {given[0].name: _only(folder, name, graph.inputs)}
    known = {slot.name for slot in given}
    if stranger := next((tensor for tensor in found if tensor not in known), None):
        raise AdoptionError(
            folder.path / name, f"the graph takes {stranger!r}, which Stable Diffusion 1 and 2 have not"
        )
    pairs = [_paired(folder, name, slot, found[slot.name]) for slot in given if slot.name in found]
    output = _paired(folder, name, wanted, _output(graph, wanted.name))
    try:
        graph.fix([own for _, own in pairs], output[1])
        precision = precision_of(graph)
    except ValueError as error:
        raise AdoptionError(folder.path / name, str(error)) from error
    return Fitted(precision, [fed for fed, _ in pairs], [output[0]], [own for _, own in pairs], [output[1]])


def _slots(name: str, graph: ForeignGraph, sizes: Sizes) -> tuple[list[_Slot], _Slot]:
    """Return the inputs and the output that the wiring has for a component."""
    latents: _Shape = (BATCH, *sizes.latents)
    pixels: _Shape = (BATCH, 3, *sizes.pixels)
    if name == TEXT_ENCODER:
        ids = _Slot(INPUT_IDS, (BATCH, sizes.length), "int")
        return [ids], _Slot(LAST_HIDDEN_STATE, (BATCH, sizes.length, sizes.width))
    if name == VAE_DECODER:
        return [_Slot(LATENT_SAMPLE, latents)], _Slot(SAMPLE, pixels)
    if name == VAE_ENCODER:
        channels, *sides = sizes.latents
        (encoded,) = graph.outputs[:1]
        if (encoded.shape[1] if encoded.shape else None) == channels or encoded.name == LATENT_SAMPLE:
            return [_Slot(SAMPLE, pixels)], _Slot(LATENT_SAMPLE, latents)
        return [_Slot(SAMPLE, pixels)], _Slot(LATENT_PARAMETERS, (BATCH, 2 * channels, *sides))
    guidance = next((tensor.shape[1] for tensor in graph.inputs if tensor.name == TIMESTEP_COND), None)
    given = [
        _Slot(SAMPLE, (BATCH, sizes.sample_channels, *sizes.latents[1:])),
        _Slot(TIMESTEP, (1,), "number"),
        _Slot(HIDDEN_STATES, (BATCH, sizes.tokens, sizes.width)),
    ]
    if guidance is not None:
        given.append(_Slot(TIMESTEP_COND, (BATCH, guidance)))
    return given, _Slot(OUT_SAMPLE, latents)


def _paired(folder: GraphFolder, name: str, slot: _Slot, tensor: Tensor) -> tuple[TensorSpec, TensorSpec]:
    """Return a tensor as the runtime has it, and as the graph has it.

    Raises:
        AdoptionError: its type or shape is not the wiring's.
    """
    where = f"{name}'s tensor {tensor.name!r}"
    if tensor.dtype not in _DTYPES or not (slot.kind == "number" or tensor.dtype.startswith(slot.kind)):
        raise AdoptionError(folder.path, f"{where} has the type {tensor.dtype}")
    shape = slot.shape
    if slot.name == TIMESTEP and not tensor.shape:
        shape = ()
    elif tensor.shape and len(tensor.shape) != len(shape):  # an output of unknown rank fits
        raise AdoptionError(folder.path, f"{where} has {len(tensor.shape)} dimensions, not {len(shape)}")
    for size, wanted in zip(tensor.shape, shape, strict=False):
        if wanted == BATCH and size is not None:
            why = f"{where} is fixed at a batch of {size}; export it again with a dynamic batch"
            raise AdoptionError(folder.path, why)
        if isinstance(wanted, int) and size not in (None, wanted):
            raise AdoptionError(folder.path, f"{where} has the shape {[*tensor.shape]}, not {[*shape]}")
    fed = TensorSpec(name=slot.name, dtype=_FED[tensor.dtype], shape=[*slot.shape])
    return fed, TensorSpec(name=tensor.name, dtype=_DTYPES[tensor.dtype], shape=[*shape])


def _by_name(folder: GraphFolder, name: str, graph: ForeignGraph) -> dict[str, Tensor]:
    """Return a graph's inputs by name.

    Raises:
        AdoptionError: one that every UNet has is missing.
    """
    found = {tensor.name: tensor for tensor in graph.inputs}
    missing = next((tensor for tensor in (SAMPLE, TIMESTEP, HIDDEN_STATES) if tensor not in found), None)
    if missing is not None:
        raise AdoptionError(folder.path / name, f"the graph has no input {missing!r}, but {', '.join(found)}")
    return found


def _of_rank(folder: GraphFolder, name: str, found: Mapping[str, Tensor], tensor: str, rank: int) -> Tensor:
    """Return an input, after comparing its number of dimensions.

    Raises:
        AdoptionError: it is another.
    """
    if len(found[tensor].shape) != rank:
        raise AdoptionError(folder.path / name, f"{tensor!r} has {len(found[tensor].shape)} dimensions, not {rank}")
    return found[tensor]


def _only(folder: GraphFolder, name: str, tensors: Sequence[Tensor]) -> Tensor:
    """Return the only input of a graph.

    Raises:
        AdoptionError: there are others, or it has no batch.
    """
    if len(tensors) != 1 or len(tensors[0].shape) < 2:  # noqa: PLR2004 - a batch, and something in it
        raise AdoptionError(
            folder.path / name,
            f"the graph takes {', '.join(tensor.name for tensor in tensors)}; one tensor is expected",
        )
    return tensors[0]


def _output(graph: ForeignGraph, name: str) -> Tensor:
    """Return the output of that name, or the first."""
    return next((tensor for tensor in graph.outputs if tensor.name == name), graph.outputs[0])


def _side(folder: GraphFolder, axis: int, fixed: tuple[int | None, ...], factor: int, size: int | None) -> int:
    """Return a side of the latents: the graphs', the one that is asked for, or the config's.

    Raises:
        AdoptionError: the graphs have another size than the one that is asked for.
        ImageSizeError: the networks cannot draw pictures of that size.
    """
    side = next((found for found in fixed if found is not None), None)
    if side is not None:
        if size not in (None, side * factor):
            raise AdoptionError(folder.path, f"its graphs draw {side * factor} pixels, not {size}; leave out --size")
        return side
    config = folder.config(UNET)
    own = config.get("sample_size")
    own = own[axis - 2] if isinstance(own, list) and len(own) == 2 else own  # noqa: PLR2004 - height and width
    own = own if isinstance(own, int) else _SIZE // factor
    pixels = own * factor if size is None else size
    halvings = 2 ** (_levels(config.get("block_out_channels"), _LEVELS) - 1)
    # diffusers' UNet doubles a side on its way up, and other tools trace that at the config's size. If a level halves
    # that size with a rest, it enlarges to the size of the level above instead: such a graph draws any other, too.
    multiple = factor * halvings if own % halvings == 0 else factor
    if pixels % multiple or not multiple <= pixels <= _LARGEST_SIZE:
        raise ImageSizeError(pixels, multiple, _LARGEST_SIZE)
    return pixels // factor


def _levels(channels: object, default: int) -> int:
    """Return the number of levels of a network, from a config's list of their channels."""
    return len(channels) if isinstance(channels, list) and channels else default


def _known(*sizes: int | None) -> int:
    """Return the first size that is known."""
    return next(size for size in sizes if isinstance(size, int))
