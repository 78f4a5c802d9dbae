"""The format of ``manifest.json``, as records; the exporter writes them and the runtime reads them.

A bundle is a folder with diffusers' names in it (``tokenizer/``, ``text_encoder/``, ``unet/``, ...) and a
``manifest.json`` that is written last. All that the runtime must know about a model is in the manifest; code has no
constants about one. ``wiring`` says how the graphs fit together, ``rules`` what else must hold, ``reading`` reads and
writes the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from nano_runtime.bundle.wiring import BATCH, TOKENS, FreeDimension, GraphForm, Task

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "OLDEST_VERSION",
    "Backend",
    "Change",
    "Component",
    "Default",
    "Exporter",
    "FileEntry",
    "Graph",
    "Licence",
    "Manifest",
    "Precision",
    "Preset",
    "Quality",
    "Quantization",
    "Quantizer",
    "Source",
    "TensorSpec",
    "TokenizerSpec",
    "Work",
]

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 5
"""Version that the exporter writes. 2 added the free prompt length, 3 the default for sampler and steps, 4 BLAKE3, 5
tasks, embeddings, an engine's own tensors and half precision."""
OLDEST_VERSION = 1
"""Oldest version that is still read."""

# Ranges keep out what is damaged or hostile; what is real lies far inside.
Size = Annotated[int, Meta(ge=1, le=1 << 20)]
Pixels = Annotated[int, Meta(ge=8, le=4096)]
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=10_000)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Backend = Literal["onnxruntime", "openvino"]
Quality = Literal["exact", "balanced", "fast"]
Precision = Literal["fp32", "fp16", "int8"]
"""``fp16`` is for graphs that another exporter wrote."""
Exporter = Literal["nano", "optimum", "optimum-intel", "diffusers"]
"""The tool that wrote the graphs."""
Quantizer = Literal["nano", "nncf"]
"""The tool that made INT8 graphs of float graphs."""
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: immutable, keyword-only, unknown keys refused."""


class TensorSpec(_Record, frozen=True, kw_only=True):
    """One input or output of a graph.

    Attributes:
        name: of the tensor in the graph.
        dtype: of its values.
        shape: sizes; ``"batch"`` and ``"tokens"`` are free dimensions, which an engine fixes or bounds when it loads
            the graph (see ``wiring``).
    """

    name: Name
    dtype: Literal["float32", "float16", "int64", "int32"]
    shape: Annotated[list[Size | FreeDimension], Meta(max_length=8)]

    def __post_init__(self) -> None:
        """Refuse free dimensions where no engine looks for them."""
        if TOKENS in self.shape[:1] or BATCH in self.shape[1:] or self.shape.count(TOKENS) > 1:
            raise ValueError(f"the tensor {self.name!r} has a free dimension out of place")


class Graph(_Record, frozen=True, kw_only=True):
    """Files of one graph for one engine, as POSIX paths inside the bundle, and its own tensors if they differ.

    Attributes:
        model: the graph, ``.onnx`` or ``.xml``.
        weights: ONNX external data, or the ``.bin`` of an OpenVINO ``.xml``, under the name by which the engine finds
            it: in the folder of the model, and a ``.bin`` has the name of its ``.xml``. None if the model has its
            weights inside.
        inputs: of this graph, in the order of the component's, which the runtime feeds. They may differ in name, in
            precision, and by a scalar in place of a tensor of one value. None if they are the component's.
        outputs: of this graph, likewise.
    """

    model: str
    weights: str | None
    inputs: Annotated[list[TensorSpec], Meta(min_length=1)] | None = None
    outputs: Annotated[list[TensorSpec], Meta(min_length=1)] | None = None


class Work(_Record, frozen=True, kw_only=True):
    """Matrix work of one group of a graph's layers, counted from the shapes of its ONNX form.

    Attributes:
        positions: height and width of the layers' feature map, the length of their sequence, or nothing for layers on
            one vector per sample.
        kind: ``attention`` is a product of two activations; the other two have weights.
        arithmetic: ``int8`` if both factors are quantized, ``f32`` otherwise; the engine may round ``f32`` to bf16.
        layers: number of layers.
        macs: their multiply-accumulates for one row of the batch, or for a call where ``batched`` is False.
        batched: whether the work grows with the batch; a standard UNet has one timestep for all rows.
        weight_bytes: size of their weights, which a call reads once for all rows.
    """

    positions: tuple[Size, ...]
    kind: Literal["conv", "matmul", "attention"]
    arithmetic: Literal["int8", "f32"]
    layers: Count
    macs: Count
    batched: bool
    weight_bytes: Count


class Component(_Record, frozen=True, kw_only=True):
    """One graph of the pipeline, with its files for every engine.

    Attributes:
        precision: of weights and activations.
        inputs: tensors that the runtime feeds.
        outputs: tensors that it gets.
        graphs: its files by engine, and the tensors that a graph takes and computes itself.
        fidelity: distance to the original in torch on calibration-like inputs, measured by the exporter: ``psnr_db``
            and ``max_abs``, each behind the engine's name and a dot.
        work: multiply-accumulates of a call; empty in bundles of earlier exporters.
    """

    precision: Precision
    inputs: Annotated[list[TensorSpec], Meta(min_length=1)]
    outputs: Annotated[list[TensorSpec], Meta(min_length=1)]
    graphs: dict[Backend, Graph]
    fidelity: dict[str, float] = {}
    work: list[Work] = []


class TokenizerSpec(_Record, frozen=True, kw_only=True):
    """Settings of the tokenizer.

    Attributes:
        file: inside the bundle.
        length: tokens of a chunk, those that begin and end it included.
        pad_id: id that fills a chunk.
        bos_id: id that begins a chunk.
        eos_id: id that ends a chunk.
        embeddings: words of textual inversions, each with the ids of its vectors in order. The first is the word's own
            id; a prompt with it stands for all of them.
    """

    file: str
    length: Annotated[int, Meta(ge=3, le=10_000)]
    pad_id: TokenId
    bos_id: TokenId
    eos_id: TokenId
    embeddings: Annotated[
        dict[Name, Annotated[list[TokenId], Meta(min_length=1, max_length=1024)]], Meta(max_length=4096)
    ] = {}


class Source(_Record, frozen=True, kw_only=True):
    """Origin of the weights; ``revision`` is a commit of the Hub, or None for folders and built-in models."""

    model: Text
    revision: Text | None


class Licence(_Record, frozen=True, kw_only=True):
    """Licence of the weights: identifier and the file in the bundle with its text."""

    id: Name
    file: str


class Change(_Record, frozen=True, kw_only=True):
    """One layer that is quantized otherwise than the plan says, because this checkpoint needs it.

    Attributes:
        component: its graph.
        layer: name of the node in the ONNX form.
        scheme: in place of the plan's; see ``nano_export.quantize.plan``.
        reason: for people.
        share: of the arithmetic of the graph's layers that the layer does: the cost of the change, or, where it becomes
            INT8, what the change spares. Milliseconds would hold for one processor and one engine.
    """

    component: Name
    layer: Annotated[str, Meta(min_length=1, max_length=1000)]
    scheme: Name
    reason: Text
    share: _Share


class Quantization(_Record, frozen=True, kw_only=True):
    """How the INT8 graphs were made. What they reached is in ``fidelity``.

    Attributes:
        plan: that was begun with; see ``nano_export.quantize.plan``.
        quantizer: ``nano`` writes one graph for all engines, ``nncf`` one for OpenVINO.
        goal_db: PSNR that the exporter aimed at, by component. Empty in bundles of earlier exporters.
        changes: layers that were moved to another scheme to get there.
        equalized: number of places where scales were moved from activations into weights, which changes no result.
        search_s: seconds that the search for these changes took.
    """

    plan: Name
    quantizer: Quantizer = "nano"
    goal_db: dict[Name, Annotated[float, Meta(gt=0, le=1000)]] = {}
    changes: Annotated[list[Change], Meta(max_length=4096)] = []
    equalized: Count = 0
    search_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


class FileEntry(_Record, frozen=True, kw_only=True):
    """One file of the bundle; ``checksums`` computes and compares its checksums.

    Attributes:
        path: POSIX path inside the bundle.
        size: in bytes.
        sha256: lower-case hex; other tools know this one.
        blake3: lower-case hex; loading compares this one, which takes a third of the time, and less on processors
            without instructions for sha256. None in formats 1 to 3.
    """

    path: str
    size: Count
    sha256: _Digest
    blake3: _Digest | None = None


class Preset(_Record, frozen=True, kw_only=True):
    """One quality preset: the work it leaves out, and the distance that the exporter measured.

    Attributes:
        cache_interval: see ``shortcuts.Shortcuts``.
        guidance_interval: see ``shortcuts.Shortcuts``.
        work: multiply-accumulates of all UNet calls of a picture, as a share of ``exact``'s at the same steps.
        fidelity: mean distances of pictures from those of ``exact`` at the same seeds: ``image_psnr_db`` and
            ``image_ssim``.
    """

    cache_interval: Annotated[int, Meta(ge=1)]
    guidance_interval: tuple[_Share, _Share]
    work: float
    fidelity: dict[str, float]


class Default(_Record, frozen=True, kw_only=True):
    """Sampler and steps of a call that names neither, chosen by the exporter from measurements.

    Attributes:
        scheduler: see ``samplers.make_sampler``.
        steps: inference steps with this sampler; any other has 20.
        fidelity: mean distances from pictures of many steps at the same seeds: ``image_psnr_db``, and
            ``own.image_psnr_db`` of 20 steps by the checkpoint's own sampler.
    """

    scheduler: Name
    steps: Annotated[int, Meta(ge=1, le=1000)]
    fidelity: dict[str, float]


class Manifest(_Record, frozen=True, kw_only=True):
    """All that a reader must know about a bundle.

    Attributes:
        format_version: of this record.
        name: of the model.
        source: origin of the weights.
        licence: of the weights.
        graph: form of the UNet; see ``wiring``.
        task: what the UNet sees besides the latents; see ``wiring``.
        precision: of the graphs.
        quantization: how INT8 graphs were made; None for others, and in bundles of earlier exporters.
        exporter: the tool that wrote the graphs.
        backends: engines that the bundle serves.
        image_size: (height, width) in pixels.
        latent_shape: (channels, height, width).
        scaling_factor: latents are divided by it before decoding.
        tokenizer: how prompts become ids.
        scheduler: config of the scheduler that diffusers draws the checkpoint with. JSON has no infinity, so numbers
            that are not finite are the strings "Infinity", "-Infinity" and "NaN".
        guidance_scale: the author's; the default of a call.
        default: sampler and steps of a call that names neither; None: the checkpoint's own sampler in 20 steps.
        preview: matrix from clean latents to colours in [0, 1]: a row of red, green and blue for each channel, and
            one that is added. None in bundles of earlier exporters.
        components: graphs by name; see ``wiring``.
        presets: quality presets besides ``exact``; empty in bundles that cannot cache steps.
        fidelity: distance of whole pictures from those of fp32 torch at the same seeds.
        versions: of the tools that exported it.
        options: of the export.
        files: all files but the manifest.
    """

    format_version: int
    name: Text
    source: Source
    licence: Licence
    graph: GraphForm
    task: Task = "text-to-image"
    precision: Precision
    quantization: Quantization | None = None
    exporter: Exporter = "nano"
    backends: Annotated[list[Backend], Meta(min_length=1)]
    image_size: tuple[Pixels, Pixels]
    latent_shape: tuple[Annotated[int, Meta(ge=1, le=64)], Size, Size]
    scaling_factor: Positive
    tokenizer: TokenizerSpec
    scheduler: dict[str, Any]
    guidance_scale: Annotated[float, Meta(ge=0, le=1e6)] = 7.5
    default: Default | None = None
    preview: Annotated[list[tuple[float, float, float]], Meta(max_length=65)] | None = None
    components: Annotated[dict[Name, Component], Meta(max_length=64)]
    presets: dict[Literal["balanced", "fast"], Preset] = {}
    fidelity: dict[str, float]
    versions: dict[str, str]
    options: dict[str, Any]
    files: Annotated[list[FileEntry], Meta(max_length=4096)]
