"""What people know from diffusers and other programs and Nano has not: for each name, a sentence that says what to do.

Nothing here does anything but say so. A name that is not listed is an error as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nano_runtime.errors.branches import UsageError
from nano_runtime.errors.usage import UnknownOptionError

__all__ = ["FLAGS", "IN_CALLS", "HabitError", "Habits", "refuse_keywords"]

_PROCESSOR: Final = "Leave it out: Nano always draws on the processor."
_HERE: Final = f"{_PROCESSOR} backend= and threads= of Pipeline.from_pretrained choose engine and cores."
_PRECISION: Final = "Leave it out: a bundle has the precision that it was exported with, as in nano-export --int8."
_CHECKER: Final = "Leave it out: there is no safety checker."
_FILES: Final = "Leave it out: all is in the bundle's folder, and nothing is fetched."
_EXPORT: Final = "nano-export chooses it, from the checkpoint: give Pipeline.from_pretrained the bundle that it writes."
_MEMORY: Final = "Leave it out: low_memory=True of Pipeline.from_pretrained draws with less memory."
_SAMPLER: Final = 'Name a sampler in the call, as in scheduler="euler_a"; sampler_names() lists them.'
_LORA: Final = "Merge it when the checkpoint is exported: nano-export CHECKPOINT --lora FILE:SCALE."
_EMBEDDING: Final = "Add it when the checkpoint is exported: nano-export CHECKPOINT --embedding FILE."
_NETWORK: Final = "There is no torch module: the networks are graphs of an engine, which nano-export wrote."
_ALWAYS: Final = "Leave it out: it is always so."
_OTHER: Final = "Leave it out: there is no such thing here."

_OF_PIPELINES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("to", "cuda", "cpu", "device", "hf_device_map", "_execution_device", "reset_device_map"), _HERE),
    **dict.fromkeys(("half", "float", "dtype", "enable_layerwise_casting"), _PRECISION),
    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), _CHECKER),
    **dict.fromkeys(
        (
            *(
                f"{do}_{what}"
                for do in ("enable", "disable")
                for what in ("attention_slicing", "vae_slicing", "vae_tiling")
            ),
            *("enable_model_cpu_offload", "enable_sequential_cpu_offload", "maybe_free_model_hooks"),
            *("enable_xformers_memory_efficient_attention", "disable_xformers_memory_efficient_attention"),
        ),
        _MEMORY,
    ),
    **dict.fromkeys(("unet", "vae", "text_encoder", "components", "compile", "fuse_qkv_projections"), _NETWORK),
    **dict.fromkeys(
        ("load_lora_weights", "fuse_lora", "unfuse_lora", "unload_lora_weights", "set_adapters", "load_ip_adapter"),
        _LORA,
    ),
    **dict.fromkeys(("load_textual_inversion", "unload_textual_inversion"), _EMBEDDING),
    **dict.fromkeys(("enable_freeu", "disable_freeu", "set_ip_adapter_scale"), _OTHER),
    **dict.fromkeys(
        ("from_single_file", "from_pipe", "download"),
        "Export the checkpoint once, nano-export FILE -o DIR, then open it: Pipeline.from_pretrained(DIR).",
    ),
    "scheduler": _SAMPLER,
    "tokenizer": "Call pipe.tokenize(prompt) for the tokens of a prompt.",
    "config": "Read pipe.bundle.manifest instead.",
    "save_pretrained": "Copy the bundle's folder, pipe.bundle.path.",
    "set_progress_bar_config": "Leave it out: there is no bar. pipe.stream(...) yields an event after every UNet call.",
    "progress_bar": "Take pipe.stream(...): it yields an event after every UNet call.",
    "encode_prompt": "Give the call the prompt itself: encoded prompts are remembered.",
    "guidance_scale": "Give it to the call: pipe(prompt, guidance_scale=2).",
    "image_processor": "Take output_type= of the call, or Pillow.",
    "numpy_to_pil": 'Leave it out: images are Pillow\'s already, unless output_type="np" is asked for.',
}

_WHEN_OPENED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("torch_dtype", "dtype", "load_in_8bit", "quantization_config", "variant"), _PRECISION),
    **dict.fromkeys(("safety_checker", "requires_safety_checker", "feature_extractor", "image_encoder"), _CHECKER),
    **dict.fromkeys(("use_safetensors", "use_onnx", "low_cpu_mem_usage", "export", "compile"), _ALWAYS),
    **dict.fromkeys(("device_map", "device", "provider", "providers", "max_memory"), _HERE),
    **dict.fromkeys(
        ("revision", "subfolder", "token", "use_auth_token", "local_files_only", "force_download", "proxies", "mirror"),
        _FILES,
    ),
    **dict.fromkeys(("vae", "unet", "text_encoder", "tokenizer"), _EXPORT),
    **dict.fromkeys(("offload_folder", "offload_state_dict"), _MEMORY),
    "scheduler": _SAMPLER,
    "custom_pipeline": _OTHER,
    "cache_dir": "Leave it out, or give cache=: a folder for compiled graphs and encoded prompts.",
    "pretrained_model_name_or_path": "Give the bundle's folder as bundle=, or first.",
}

IN_CALLS: Final[Mapping[str, str]] = {
    "generator": 'Give seed=7 for torch.Generator("cpu").manual_seed(7): it is the same noise. A list is seed=[7, 8].',
    "eta": 'Name the sampler: scheduler="ddim" is DDIM with eta 0, "ddim_a" with eta 1.',
    "clip_skip": "Leave it out: bundles have the text encoder's last layer only.",
    "callback": "Take callback_on_step_end, or pipe.stream(...), which yields an event after every UNet call.",
    "callback_steps": "Take pipe.stream(...), and pass over the events that you do not need.",
    "callback_on_step_end_tensor_inputs": "Leave it out: the callback always gets the latents.",
    "return_dict": "Leave it out: a call returns one record, whose pictures are .images.",
    "original_size": _OTHER,
    "guidance_rescale": _OTHER,
    **dict.fromkeys(("timesteps", "sigmas"), 'Name a sampler with that spacing, as in scheduler="euler_karras".'),
    **dict.fromkeys(
        ("prompt_embeds", "negative_prompt_embeds"), "Give the prompt itself: encoded prompts are remembered."
    ),
    **dict.fromkeys(
        ("ip_adapter_image", "ip_adapter_image_embeds", "control_image", "controlnet_conditioning_scale"), _OTHER
    ),
    **dict.fromkeys(("cross_attention_kwargs", "joint_attention_kwargs"), _LORA),
    "padding_mask_crop": _OTHER,
    "masked_image_latents": "Give image and mask_image: they are encoded here.",
}
"""Keywords of a call."""

FLAGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("--device", "--cuda", "--gpu", "--gpus", "--cpu", "--use-cpu", "--no-cuda"),
        f"{_PROCESSOR} --backend chooses the engine.",
    ),
    **dict.fromkeys(("--fp16", "--half", "--no-half", "--float16", "--bf16", "--dtype", "--torch-dtype"), _PRECISION),
    **dict.fromkeys(("--safety-checker", "--no-safety-checker", "--disable-safety-checker", "--nsfw"), _CHECKER),
    **dict.fromkeys(
        ("--medvram", "--lowvram", "--xformers", "--attention-slicing", "--vae-tiling", "--vae-on-cpu"),
        "Leave it out: nano-generate --low-memory draws with less memory.",
    ),
    **dict.fromkeys(("--lora", "--lora-model-dir"), _LORA),
    **dict.fromkeys(("--embedding", "--embeddings", "--embd-dir"), _EMBEDDING),
    **dict.fromkeys(
        ("--ckpt", "--checkpoint", "--vae"), "Export it once, nano-export CHECKPOINT -o DIR, then give --bundle DIR."
    ),
    **dict.fromkeys(("--clip-skip", "--hires-fix", "--upscale", "--tiling", "--control-image"), _OTHER),
    **dict.fromkeys(("--batch-size", "-b"), "Give --count: up to four pictures share a call by themselves."),
}
"""Options of other commands."""


class HabitError(UsageError, AttributeError):
    """Something that other pipelines have, and that is not needed, or elsewhere, here."""

    def __init__(self, name: str) -> None:
        hint = _OF_PIPELINES.get(name, "help(nano_runtime.Pipeline) shows what it has.")
        super().__init__(f"a Pipeline of nano_runtime has no .{name}", hint)


class _Class(type):
    """The class of classes whose missing names may be habits."""

    if not TYPE_CHECKING:  # to a type checker the names stay what they are: missing

        def __getattr__(cls, name: str) -> NoReturn:
            raise _missing(cls, cls.__name__, name)


class Habits(metaclass=_Class):
    """Base of ``Pipeline``: names of diffusers' pipelines are errors that say what to do here."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise _missing(self, type(self).__name__, name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any
        """Refuse what would be taken for a setting: ``pipe.scheduler = ...`` would change no picture.

        Raises:
            HabitError: it is one. ``pipe.safety_checker = None`` is true, and taken.
        """
        if name in _OF_PIPELINES and value is not None:
            raise HabitError(name)
        super().__setattr__(name, value)


def _missing(where: object, owner: str, name: str) -> AttributeError:
    """Return the error of a name that is not there."""
    if name in _OF_PIPELINES:
        return HabitError(name)
    return AttributeError(f"{owner!r} object has no attribute {name!r}", name=name, obj=where)


def refuse_keywords(unknown: Iterable[str], known: Iterable[str]) -> None:
    """Refuse keywords that ``Pipeline.from_pretrained`` has not.

    Raises:
        UnknownOptionError: there is one.
    """
    for name in unknown:
        hint = _WHEN_OPENED.get(name)
        nearest = None if hint is not None else next(iter(get_close_matches(name, known, 1)), None)
        raise UnknownOptionError(name, nearest, hint or "help(Pipeline.from_pretrained) shows all of them.")
