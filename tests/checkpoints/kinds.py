"""The kinds of checkpoints that people have: what is changed in each, and what is expected of its export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.checkpoints import made
from tests.checkpoints.given import Given, plain
from tests.checkpoints.outcome import Outcome
from tests.checkpoints.recipes import BETAS, PNDM, Drawing, Recipe

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        recipe: of its checkpoint.
        options: of its export.
        make: writes it, where it is more than a recipe.
        form: of the UNet that is expected.
        result: that is expected, of ``Outcome.result``.
        words: that the refusal must have, or the exporter's line where another sampler stands in.
    """

    recipe: Recipe = field(default_factory=Recipe)
    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., Given] = plain
    form: str = "hoisted"
    result: str = "drawn"
    words: tuple[str, ...] = ()

    def given(self, folder: Path) -> Given:
        """Write the checkpoint into a new folder."""
        return self.make(self.recipe, folder, **self.options)

    def fault(self, outcome: Outcome) -> str | None:
        """Return what is not as expected; None if all is."""
        if outcome.result != self.result:
            return f"{outcome.result}, not {self.result}: {outcome.message}"
        if self.result == "drawn" and self.form not in {outcome.form, "any"}:
            return f"{outcome.form}, not {self.form}"
        said = [outcome.message] if self.result == "refused" else outcome.said
        missing = [word for word in self.words if not any(word in line for line in said)]
        return f"{missing} is not said: {said}" if missing else None


def _scheduler(name: str, **keys: Any) -> Kind:
    return Kind(recipe=Recipe(scheduler={"_class_name": name, "_diffusers_version": "0.30.0", **BETAS, **keys}))


def _substituted(name: str) -> Kind:
    return replace(_scheduler(name), result="substituted", words=(name,))


def _unet(form: str = "hoisted", **keys: Any) -> Kind:
    return Kind(recipe=Recipe(unet=keys), form=form)


def _vae(**keys: Any) -> Kind:
    return Kind(recipe=Recipe(vae=keys, drawing=Drawing(from_picture=True)))


def _text(**keys: Any) -> Kind:
    return Kind(recipe=Recipe(text=keys))


def _files(**recipe: Any) -> Kind:
    return Kind(recipe=Recipe(**recipe))


def _index(**keys: Any) -> Kind:
    return Kind(recipe=Recipe(index=keys))


def _refused(damage: Callable[[Path], None], *words: str) -> Kind:
    return Kind(make=made.broken(damage), result="refused", words=words)


_V = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
_SD2_TEXT = {"hidden_act": "gelu", "num_hidden_layers": 3, "pad_token_id": 0}
_LEVELS4 = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}

