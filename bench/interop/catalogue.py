"""Who opens our bundles, and whose folders we adopt, as data."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peers.catalogue import Peer

__all__ = ["FOLDERS", "READERS", "Folder", "Reader"]


@dataclass(frozen=True)
class Reader:
    """A library that opens our standard bundles.

    Attributes:
        distribution: whose version is stated.
        call: how a program opens the bundle.
        peer: how ``bench.peers`` draws with it.
        cuts: whether it turns colours into bytes by cutting, where others round to the nearest.
        ignores: parts of the bundle that it leaves unused, for the table.
    """

    distribution: str
    call: str
    peer: Peer
    ignores: str
    cuts: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder that another tool wrote, and that ``nano-export --adopt`` makes a bundle of.

    Attributes:
        name: of the folder.
        title: for the table.
        builder: the file in ``bench/peers/builders`` that writes it; run with source, folder and ``arguments``.
        environment: that the builder runs in.
        source: another folder's name; None for the demo checkpoint.
        arguments: more words for the builder.
        peer: the tool's own pipeline.
        engine: of ours that draws the bundle.
    """

    name: str
    title: str
    builder: str
    environment: str
    peer: Peer
    engine: str
    source: str | None = None
    arguments: tuple[str, ...] = ()


_F32 = {"precision": "f32"}
_ORT = Peer("optimum-onnx", "optimum-onnx", "optimum_onnx", "optimum-onnx", "bundle")
_INTEL = Peer("optimum-intel", "optimum-intel", "optimum_intel", "optimum", "bundle", _F32)
_GENAI = Peer("openvino-genai", "openvino-genai", "genai", "genai", "bundle", _F32)
_DIFFUSERS = Peer("diffusers-onnx", "diffusers", "diffusers_onnx", "optimum-onnx", "bundle")
_OURS = "manifest (samplers, defaults, checksums), `vae_encoder` for pictures from prompts"

READERS = (
    Reader(
        "optimum-onnx", "`ORTStableDiffusionPipeline.from_pretrained`", _ORT, f"OpenVINO graphs and tokenizers, {_OURS}"
    ),
    Reader("optimum-intel", "`OVStableDiffusionPipeline.from_pretrained`", _INTEL, f"ONNX graphs, {_OURS}"),
    Reader(
        "openvino-genai",
        "`Text2ImagePipeline`",
        _GENAI,
        f"ONNX graphs, `tokenizer.json`, {_OURS}; its seeds draw other noise",
        cuts=True,
    ),
)

FOLDERS = (
    Folder("optimum-onnx", "optimum-onnx, ONNX fp32", "optimum_onnx_export", "optimum-onnx", _ORT, "onnxruntime"),
    Folder(
        "diffusers-onnx",
        "diffusers' script, ONNX fp32",
        "diffusers_onnx_export",
        "optimum-onnx",
        _DIFFUSERS,
        "onnxruntime",
    ),
    Folder("ov-fp32", "optimum-intel, fp32", "openvino_export", "optimum", _INTEL, "openvino", arguments=("fp32",)),
    Folder("ov-fp16", "optimum-intel, fp16", "openvino_export", "optimum", _INTEL, "openvino", arguments=("fp16",)),
    Folder(
        "ov-int8",
        "optimum-intel, INT8 weights",
        "openvino_quantize",
        "optimum",
        _INTEL,
        "openvino",
        "ov-fp32",
        ("int8",),
    ),
    Folder(
        "ov-hybrid",
        "optimum-intel, hybrid INT8",
        "openvino_quantize",
        "optimum",
        _INTEL,
        "openvino",
        "ov-fp32",
        ("hybrid",),
    ),
)
