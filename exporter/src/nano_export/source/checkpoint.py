"""Opens a Stable Diffusion checkpoint: a diffusers folder, a Hub id or a built-in name, checked before it is loaded.

Everything about the architecture is taken from the checkpoint's own configs. Only safetensors are read: a pickle can
run code. From the Hub exactly the needed files are fetched, at a revision that is resolved to a commit first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError, PickleOnlyError, UnsupportedModelError
from nano_export.source import builtin
from nano_export.source.licences import LicenceText, licence_of
from nano_runtime.bundle.manifest import Source
from nano_runtime.errors import NetworkError, OutputError
from nano_runtime.errors.escaping import first_line

__all__ = ["NANO", "Checkpoint", "open_checkpoint"]

NANO = "bguisard/stable-diffusion-nano-2-1"

_WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
_PICKLES = (".bin", ".ckpt")
_SMALL_FILES = [
    "model_index.json",
    "README.md",
    "LICENSE*",
    "scheduler/scheduler_config.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    *(f"{folder}/config.json" for folder in _WEIGHTS),
]
# Whole features of diffusers' UNet that Stable Diffusion 1 and 2 do not use, with the value that means "not used".
_UNUSED_UNET_FEATURES: dict[str, Any] = {
    "addition_embed_type": None,
    "class_embed_type": None,
    "encoder_hid_dim": None,
    "time_cond_proj_dim": None,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded Stable Diffusion: fp32 modules in eval mode, and what has to travel with them.

    ``scheduler`` is the scheduler config as in the checkpoint, with its ``_class_name``.
    """

    name: str
    source: Source
    licence: LicenceText
    card: str | None
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: dict[str, Any]


def open_checkpoint(model: str, revision: str | None) -> Checkpoint:
    """Find, check and load a model.

    Args:
        model: a built-in name, the path of a diffusers folder, or a Hub id, tried in this order.
        revision: branch, tag or commit on the Hub; None takes the default branch.

    Raises:
        CheckpointError: nothing of that name exists, files are missing or damaged, or a revision is asked of a model
            that is not on the Hub.
        PickleOnlyError: the weights are not safetensors.
        UnsupportedModelError: it is not a Stable Diffusion 1 or 2.
        NetworkError: the Hub could not be reached or refused.
    """
    folder = Path(model).expanduser()
    if revision is not None and (model in builtin.NAMES or folder.is_dir()):
        raise CheckpointError(model, f"it is not on the Hub, so it has no revision {revision!r}")
    if model == "demo":
        return _load(builtin.DEMO, Source(model=model, revision=None))
    if model in builtin.NAMES:
        parts = builtin.build(model)
        return Checkpoint(
            name=model,
            source=Source(model=model, revision=None),
            licence=licence_of(None, None, model),
            card=None,
            tokenizer=parts.tokenizer,
            text_encoder=parts.text_encoder.eval(),
            unet=parts.unet.eval(),
            vae=parts.vae.eval(),
            scheduler=parts.scheduler,
        )
    if folder.is_dir():
        source = Source(model=folder.resolve().name, revision=None)
    else:
        folder, source = _from_hub(model, revision)
    return _load(folder, source)


