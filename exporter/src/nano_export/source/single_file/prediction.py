"""Finds out what a single file's network predicts: noise or velocity. Its weights alone do not tell.

Sources are the option ``--prediction-type``, A1111's FILE.yaml beside the file, the metadata in its header
(https://github.com/Stability-AI/ModelSpec), and tensors that trainers put in as marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_export.errors import SingleFileError
from nano_export.options import PredictionType
from nano_export.source.readable import require_text
from nano_export.source.single_file.shapes import Shapes
from nano_export.source.yaml_text import parsed_yaml
from nano_runtime.errors.escaping import first_line

__all__ = ["Hints", "hints_of"]

_NAMES: dict[str, PredictionType] = {
    "eps": "epsilon",
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}
_ARCHITECTURES: dict[str, PredictionType] = {
    "stable-diffusion-v2-512": "epsilon",
    "stable-diffusion-v2-768-v": "v_prediction",
}
_RESOLUTION = re.compile(r"(\d{2,4})x\1")
_CHOOSE = "Say --prediction-type epsilon or --prediction-type v_prediction; the page that the file is from has it."


@dataclass(frozen=True)
class Hints:
    """Facts about a file that are not in the shapes of its tensors.

    Attributes:
        prediction: of the network.
        size: width and height of its pictures, in pixels; None if nothing names it.
        schedule: keys of diffusers' scheduler config that A1111's yaml names.
        unet: keys of diffusers' UNet config that the yaml names.
        vae: keys of diffusers' VAE config that the yaml names.
        zero_snr: whether it was trained with a schedule that ends in pure noise.
    """

    prediction: PredictionType
    size: int | None
    schedule: dict[str, Any]
    unet: dict[str, Any]
    vae: dict[str, Any]
    zero_snr: bool


def hints_of(  # noqa: PLR0917 - six sources
    file: Path,
    metadata: Mapping[str, str],
    shapes: Shapes,
    asked: PredictionType | None,
    usual: PredictionType | None,
    config: PredictionType | None,
) -> Hints:
    """Collect what is known about a file.

    Args:
        file: with or without a FILE.yaml beside it.
        metadata: in its header.
        shapes: of its tensors.
        asked: by the user; decides.
        usual: prediction of such models where nothing says otherwise; None if both are common.
        config: prediction in the scheduler config that came with the file; None without one.

    Raises:
        SingleFileError: the yaml is damaged, or the prediction is not known, or two sources contradict each other.
    """
    parameters = _yaml_parameters(file.with_suffix(".yaml"))
    found: dict[str, PredictionType] = {} if config is None else {"scheduler_config.json": config}
    if parameters is not None:
        name = str(parameters.get("parameterization", "eps"))
        if name not in _NAMES:
            raise SingleFileError(file.with_suffix(".yaml"), f"its parameterization is {name}, not eps or v", _CHOOSE)
        found[f"{file.stem}.yaml"] = _NAMES[name]
    stated = metadata.get("modelspec.prediction_type", "").lower()
    architecture = metadata.get("modelspec.architecture", "").lower().partition("/")[0]
    if stated in _NAMES:
        found["modelspec.prediction_type"] = _NAMES[stated]
    if architecture in _ARCHITECTURES:
        found["modelspec.architecture"] = _ARCHITECTURES[architecture]
    if "v_pred" in shapes:
        found["the tensor v_pred"] = "v_prediction"
    resolution = _RESOLUTION.fullmatch(metadata.get("modelspec.resolution", ""))
    parameters = {} if parameters is None else parameters
    return Hints(
        prediction=_decided(file, found, asked, usual),
        size=None if resolution is None else int(resolution[1]),
        schedule=_schedule(parameters),
        unet=_heads(parameters),
        vae={} if (factor := _number(parameters, "scale_factor")) is None else {"scaling_factor": factor},
        zero_snr="ztsnr" in shapes,
    )


def _decided(
    file: Path, found: Mapping[str, PredictionType], asked: PredictionType | None, usual: PredictionType | None
) -> PredictionType:
    """Return the prediction; all sources have to agree, unless the user decides."""
    if asked is not None:
        return asked
    if len(set(found.values())) > 1:
        said = ", ".join(f"{source} says {prediction}" for source, prediction in found.items())
        raise SingleFileError(file, f"it is not clear what its network predicts: {said}", _CHOOSE)
    if found:
        return next(iter(found.values()))
    if usual is not None:
        return usual
    raise SingleFileError(
        file,
        "nothing says whether its network predicts noise (epsilon: Stable Diffusion 2 for 512 pixels) or velocity "
        "(v_prediction: for 768 pixels)",
        _CHOOSE,
    )


def _yaml_parameters(path: Path) -> dict[str, Any] | None:
    """Return ``model.params`` of A1111's yaml; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        require_text(path)
        parameters = dict(parsed_yaml(path.read_text(encoding="utf-8"))["model"]["params"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SingleFileError(
            path, f"it is no config of a Stable Diffusion ({first_line(error)})", "Mend it, or move it away."
        ) from error
    return parameters


def _schedule(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the noise schedule that a yaml names, in diffusers' words."""
    names = {"linear_start": "beta_start", "linear_end": "beta_end"}
    schedule: dict[str, Any] = {
        ours: value for theirs, ours in names.items() if (value := _number(parameters, theirs)) is not None
    }
    steps = _number(parameters, "timesteps")
    return schedule if steps is None else {**schedule, "num_train_timesteps": int(steps)}


def _heads(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attention heads that a yaml names: their number, or the channels of each."""
    unet = parameters.get("unet_config")
    inner = unet.get("params") if isinstance(unet, dict) else None
    if not isinstance(inner, dict):
        return {}
    channels, heads = inner.get("num_head_channels"), inner.get("num_heads")
    width, factors = inner.get("model_channels"), inner.get("channel_mult")
    if isinstance(heads, int) and heads > 0:
        return {"attention_head_dim": heads}
    if not (isinstance(channels, int) and channels > 0 and isinstance(width, int) and isinstance(factors, list)):
        return {}
    return {"attention_head_dim": [width * factor // channels for factor in factors if isinstance(factor, int)]}


def _number(parameters: Mapping[str, Any], key: str) -> float | None:
    """Return a positive number, also from text, as YAML reads 1e-4; None for everything else."""
    try:
        value = float(parameters[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None
