"""Export a diffusers folder as diffusers' own script did: ``diffusers_onnx_export.py CHECKPOINT FOLDER``.

The calls of ``scripts/convert_stable_diffusion_checkpoint_to_onnx.py`` (diffusers 0.35), which is in no package: names,
dynamic axes, the UNet's weights in ``weights.pb``, a float timestep for each row, and an encoder that draws its own
noise. Runs in the environment "optimum-onnx".
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from diffusers import OnnxRuntimeModel, OnnxStableDiffusionPipeline, StableDiffusionPipeline

_OPSET = 14
_IMAGE = {0: "batch", 1: "channels", 2: "height", 3: "width"}


def _write(module: Any, arguments: Any, path: Path, names: tuple[list[str], list[str]], axes: Any) -> None:  # noqa: ANN401
    """Write one graph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module,
        arguments,
        str(path),
        input_names=names[0],
        output_names=names[1],
        dynamic_axes=axes,
        do_constant_folding=True,
        opset_version=_OPSET,
        dynamo=False,
    )


class _Call(torch.nn.Module):
    """A module that calls a function."""

    def __init__(self, owner: torch.nn.Module, function: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.owner = owner
        self.function = function

    def forward(self, *arguments: torch.Tensor) -> Any:  # noqa: ANN401
        """Return the function's value."""
        return self.function(*arguments)


def main(checkpoint: str, folder: Path) -> None:
    """Write the folder."""
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    tokens, width = pipe.text_encoder.config.max_position_embeddings, pipe.text_encoder.config.hidden_size
    ids = pipe.tokenizer("A sample prompt", padding="max_length", max_length=tokens, return_tensors="pt").input_ids
    text, unet, vae = pipe.text_encoder, pipe.unet, pipe.vae
    size, channels = unet.config.sample_size, unet.config.in_channels
    _write(
        _Call(text, lambda ids: tuple(text(ids, return_dict=False)[:2])),
        (ids.to(torch.int32),),
        folder / "text_encoder/model.onnx",
        (["input_ids"], ["last_hidden_state", "pooler_output"]),
        {"input_ids": {0: "batch", 1: "sequence"}},
    )
    path = folder / "unet/model.onnx"
    _write(
        _Call(unet, lambda *arguments: unet(*arguments, return_dict=False)[0]),
        (torch.randn(2, channels, size, size), torch.randn(2), torch.randn(2, tokens, width)),
        path,
        (["sample", "timestep", "encoder_hidden_states"], ["out_sample"]),
        {"sample": _IMAGE, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}},
    )
    model = onnx.load(str(path))
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights.pb",
        convert_attribute=False,
    )
    _write(
        _Call(vae, lambda sample: vae.encode(sample, return_dict=False)[0].sample()),
        (torch.randn(1, vae.config.in_channels, 8 * size, 8 * size),),
        folder / "vae_encoder/model.onnx",
        (["sample"], ["latent_sample"]),
        {"sample": _IMAGE},
    )
    _write(
        _Call(vae, lambda latents: vae.decode(latents, return_dict=False)[0]),
        (torch.randn(1, vae.config.latent_channels, size, size),),
        folder / "vae_decoder/model.onnx",
        (["latent_sample"], ["sample"]),
        {"latent_sample": _IMAGE},
    )
    parts = {
        name: OnnxRuntimeModel.from_pretrained(folder / name, provider="CPUExecutionProvider", provider_options=None)
        for name in ("vae_encoder", "vae_decoder", "text_encoder", "unet")
    }
    whole = OnnxStableDiffusionPipeline(
        **parts,
        tokenizer=pipe.tokenizer,
        scheduler=pipe.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
