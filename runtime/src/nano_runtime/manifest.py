r"""The contract between exporter and runtime: what ``manifest.json`` says and how it is read, written and checked.

A bundle is a folder with diffusers' names in it (``tokenizer/``, ``text_encoder/``, ``unet/``, ...) and a
``manifest.json`` that was written last. Whatever the runtime needs to know stands in the manifest; nothing about a
model is a constant in code. The exporter imports this module to write what the runtime reads, so the format has one
definition.

    components   hoisted: text_encoder -> unet_prompt \
                                           unet_time   > unet -> vae_decoder      (vae_encoder for img2img)
                 standard: text_encoder -> unet (timestep and hidden states as inputs) -> vae_decoder
                 either may have unet_shallow: the outermost layers of unet, for step caching

Outputs of ``unet_prompt`` and ``unet_time`` carry the names of the ``unet`` inputs they feed, so a reader wires graphs
by name; so does the second output of ``unet``, which ``unet_shallow`` takes in. A dimension called ``"batch"`` is the
one free dimension; an engine fixes or bounds it when it loads the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from nano_runtime.errors import ManifestError, NotABundleError, TamperedFileError

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Backend",
    "Component",
    "FileEntry",
    "Graph",
    "Licence",
    "Manifest",
    "Preset",
    "Quality",
    "Source",
    "TensorSpec",
    "TokenizerSpec",
    "Work",
    "check_file",
    "fault_of",
    "read_manifest",
    "sha256_of",
    "write_manifest",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20

Backend = Literal["onnxruntime", "openvino"]
Quality = Literal["exact", "balanced", "fast"]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all manifest records: immutable, keyword-only, unknown keys refused."""


class TensorSpec(_Record, frozen=True, kw_only=True):
    """One input or output of a graph; ``"batch"`` in ``shape`` is the free dimension."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: list[int | Literal["batch"]]


class Graph(_Record, frozen=True, kw_only=True):
    """Files of one graph for one engine, as POSIX paths inside the bundle.

    ``weights`` is the ONNX external data file, or the ``.bin`` beside an OpenVINO ``.xml``.
    """

    model: str
    weights: str | None


class Work(_Record, frozen=True, kw_only=True):
    """Matrix work of one group of a graph's layers, counted from the shapes of its ONNX form.

    Attributes:
        positions: height and width of the feature map the layers work on, the length of their sequence, or nothing for
            layers on one vector per sample.
        kind: ``attention`` is a product of two activations; the other two have weights.
        arithmetic: ``int8`` if both factors are quantized, ``f32`` otherwise; the engine may round the latter to bf16.
        layers: how many there are.
        macs: their multiply-accumulates for one row of the batch, or for a call where ``batched`` is False.
        batched: whether the work grows with the batch; a standard UNet's timestep is one for all rows.
        weight_bytes: size of their weights, which a call reads once whatever its batch.
    """

    positions: tuple[int, ...]
    kind: Literal["conv", "matmul", "attention"]
    arithmetic: Literal["int8", "f32"]
    layers: int
    macs: int
    batched: bool
    weight_bytes: int


class Component(_Record, frozen=True, kw_only=True):
    """One graph of the pipeline in every form the bundle has it.

    ``fidelity`` holds this graph's distance to the original in torch on calibration-like inputs: ``psnr_db`` and
    ``max_abs`` per engine and precision, as the exporter measured them. ``work`` is what a call has to compute; it is
    empty in bundles of earlier exporters.
    """

    precision: Literal["fp32", "int8"]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    graphs: dict[Backend, Graph]
    fidelity: dict[str, float] = {}
    work: list[Work] = []


class TokenizerSpec(_Record, frozen=True, kw_only=True):
    """How prompts become ids: file inside the bundle, fixed length, and the ids of the special tokens."""

    file: str
    length: int
    pad_id: int
    bos_id: int
    eos_id: int


class Source(_Record, frozen=True, kw_only=True):
    """Where the weights came from; ``revision`` is a commit of the Hub, or None for folders and built-ins."""

    model: str
    revision: str | None


class Licence(_Record, frozen=True, kw_only=True):
    """Licence of the weights: identifier and the file in the bundle with its text."""

    id: str
    file: str


class FileEntry(_Record, frozen=True, kw_only=True):
    """One file of the bundle: POSIX path, size in bytes, lower-case hex sha256."""

    path: str
    size: int
    sha256: str


class Preset(_Record, frozen=True, kw_only=True):
    """What a quality preset leaves out when it draws with this bundle, and what the exporter measured.

    Attributes:
        cache_interval: see ``shortcuts.Shortcuts``.
        guidance_interval: see ``shortcuts.Shortcuts``.
        work: multiply-accumulates of all UNet calls of a picture, as a share of ``exact``'s at the same steps.
        fidelity: mean distances of pictures from those of ``exact`` at the same seeds: ``image_psnr_db`` and
            ``image_ssim``.
    """

    cache_interval: Annotated[int, msgspec.Meta(ge=1)]
    guidance_interval: tuple[_Share, _Share]
    work: float
    fidelity: dict[str, float]


class Manifest(_Record, frozen=True, kw_only=True):
    """Everything a reader must know about a bundle.

    ``image_size`` is (height, width) in pixels; ``latent_shape`` is (channels, height, width); latents are divided by
    ``scaling_factor`` before decoding. ``scheduler`` is the checkpoint's diffusers scheduler config, verbatim;
    ``guidance_scale`` is what its author draws with. ``presets`` says what each quality but ``exact`` means; it is
    empty in bundles that cannot cache steps.
    ``fidelity`` compares whole images of this bundle with fp32 torch at the same seeds.
    """

    format_version: int
    name: str
    source: Source
    licence: Licence
    graph: Literal["hoisted", "standard"]
    precision: Literal["fp32", "int8"]
    backends: list[Backend]
    image_size: tuple[int, int]
    latent_shape: tuple[int, int, int]
    scaling_factor: float
    tokenizer: TokenizerSpec
    scheduler: dict[str, Any]
    guidance_scale: float = 7.5
    components: dict[str, Component]
    presets: dict[Literal["balanced", "fast"], Preset] = {}
    fidelity: dict[str, float]
    versions: dict[str, str]
    options: dict[str, Any]
    files: list[FileEntry]


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate ``bundle/manifest.json``.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        ManifestError: it is too large, not JSON, of another version, or breaks the schema.
    """
    path = bundle / MANIFEST_NAME
    if not bundle.is_dir():
        raise NotABundleError(bundle, "there is no such folder")
    if not path.is_file():
        raise NotABundleError(bundle, f"it has no {MANIFEST_NAME}")
    if (size := path.stat().st_size) > _MAX_MANIFEST_BYTES:
        raise ManifestError(path, f"{size} bytes, more than the {_MAX_MANIFEST_BYTES} allowed")
    raw = path.read_bytes()
    try:
        version = msgspec.json.decode(raw, type=dict[str, Any]).get("format_version")
        if version != FORMAT_VERSION:
            raise ManifestError(path, f"format_version {version!r}, this runtime reads {FORMAT_VERSION}")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(path, str(error)) from error
    if (fault := _contradiction(manifest)) is not None:
        raise ManifestError(path, fault)
    return manifest


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write ``bundle/manifest.json``, readable and with a stable key order (the order of the fields)."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (bundle / MANIFEST_NAME).write_bytes(encoded + b"\n")


