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
by name; so does the second output of ``unet``, which ``unet_shallow`` takes in. Two dimensions are free, and an engine
fixes or bounds them when it loads the graph: ``"batch"``, always the first, and ``"tokens"``, never the first, the
length of the prompt that ``unet`` attends to. It is a multiple of the tokenizer's: the graphs before see one chunk of a
prompt at a time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from blake3 import blake3
from msgspec import Meta

from nano_runtime.bundle.reading import check_json
from nano_runtime.bundle.rules import contradictions
from nano_runtime.bundle.safe_paths import fault_of_place, open_plain
from nano_runtime.errors import ManifestError, NotABundleError, TamperedFileError

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Backend",
    "Component",
    "Default",
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
    "blake3_of",
    "check_file",
    "fault_of",
    "manifest_bytes",
    "parse_manifest",
    "read_manifest",
    "sha256_of",
    "write_manifest",
]

FORMAT_VERSION = 4
_OLDEST_VERSION = 1  # it has no free prompt length, 2 no default for sampler and steps, 3 no blake3
MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_WHY_CHARACTERS = 300
_CHUNK_BYTES = 1 << 20

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
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all manifest records: immutable, keyword-only, unknown keys refused."""


class TensorSpec(_Record, frozen=True, kw_only=True):
    """One input or output of a graph; ``"batch"`` and ``"tokens"`` in ``shape`` are free dimensions."""

    name: Name
    dtype: Literal["float32", "int64"]
    shape: Annotated[list[Size | Literal["batch", "tokens"]], Meta(max_length=8)]

    def __post_init__(self) -> None:
        """Refuse free dimensions where no engine looks for them."""
        if "tokens" in self.shape[:1] or "batch" in self.shape[1:] or self.shape.count("tokens") > 1:
            raise ValueError(f"the tensor {self.name!r} has a free dimension out of place")


class Graph(_Record, frozen=True, kw_only=True):
    """Files of one graph for one engine, as POSIX paths inside the bundle.

    ``weights`` is the ONNX external data file, or the ``.bin`` beside an OpenVINO ``.xml``. It lies in the folder of
    the model, and a ``.bin`` has the name of its ``.xml``: the engine finds it by that.
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

    positions: tuple[Size, ...]
    kind: Literal["conv", "matmul", "attention"]
    arithmetic: Literal["int8", "f32"]
    layers: Count
    macs: Count
    batched: bool
    weight_bytes: Count


class Component(_Record, frozen=True, kw_only=True):
    """One graph of the pipeline in every form the bundle has it.

    ``fidelity`` holds this graph's distance to the original in torch on calibration-like inputs: ``psnr_db`` and
    ``max_abs`` per engine and precision, as the exporter measured them. ``work`` is what a call has to compute; it is
    empty in bundles of earlier exporters.
    """

    precision: Literal["fp32", "int8"]
    inputs: Annotated[list[TensorSpec], Meta(min_length=1)]
    outputs: Annotated[list[TensorSpec], Meta(min_length=1)]
    graphs: dict[Backend, Graph]
    fidelity: dict[str, float] = {}
    work: list[Work] = []


class TokenizerSpec(_Record, frozen=True, kw_only=True):
    """How prompts become ids: file inside the bundle, fixed length, and the ids of the special tokens."""

    file: str
    length: Annotated[int, Meta(ge=3, le=10_000)]
    pad_id: TokenId
    bos_id: TokenId
    eos_id: TokenId


class Source(_Record, frozen=True, kw_only=True):
    """Where the weights came from; ``revision`` is a commit of the Hub, or None for folders and built-ins."""

    model: Text
    revision: Text | None


class Licence(_Record, frozen=True, kw_only=True):
    """Licence of the weights: identifier and the file in the bundle with its text."""

    id: Name
    file: str


class FileEntry(_Record, frozen=True, kw_only=True):
    """One file of the bundle: POSIX path, size in bytes, and its checksums in lower-case hex.

    Loading compares ``blake3``, which takes a third of the time, and less where a processor has no instructions for
    sha256; it is None in bundles of formats 1 to 3. ``sha256`` is what other tools know.
    """

    path: str
    size: Count
    sha256: _Digest
    blake3: _Digest | None = None

    @classmethod
    def of(cls, bundle: Path, path: Path) -> FileEntry:
        """Describe a file of a bundle as it is."""
        name, size = path.relative_to(bundle).as_posix(), path.stat().st_size
        return cls(path=name, size=size, sha256=sha256_of(path), blake3=blake3_of(path))


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


class Default(_Record, frozen=True, kw_only=True):
    """How to draw where a call does not say, as the exporter measured it.

    Attributes:
        scheduler: see ``samplers.make_sampler``.
        steps: inference steps; for other samplers than this one, 20.
        fidelity: mean distances from pictures of many steps at the same seeds: ``image_psnr_db``, and
            ``own.image_psnr_db`` of 20 steps by the checkpoint's own sampler.
    """

    scheduler: Name
    steps: Annotated[int, Meta(ge=1, le=1000)]
    fidelity: dict[str, float]


