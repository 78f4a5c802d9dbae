"""Decides whether a UNet can be hoisted: a list of the parts that ``HoistedUNet`` walks exactly as diffusers does.

A UNet with any other part is exported in the standard form, which runs diffusers' own forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

__all__ = ["why_not_hoistable"]

# Blocks that hand ``temb`` to residual blocks, and ``encoder_hidden_states`` to transformers, and touch neither.
_BLOCKS = frozenset({
    "AttnDownBlock2D", "AttnUpBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D",
    "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", "UNetMidBlock2D", "UNetMidBlock2DCrossAttn", "UpBlock2D",
})  # fmt: skip
# Their parts, and those of ``TimeBiases``.
_PARTS = frozenset({
    "Attention", "BasicTransformerBlock", "Downsample2D", "FeedForward", "GEGLU", "GatedSelfAttentionDense",
    "GaussianFourierProjection", "ResnetBlock2D", "TimestepEmbedding", "Timesteps", "Transformer2DModel", "Upsample2D",
})  # fmt: skip
_PROJECTED = (None, "text_proj")
_UNUSED = ("position_net",)  # GLIGEN's boxes, which StableDiffusionPipeline does not draw


def why_not_hoistable(unet: UNet2DConditionModel) -> str | None:
    """Name the first part or option that hoisting does not know; None if it knows them all.

    Args:
        unet: as it was loaded.
    """
    return next(_whys(unet), None)


def _whys(unet: UNet2DConditionModel) -> Iterator[str]:
    """Yield all parts and options that hoisting does not know."""
    config = unet.config
    if config.addition_embed_type is not None:
        yield f"addition_embed_type={config.addition_embed_type!r}"
    if config.encoder_hid_dim_type not in _PROJECTED:
        yield f"encoder_hid_dim_type={config.encoder_hid_dim_type!r}"
    for name, block in _blocks(unet):
        if type(block).__name__ not in _BLOCKS:
            yield f"{type(block).__name__} ({name})"
    for name, module in unet.named_modules():
        kind = type(module)
        known = kind.__name__ in _BLOCKS | _PARTS or kind.__module__.startswith("torch.nn.") or kind is type(unet)
        if not known and not name.startswith(_UNUSED):
            yield f"{kind.__name__} ({name})"
        if (why := _why_not(module)) is not None:
            yield f"{why} ({name})"
    modules = list(unet.modules())
    if not any(isinstance(module, Attention) and module.is_cross_attention for module in modules):
        yield "no layer that attends to the prompt"


def _blocks(unet: UNet2DConditionModel) -> list[tuple[str, nn.Module]]:
    """Return the blocks that ``HoistedUNet`` calls, with their names."""
    blocks = [(f"down_blocks.{index}", block) for index, block in enumerate(unet.down_blocks)]
    if unet.mid_block is not None:
        blocks.append(("mid_block", unet.mid_block))
    return [*blocks, *((f"up_blocks.{index}", block) for index, block in enumerate(unet.up_blocks))]


def _why_not(module: nn.Module) -> str | None:
    """Name an option of one module that hoisting does not know."""
    if isinstance(module, Attention):
        return _why_not_attention(module)
    if isinstance(module, ResnetBlock2D) and module.time_emb_proj is None:
        return "a residual block without a time embedding"
    if isinstance(module, Transformer2DModel):
        if not module.is_input_continuous:
            return "a transformer over patches"
        if {block.norm_type for block in module.transformer_blocks} != {"layer_norm"}:
            return "a transformer whose norms depend on the timestep"
    return None


def _why_not_attention(attention: Attention) -> str | None:
    """Name an option of an attention that the processors of the hoisted form do not have."""
    if attention.added_kv_proj_dim is not None:
        return "added_kv_proj_dim"
    if attention.spatial_norm is not None or attention.norm_q is not None or attention.norm_k is not None:
        return "an attention that norms its queries and keys"
    if not attention.is_cross_attention:
        return None
    if attention.norm_cross:
        return f"cross_attention_norm={attention.norm_cross!r}"
    if attention.group_norm is not None or attention.residual_connection or attention.rescale_output_factor != 1:
        return "a cross-attention with a norm or a residual of its own"
    return None
