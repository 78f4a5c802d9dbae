"""Folders as other exporters write them, made of a standard bundle: its graphs under their names, axes and types.

The layouts are those of optimum-onnx 0.1 (``UNetOnnxConfig`` and its neighbours), of diffusers 0.35's script
``convert_stable_diffusion_checkpoint_to_onnx.py``, and of optimum-intel 2.2. ``make interop`` adopts folders that these
tools wrote themselves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import openvino
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
_AXES = {
    ("text_encoder", "input_ids"): {0: "batch_size", 1: "sequence_length"},
    ("unet", "sample"): {0: "batch_size", 2: "height", 3: "width"},
    ("unet", "encoder_hidden_states"): {0: "batch_size", 1: "sequence_length"},
    ("vae_decoder", "latent_sample"): {0: "batch_size", 2: "latent_height", 3: "latent_width"},
    ("vae_encoder", "sample"): {0: "batch_size", 2: "sample_height", 3: "sample_width"},
}


def optimum(bundle: Path, folder: Path, *, half: bool = False) -> Path:
    """Write what optimum-onnx writes: a scalar timestep, ``model.onnx_data``, a pooled output, and all configs."""
    _small_files(bundle, folder, "StableDiffusionPipeline")
    for part in PARTS:
        model = onnx.load(bundle / part / "model.onnx")
        if half:
            model = convert_float_to_float16(model, disable_shape_infer=True)
        if part == "text_encoder":
            _add_pooled(model)
        for value in model.graph.input:
            _free(value, _AXES.get((part, value.name), {}))
        for value in model.graph.output:
            _free(value, {0: "batch_size"})
        _save(model, folder / part, "model.onnx_data")
        shutil.copy(bundle / part / "config.json", folder / part)
    return folder


def diffusers_script(bundle: Path, folder: Path) -> Path:
    """Write what the script writes: no configs, float timesteps, int32 ids, and an encoder that draws its own noise."""
    _small_files(bundle, folder, "OnnxStableDiffusionPipeline")
    edits: dict[str, Callable[[onnx.ModelProto], None]] = {
        "text_encoder": lambda model: _retype(model, "input_ids", TensorProto.INT32),
        "unet": lambda model: _retype(model, "timestep", TensorProto.FLOAT),
        "vae_encoder": _draw_noise,
    }
    for part in PARTS:
        model = onnx.load(bundle / part / "model.onnx")
        edits.get(part, lambda _: None)(model)
        for value in model.graph.input:
            count = len(value.type.tensor_type.shape.dim)
            _free(
                value,
                dict(
                    enumerate(
                        ("batch", "channels", "height", "width")[:count]
                        if count == 4
                        else ("batch", "sequence")[:count]
                    )
                ),
            )
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        _save(model, folder / part, "weights.pb" if part == "unet" else None)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {part: ["diffusers", "OnnxRuntimeModel"] for part in PARTS}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def optimum_intel(bundle: Path, folder: Path, *, half: bool) -> Path:
    """Write what optimum-intel writes: free batch and prompt, weights in half precision if asked."""
    _small_files(bundle, folder, "OVStableDiffusionPipeline")
    for part in PARTS:
        model = openvino.Core().read_model(bundle / part / "openvino_model.xml")
        (folder / part).mkdir()
        openvino.save_model(model, folder / part / "openvino_model.xml", compress_to_fp16=half)
        shutil.copy(bundle / part / "config.json", folder / part)
    return folder


def _small_files(bundle: Path, folder: Path, pipeline: str) -> None:
    """Write index, scheduler and the tokenizer's old files."""
    folder.mkdir()
    index = json.loads((bundle / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))
    shutil.copytree(bundle / "scheduler", folder / "scheduler")
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(bundle / "tokenizer" / name, folder / "tokenizer")


def _save(model: onnx.ModelProto, folder: Path, weights: str | None) -> None:
    folder.mkdir()
    model.graph.ClearField("value_info")
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=weights is not None, location=weights, size_threshold=0
    )


def _free(value: onnx.ValueInfoProto, axes: dict[int, str]) -> None:
    """Name dimensions, as ``dynamic_axes`` does."""
    for axis, name in axes.items():
        value.type.tensor_type.shape.dim[axis].dim_param = name


def _add_pooled(model: onnx.ModelProto) -> None:
    """Add an output of the text encoder that pictures do not need."""
    (hidden,) = model.graph.output
    kind = hidden.type.tensor_type.elem_type
    model.graph.node.append(helper.make_node("ReduceMean", [hidden.name], ["pooler_output"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("pooler_output", kind, ["batch_size"]))


def _retype(model: onnx.ModelProto, name: str, kind: int) -> None:
    """Give an input another type; a scalar also becomes a row for each sample."""
    (value,) = (value for value in model.graph.input if value.name == name)
    inner = f"{name}.int64"
    for node in model.graph.node:
        node.input[:] = [inner if used == name else used for used in node.input]
    value.type.tensor_type.elem_type = kind
    cast = [helper.make_node("Cast", [name], [inner], to=TensorProto.INT64)]
    if not value.type.tensor_type.shape.dim:
        value.type.tensor_type.shape.dim.add()
        cast[0].output[0] = f"{name}.rows"
        cast.append(helper.make_node("Squeeze", [f"{name}.rows"], [inner]))
    for index, node in enumerate(cast):
        model.graph.node.insert(index, node)


def _draw_noise(model: onnx.ModelProto) -> None:
    """Have the encoder draw its sample itself, as ``latent_dist.sample()`` is traced."""
    (moments,) = model.graph.output
    name = moments.name
    nodes = [
        helper.make_node("Split", [name], ["mean", "logvar"], axis=1, num_outputs=2),
        helper.make_node("Exp", ["logvar"], ["std"]),
        helper.make_node("RandomNormalLike", ["mean"], ["noise"]),
        helper.make_node("Mul", ["std", "noise"], ["spread"]),
        helper.make_node("Add", ["mean", "spread"], ["latent_sample"]),
    ]
    model.graph.node.extend(nodes)
    moments.name = "latent_sample"