def _from_hub(model: str, revision: str | None) -> tuple[Path, Source]:
    """Fetch the needed files of a Hub repository at one commit."""
    try:
        info = HfApi().model_info(model, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or []]
        wanted = [name for folder in _WEIGHTS for name in names if _is_weight(folder, name)]
        if missing := [folder for folder in _WEIGHTS if not any(name.startswith(f"{folder}/") for name in wanted)]:
            if any(name.startswith(f"{missing[0]}/") and name.endswith(_PICKLES) for name in names):
                raise PickleOnlyError(f"{model}/{missing[0]}")
            raise CheckpointError(model, f"it has no {missing[0]}/{_WEIGHTS[missing[0]]}")
        path = snapshot_download(model, revision=info.sha, allow_patterns=_SMALL_FILES + wanted)
    except HFValidationError as error:
        raise CheckpointError(
            model, "there is no such folder, and it cannot be the name of a model on the Hub"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(model, f"the Hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(model, "there is no such folder, and no such public model on the Hub") from error
    except (httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise OutputError(Path(error.filename), error.strerror or type(error).__name__) from error  # a full disk
        raise NetworkError(
            f"{model} could not be fetched from the Hub: {first_line(error)}",
            "Check the connection and try again; what was fetched is kept. A local folder needs no network.",
        ) from error
    return Path(path), Source(model=model, revision=info.sha)


def _is_weight(folder: str, name: str) -> bool:
    """Whether a repository file is the plain fp32 safetensors weight of a component, or a shard or index of it."""
    stem = _WEIGHTS[folder].removesuffix(".safetensors")
    rest = name.removeprefix(f"{folder}/{stem}")
    return rest in (".safetensors", ".safetensors.index.json") or (
        rest.startswith("-0") and rest.endswith(".safetensors")
    )


def _load(folder: Path, source: Source) -> Checkpoint:
    """Check a diffusers folder and load it in fp32."""
    scheduler = _check_architecture(folder)
    for component, name in _WEIGHTS.items():
        _check_weights(folder / component, name)
    readme = folder / "README.md"
    card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
    return Checkpoint(
        name=source.model.rpartition("/")[2],
        source=source,
        licence=licence_of(folder, card, source.model),
        card=card,
        tokenizer=_tokenizer(folder / "tokenizer"),
        text_encoder=_module(CLIPTextModel, folder / "text_encoder"),
        unet=_module(UNet2DConditionModel, folder / "unet"),
        vae=_module(AutoencoderKL, folder / "vae"),
        scheduler=scheduler,
    )


def _module(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - diffusers' and transformers' classes have no common base
    """Load one network in fp32, and make sure that every tensor of it came from the checkpoint.

    The libraries only log a tensor that is missing, and go on with a random one.
    """
    try:
        module, report = kind.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # the other way needs accelerate
            ignore_mismatched_sizes=True,  # they are reported, and told below
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(folder, first_line(error)) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(folder, f"{len(missing)} of its tensors are missing, {missing[0]} for one")
    if wrong := sorted(key for key, *_ in report["mismatched_keys"]):
        raise CheckpointError(
            folder, f"{len(wrong)} of its tensors do not have the shape in config.json, {wrong[0]} for one"
        )
    return module.eval()


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer."""
    for name in () if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise CheckpointError(folder / name, "it is missing")
    for path in sorted(folder.glob("*.json")):
        _json(path)
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library behind it raises bare ones
        raise CheckpointError(folder, first_line(error)) from error


def _check_architecture(folder: Path) -> dict[str, Any]:
    """Refuse what is not a Stable Diffusion 1 or 2, before gigabytes are read; give the scheduler's config."""
    index = _json(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline != "StableDiffusionPipeline":
        raise UnsupportedModelError(folder, f"the pipeline class {pipeline}", ["StableDiffusionPipeline (1.x, 2.x)"])
    if not (folder / "tokenizer").is_dir():
        raise CheckpointError(folder, "the folder tokenizer/ is missing")
    for component in _WEIGHTS:
        if not (folder / component).is_dir():
            raise CheckpointError(folder, f"the folder {component}/ is missing")
    configs = {component: _json(folder / component / "config.json") for component in _WEIGHTS}
    for feature, unused in _UNUSED_UNET_FEATURES.items():
        if (value := configs["unet"].get(feature, unused)) not in (unused, None):
            raise UnsupportedModelError(folder / "unet", f"{feature}={value!r}", ["UNets of Stable Diffusion 1 and 2"])
    return _json(folder / "scheduler" / "scheduler_config.json")


def _check_weights(folder: Path, name: str) -> None:
    """Check that a component's safetensors exist and are whole; nothing is loaded."""
    files = sorted(folder.glob(f"{name.removesuffix('.safetensors')}*.safetensors"))
    files = [file for file in files if ".fp16." not in file.name and ".non_ema." not in file.name]
    if not files:
        if any(path.name.endswith(_PICKLES) for path in folder.iterdir()):
            raise PickleOnlyError(folder)
        raise CheckpointError(folder, f"{name} is missing")
    for file in files:
        _check_whole(file)


def _check_whole(file: Path) -> None:
    """Check that a safetensors file is as long as its header says."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(file, f"it is damaged or cut short ({error})") from error


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(path, "it is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(path, str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "it is not a JSON object")
    return content