SCHEDULERS: dict[str, Kind] = {
    "PNDM, as Stable Diffusion 1.5": Kind(),
    "PNDM with steps_offset 0": Kind(recipe=Recipe(scheduler={**PNDM, "steps_offset": 0})),
    "PNDM without skip_prk_steps": Kind(recipe=Recipe(scheduler={**PNDM, "skip_prk_steps": False})),
    "PNDM, v-prediction": Kind(recipe=Recipe(scheduler={**PNDM, "prediction_type": "v_prediction"})),
    "PNDM, other betas": Kind(recipe=Recipe(scheduler={**PNDM, "beta_schedule": "squaredcos_cap_v2"})),
    "DDIM with its own defaults": _scheduler("DDIMScheduler"),
    "DDIM, steps_offset 0 and clip_sample": _scheduler("DDIMScheduler", steps_offset=0, clip_sample=True),
    "DDIM, zero terminal SNR": _scheduler("DDIMScheduler", clip_sample=False, steps_offset=1, **_V),
    "DDIM predicting the sample": _scheduler("DDIMScheduler", clip_sample=False, prediction_type="sample"),
    "DDIM with thresholding": _scheduler("DDIMScheduler", clip_sample=False, thresholding=True),
    "DDPM": _scheduler("DDPMScheduler", clip_sample=False, variance_type="fixed_large"),
    "Euler": _scheduler("EulerDiscreteScheduler", steps_offset=1, timestep_spacing="leading"),
    "Euler, continuous timesteps": _scheduler(
        "EulerDiscreteScheduler",
        prediction_type="v_prediction",
        timestep_type="continuous",
        sigma_min=0.02,
        sigma_max=14.6,
    ),
    "Euler, trailing, as turbo models": _scheduler("EulerDiscreteScheduler", timestep_spacing="trailing"),
    "Euler ancestral": _scheduler("EulerAncestralDiscreteScheduler", steps_offset=1),
    "Heun with Karras' levels": _scheduler("HeunDiscreteScheduler", use_karras_sigmas=True),
    "LMS": _scheduler("LMSDiscreteScheduler"),
    "DPM-Solver++ with -Infinity": _scheduler(
        "DPMSolverMultistepScheduler", lambda_min_clipped=float("-inf"), variance_type=None
    ),
    "DPM-Solver++ from PNDM's config": Kind(
        recipe=Recipe(
            scheduler={
                **PNDM,
                "_class_name": "DPMSolverMultistepScheduler",
                "lambda_min_clipped": float("-inf"),
                "use_karras_sigmas": True,
            }
        )
    ),
    "DPM-Solver++ SDE": _scheduler("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
    "DPM-Solver++, sigma_min at the end": _scheduler("DPMSolverMultistepScheduler", final_sigmas_type="sigma_min"),
    "DPM-Solver++, Heun's solver": _scheduler("DPMSolverMultistepScheduler", solver_type="heun", euler_at_final=True),
    "DPM-Solver++ in single steps": _scheduler("DPMSolverSinglestepScheduler"),
    "DEIS": _scheduler("DEISMultistepScheduler"),
    "KDPM2": _scheduler("KDPM2DiscreteScheduler"),
    "KDPM2 ancestral": _scheduler("KDPM2AncestralDiscreteScheduler"),
    "UniPC": _scheduler("UniPCMultistepScheduler"),
    "UniPC without predict_x0": _scheduler("UniPCMultistepScheduler", predict_x0=False, final_sigmas_type="sigma_min"),
    "LCM": _scheduler("LCMScheduler"),
    "TCD": _scheduler("TCDScheduler"),
    "another class in the index": _index(scheduler=["diffusers", "EulerDiscreteScheduler"]),
    "no class in the config": Kind(recipe=Recipe(drop=("scheduler._class_name",))),
    "trained betas": Kind(
        recipe=Recipe(scheduler={**PNDM, "trained_betas": [0.001 + 0.00001 * i for i in range(1000)]})
    ),
    "1 and 0 for switches": _scheduler("DDIMScheduler", clip_sample=1, thresholding=0, steps_offset=1),
    "minus infinity as null, which diffusers does not draw": replace(
        _scheduler("DPMSolverMultistepScheduler", lambda_min_clipped=None),
        make=made.broken(lambda _: None),
        result="accepted",
    ),
    "null for a spread": replace(
        _scheduler("DPMSolverMultistepScheduler", use_karras_sigmas=None),
        make=made.broken(lambda _: None),
        result="refused",
        words=("fails with it",),
    ),
    "SA-Solver": _substituted("SASolverScheduler"),
    "SDE with a Brownian tree, for which diffusers wants torchsde": replace(
        _substituted("DPMSolverSDEScheduler"), make=made.broken(lambda _: None), result="accepted"
    ),
    "IPNDM": _scheduler("IPNDMScheduler"),
    "EDM's DPM-Solver": _scheduler("EDMDPMSolverMultistepScheduler"),
    "CogVideoX' DDIM": _scheduler("CogVideoXDDIMScheduler"),
    "EDM": _scheduler("EDMEulerScheduler"),
}

UNETS: dict[str, Kind] = {
    "no mid block, as tiny-sd": _unet(mid_block_type=None),
    "heads of each level, linear projections": _unet(attention_head_dim=(2, 4), use_linear_projection=True),
    "the prompt's mean beside the timestep": _unet(
        "standard", addition_embed_type="text", addition_embed_type_num_heads=4
    ),
    "layers of each level": _unet(layers_per_block=(1, 2)),
    "four levels": _unet(
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ),
    "scale_shift": _unet(resnet_time_scale_shift="scale_shift"),
    "only_cross_attention": _unet(only_cross_attention=True),
    "another act_fn": _unet(act_fn="gelu"),
    "act_fn mish": _unet(
        act_fn="mish",
        block_out_channels=(16, 32, 32),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    ),
    "time_embedding_act_fn": _unet(time_embedding_act_fn="silu"),
    "conv_in_kernel": _unet(conv_in_kernel=5, conv_out_kernel=1),
    "center_input_sample": _unet(center_input_sample=True),
    "text projected": _unet(encoder_hid_dim=48, encoder_hid_dim_type="text_proj", cross_attention_dim=32),
    "simple cross-attention": _unet("standard", mid_block_type="UNetMidBlock2DSimpleCrossAttn"),
    "fourier timesteps": _unet(time_embedding_type="fourier"),
    "guidance embedded, as LCM": Kind(
        recipe=Recipe(
            unet={"time_cond_proj_dim": 32},
            scheduler={"_class_name": "LCMScheduler", **BETAS},
            index={"_class_name": "LatentConsistencyModelPipeline"},
        ),
        form="any",
    ),
    "three latent channels": Kind(
        recipe=Recipe(unet={"in_channels": 3, "out_channels": 3}, vae={"latent_channels": 3})
    ),
    "9 channels: inpainting": Kind(
        recipe=Recipe(unet={"in_channels": 9}, index={"_class_name": "StableDiffusionInpaintPipeline"}),
        make=made.inpainted,
    ),
    "8 channels: instruct-pix2pix": Kind(
        recipe=Recipe(unet={"in_channels": 8}, index={"_class_name": "StableDiffusionInstructPix2PixPipeline"}),
        make=made.edited,
    ),
    "class embeddings": Kind(
        recipe=Recipe(unet={"num_class_embeds": 10}),
        make=made.broken(lambda _: None),
        result="refused",
        words=("num_class_embeds",),
    ),
}

SIZES: dict[str, Kind] = {
    "sample_size 12": _unet(sample_size=12),
    "sample_size of two numbers": _unet(sample_size=(8, 8)),
    "sample_size that a level halves with a rest": _unet(
        "standard",
        sample_size=12,
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ),
    "not square": Kind(recipe=Recipe(unet={"sample_size": (8, 16)}), result="refused", words=("sample_size",)),
    "--size": Kind(options={"size": 32}),
}

VAES: dict[str, Kind] = {
    "four levels": _vae(**_LEVELS4),
    "no quant convolutions": _vae(use_quant_conv=False, use_post_quant_conv=False),
    "no attention": _vae(mid_block_add_attention=False),
    "another scaling factor and shift": _vae(scaling_factor=0.13025, shift_factor=0.1),
    "another act_fn": _vae(act_fn="gelu", layers_per_block=2),
    "TAESD": Kind(recipe=Recipe(tiny_vae=True, drawing=Drawing(from_picture=True))),
}

TEXTS: dict[str, Kind] = {
    "as Stable Diffusion 2": Kind(recipe=Recipe(text=_SD2_TEXT, tokenizer={"pad_token": "!"})),
    "another activation": _text(hidden_act="gelu_new"),
    "32 tokens": Kind(recipe=Recipe(text={"max_position_embeddings": 32}, tokenizer={"model_max_length": 32})),
    "keys of transformers 5": _files(prefixed=False),
    "prompts padded at their beginning": replace(
        _files(tokenizer={"padding_side": "left"}),
        make=made.broken(lambda _: None),
        result="refused",
        words=("padding_side",),
    ),
    "tokenizer.json alone": _files(tokenizer={"files": "fast"}),
    "tokenizer longer than the text encoder, which diffusers does not draw": Kind(
        recipe=Recipe(text={"max_position_embeddings": 32}), make=made.broken(lambda _: None), result="accepted"
    ),
    "a word of four vectors": Kind(make=made.embedding_inside),
}

FILES: dict[str, Kind] = {
    "fp16 only": _files(dtype="float16", variant="fp16"),
    "fp16 only, sharded": _files(dtype="float16", variant="fp16", shard="60KB"),
    "bf16": _files(dtype="bfloat16"),
    "fp64": _files(dtype="float64"),
    "float8": Kind(make=made.altered(made.in_8_bits)),
    "a counter among the weights": Kind(make=made.altered(made.with_a_counter)),
    "the autoencoder's attention in its old names": Kind(make=made.altered(made.in_old_names)),
    "shards": _files(shard="100KB"),
    "leftover shards beside a full file": Kind(make=made.with_full_weights_beside_shards),
    "a training folder": Kind(make=made.training_folder),
    "a root of the Hub's cache": Kind(make=made.cache_root),
    "a newline in the folder's name": Kind(make=made.named("my\nmodel")),
    "pipeline class Img2Img": _index(_class_name="StableDiffusionImg2ImgPipeline"),
    "pipeline class Inpaint over 4 channels": _index(_class_name="StableDiffusionInpaintPipeline"),
    "one file in the original layout": Kind(make=made.single_file, options={"size": 16}),
    "an embedding beside it": Kind(make=made.embedding_file),
    "TAESD in place of its own VAE": Kind(make=made.another_vae),
    "a LoRA of diffusers": Kind(make=made.lora),
    "NaN in a weight": _refused(made.not_a_number, "conv_in.bias"),
    "Git-LFS pointers": _refused(made.git_lfs_pointers, "LFS"),
    "links to nowhere": _refused(made.links_to_nowhere, "link"),
    "pickles": _refused(made.pickles, "pickle"),
    "cut short": _refused(made.cut_short, "cut short"),
}

CONTROLS: dict[str, Kind] = {
    "other weights": Kind(make=made.changed_after_the_reference, result="differs"),
    "another schedule": Kind(make=made.with_a_changed_manifest, result="differs"),
    "no LoRA at all": Kind(options={"loras": ("no LoRA at all",)}, result="fault"),
}
"""What has to be seen: two wrong pictures and a traceback."""

KINDS: dict[str, Kind] = {
    f"{subject}: {name}": kind
    for subject, kinds in {
        "scheduler": SCHEDULERS,
        "unet": UNETS,
        "size": SIZES,
        "vae": VAES,
        "text": TEXTS,
        "files": FILES,
        "control": CONTROLS,
    }.items()
    for name, kind in kinds.items()
}
"""All kinds, by "subject: name"."""