class Manifest(_Record, frozen=True, kw_only=True):
    """Everything a reader must know about a bundle.

    ``image_size`` is (height, width) in pixels; ``latent_shape`` is (channels, height, width); latents are divided by
    ``scaling_factor`` before decoding. ``scheduler`` is the checkpoint's diffusers scheduler config, verbatim;
    ``guidance_scale`` is what its author draws with, ``default`` how a call that does not say draws; None means the
    checkpoint's own sampler in 20 steps. ``preview`` turns clean latents into colours in [0, 1]: a row of
    red, green and blue for each channel, and one that is added; None in bundles of earlier exporters. ``presets`` says
    what each quality but ``exact`` means; it is empty in bundles that cannot cache steps.
    ``fidelity`` compares whole images of this bundle with fp32 torch at the same seeds.
    """

    format_version: int
    name: Text
    source: Source
    licence: Licence
    graph: Literal["hoisted", "standard"]
    precision: Literal["fp32", "int8"]
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


class _Versioned(msgspec.Struct):
    """Any document with a version, to say that it is another one before saying what is wrong with it."""

    format_version: Any = None


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate ``bundle/manifest.json``.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        ManifestError: it is too large, not JSON, of another version, or breaks the schema.
    """
    return parse_manifest(manifest_bytes(bundle), bundle / MANIFEST_NAME)


def manifest_bytes(bundle: Path) -> bytes:
    """Read ``bundle/manifest.json`` without looking into it.

    Raises:
        NotABundleError: there is no such folder or no manifest in it.
        ManifestError: it is too large, a link, or not a plain file.
    """
    path = bundle / MANIFEST_NAME
    if not bundle.is_dir():
        raise NotABundleError(bundle, "there is no such folder")
    if not os.path.lexists(path):
        raise NotABundleError(bundle, f"it has no {MANIFEST_NAME}")
    if (fault := fault_of_place(bundle, MANIFEST_NAME)) is not None:
        raise ManifestError(path, fault)
    if (size := path.stat().st_size) > _MAX_MANIFEST_BYTES:
        raise ManifestError(path, f"{size} bytes, more than the {_MAX_MANIFEST_BYTES} allowed")
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(_MAX_MANIFEST_BYTES)


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Read and validate the content of a manifest; nothing else is opened.

    Args:
        raw: the content.
        path: where it came from, for messages.

    Raises:
        ManifestError: it is not strict JSON, of another version, breaks the schema, or contradicts itself.
    """
    try:
        check_json(raw)
        version = msgspec.json.decode(raw, type=_Versioned).format_version
        known = range(_OLDEST_VERSION, FORMAT_VERSION + 1)
        manifest = msgspec.json.decode(raw, type=Manifest) if version in known else None
    except (ValueError, RecursionError) as error:  # also what msgspec raises
        raise ManifestError(path, str(error)[:_MAX_WHY_CHARACTERS]) from error
    if manifest is None:
        reads = f"this runtime reads {_OLDEST_VERSION} to {FORMAT_VERSION}"
        raise ManifestError(path, f"format_version {str(version)[:40]}, {reads}")
    for fault in contradictions(manifest, MANIFEST_NAME):
        raise ManifestError(path, fault)
    return manifest


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write ``bundle/manifest.json``, readable and with a stable key order (the order of the fields)."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (bundle / MANIFEST_NAME).write_bytes(encoded + b"\n")


def check_file(bundle: Path, entry: FileEntry) -> None:
    """Compare one file with its manifest entry: its size, and its quicker checksum.

    Raises:
        TamperedFileError: the file is missing, of another size, or has another checksum.
    """
    if (fault := fault_of(bundle, entry)) is not None:
        raise fault


def fault_of(bundle: Path, entry: FileEntry, *, all_checksums: bool = False) -> TamperedFileError | None:
    """Return what ``check_file`` would raise, or would if it compared the other checksum too."""
    path = bundle / entry.path
    if (fault := fault_of_place(bundle, entry.path)) is not None:
        return TamperedFileError(path, fault)
    if (size := path.stat().st_size) != entry.size:
        return TamperedFileError(path, f"{size} bytes instead of {entry.size}")
    if entry.blake3 is not None and (digest := blake3_of(path)) != entry.blake3:
        return TamperedFileError(path, f"blake3 {digest[:12]}… instead of {entry.blake3[:12]}…")
    if (all_checksums or entry.blake3 is None) and (digest := sha256_of(path)) != entry.sha256:
        return TamperedFileError(path, f"sha256 {digest[:12]}… instead of {entry.sha256[:12]}…")
    return None


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a plain file."""
    return _hex_digest(path, hashlib.sha256())


def blake3_of(path: Path) -> str:
    """Return the lower-case hex BLAKE3 digest of a plain file (github.com/BLAKE3-team/BLAKE3-specs, 256 bits)."""
    return _hex_digest(path, blake3())


def _hex_digest(path: Path, digest: hashlib._Hash | blake3) -> str:
    """Return a digest in hex of a plain file, read in chunks.

    They go to the beginning of a page: to 16 bytes behind it, where the C library would put them, Zen 3 copies in four
    times the time.
    """
    with (
        os.fdopen(open_plain(path), "rb", buffering=0) as file,
        mmap.mmap(-1, _CHUNK_BYTES) as buffer,
        memoryview(buffer) as view,
    ):
        while count := file.readinto(view):
            digest.update(view[:count])
    return digest.hexdigest()