def check_file(bundle: Path, entry: FileEntry) -> None:
    """Compare one file with its manifest entry, size first.

    Raises:
        TamperedFileError: the file is missing, of another size, or has another sha256.
    """
    if (fault := fault_of(bundle, entry)) is not None:
        raise fault


def fault_of(bundle: Path, entry: FileEntry) -> TamperedFileError | None:
    """Return what ``check_file`` would raise, for those who want to see all faults."""
    path = bundle / entry.path
    if not path.is_file():
        return TamperedFileError(path, "it is missing")
    if (size := path.stat().st_size) != entry.size:
        return TamperedFileError(path, f"{size} bytes instead of {entry.size}")
    if (digest := sha256_of(path)) != entry.sha256:
        return TamperedFileError(path, f"sha256 {digest[:12]}… instead of {entry.sha256[:12]}…")
    return None


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def _contradiction(manifest: Manifest) -> str | None:
    """Return the first thing in a well-formed manifest that cannot be true or is not safe."""
    listed = [entry.path for entry in manifest.files]
    if len(set(listed)) != len(listed):
        return "a file is listed twice"
    for name in _paths_in(manifest):
        if _escapes(name):
            return f"the path {name!r} leaves the bundle"
        if name not in listed:
            return f"the file {name!r} has no checksum"
    for preset, meant in manifest.presets.items():
        if meant.guidance_interval[0] > meant.guidance_interval[1]:
            return f"the guidance interval of {preset!r} ends before it begins"
    return _incomplete(manifest) or _miswired(manifest)


def _incomplete(manifest: Manifest) -> str | None:
    """Return the first graph that drawing needs and the bundle lacks, or None."""
    for name in _pipeline_of(manifest):
        if name not in manifest.components:
            return f"the component {name!r} is missing"
        for backend in manifest.backends:
            if backend not in manifest.components[name].graphs:
                return f"the component {name!r} has no graph for {backend}"
    return None


def _pipeline_of(manifest: Manifest) -> tuple[str, ...]:
    """Components that a picture from a prompt needs at every quality the bundle has, in the order they run."""
    hoisted = ("unet_prompt", "unet_time") if manifest.graph == "hoisted" else ()
    caching = any(preset.cache_interval > 1 for preset in manifest.presets.values())
    shallow = ("unet_shallow",) if caching or "unet_shallow" in manifest.components else ()
    return ("text_encoder", *hoisted, "unet", *shallow, "vae_decoder")


def _miswired(manifest: Manifest) -> str | None:
    """Return what no graph before the UNet feeds, or None."""
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
        return f"the tensor {dangling[0]!r} joins no two graphs"
    return None


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


def _escapes(name: str) -> bool:
    """Whether a manifest path could point outside its bundle."""
    parts = name.split("/")
    return not name or "\\" in name or ":" in name or "\0" in name or any(part in ("", ".", "..") for part in parts)
