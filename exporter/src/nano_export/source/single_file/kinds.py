"""Recognises safetensors files that are no whole Stable Diffusion 1 or 2, by the names of their tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nano_export.source.single_file.shapes import OPEN_CLIP, TEXT, UNET, VAE, Shapes

__all__ = ["Kind", "kind_of"]

_FOLDER = "Give the whole folder that it is from (with model_index.json), or one file with all networks."
_BAKED = "Give one with --vae FOLDER, or take the file that has it baked in."
_NOT_SUPPORTED = "Supported: Stable Diffusion 1.x and 2.x, their inpainting models and instruct-pix2pix."
_PRUNED = "Take the pruned file that such models also come as, or rename its tensors to model.diffusion_model."
_LORA = "Merge it into the model that it was trained for: nano-export MODEL --lora FILE."
_EMBEDDING = "Add it to the model that it was trained for: nano-export MODEL --embedding FILE."
_ADD_ON = "Nano has no place for it; give the model that it was made for alone."


@dataclass(frozen=True)
class Kind:
    """A file that cannot be exported as a model.

    Attributes:
        name: "a LoRA".
        remedy: what to do with it.
    """

    name: str
    remedy: str


# The first pattern that is found in the name of a tensor tells; parts of names that others have, too, stand last.
_KINDS = tuple(
    (re.compile(pattern), Kind(name, remedy))
    for pattern, name, remedy in (
        (r"^lora_|\.lora[_.]|_lora\.|\.(hada|lokr)_|\.dora_scale$", "a LoRA", _LORA),
        (r"^(emb_params|string_to_param|clip_[lg]$)", "an embedding (textual inversion)", _EMBEDDING),
        (r"^(image_proj|ip_adapter)\.", "an IP adapter", _ADD_ON),
        (r"motion_modules", "an AnimateDiff model", _ADD_ON),
        (r"^control_model\.|controlnet|^zero_convs|input_hint_block", "a ControlNet", _ADD_ON),
        (r"^conditioner\.embedders\.1\.", "Stable Diffusion XL", _NOT_SUPPORTED),
        (r"^conditioner\.embedders\.0\.model\.", "the refiner of Stable Diffusion XL", _NOT_SUPPORTED),
        (r"joint_blocks\.\d", "Stable Diffusion 3", _NOT_SUPPORTED),
        (r"double_blocks\.\d|single_transformer_blocks\.\d", "Flux", _NOT_SUPPORTED),
    )
)
_PARTS = tuple(
    (re.compile(pattern), Kind(name, remedy))
    for pattern, name, remedy in (
        (
            r"^model_ema\.diffusion_model",
            "a model whose UNet is there as its moving average alone (model_ema)",
            _PRUNED,
        ),
        (r"^(input|output)_blocks\.\d", "a UNet alone", _FOLDER),
        (r"^(down|up)_blocks\.\d", "a UNet alone, in diffusers' layout", _FOLDER),
        (
            r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|down|up|mid|layers\.0\.weight)",
            "a VAE alone",
            "A VAE comes with a model: nano-export MODEL --vae FOLDER takes one in diffusers' layout.",
        ),
        (r"^(cond_stage_model\.|text_model\.|transformer\.|text_encoders)", "a text encoder alone", _FOLDER),
    )
)
_XL = {2048: "Stable Diffusion XL", 1280: "the refiner of Stable Diffusion XL"}  # by the width of their prompts
_LARGEST_EMBEDDING = 3  # tensors


def kind_of(shapes: Shapes, *, vae_is_elsewhere: bool) -> Kind | None:
    """Return what a file is, unless it has all the networks of a Stable Diffusion 1 or 2.

    Args:
        shapes: of all its tensors; text encoders with the names that ``single_file`` gives them.
        vae_is_elsewhere: whether the file need not have one.
    """
    if not shapes:
        return Kind("a file without tensors", _FOLDER)
    kind = _found(_KINDS, shapes)
    if kind is not None:
        return kind
    if _has(shapes, UNET):
        return _incomplete(shapes, vae_is_elsewhere=vae_is_elsewhere)
    kind = _found(_PARTS, shapes)
    if kind is not None:
        return kind
    if len(shapes) <= _LARGEST_EMBEDDING and all(len(shape) <= 2 for shape in shapes.values()):  # noqa: PLR2004 - vectors
        return Kind("an embedding (textual inversion)", _EMBEDDING)
    return Kind(f"no Stable Diffusion; one of its {len(shapes)} tensors is {min(shapes)}", _NOT_SUPPORTED)


def _found(kinds: tuple[tuple[re.Pattern[str], Kind], ...], shapes: Shapes) -> Kind | None:
    """Return the first kind that the name of a tensor tells."""
    return next((kind for pattern, kind in kinds if any(map(pattern.search, shapes))), None)


def _incomplete(shapes: Shapes, *, vae_is_elsewhere: bool) -> Kind | None:
    """Return what a file with a UNet lacks, or has beyond Stable Diffusion; None if that is nothing."""
    first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
    prompts = {shape[-1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight") and shape}
    xl = next((_XL[width] for width in prompts if width in _XL), None)
    found = (
        (len(first) != 4, "a model with another network than Stable Diffusion's UNet", _NOT_SUPPORTED),  # noqa: PLR2004
        (xl is not None, xl, _NOT_SUPPORTED),
        (f"{UNET}label_emb.0.0.weight" in shapes, "a model that is told more than a prompt (unCLIP)", _NOT_SUPPORTED),
        (first[1:2] == (5,), "a depth-to-image model (5 input channels)", _NOT_SUPPORTED),
        (not _has(shapes, TEXT, OPEN_CLIP), "a model without its text encoder", _FOLDER),
        (not vae_is_elsewhere and not _has(shapes, VAE), "a model without its VAE", _BAKED),
    )
    return next((Kind(str(name), remedy) for is_so, name, remedy in found if is_so), None)


def _has(shapes: Shapes, *prefixes: str) -> bool:
    """Return whether a file has tensors of a network."""
    return any(key.startswith(prefixes) for key in shapes)
