"""The UNet as graphs: everything that does not change between steps is taken out of it, exactly.

The hoisted UNet differs from diffusers' forward pass in four ways, all exact:

- The keys and values of every cross-attention depend only on the prompt. ``PromptKV`` computes them once per prompt,
  already split into heads and, for the keys, scaled by 1/sqrt(d).
- The time embedding and its projection in every residual block depend only on the timestep. ``TimeBiases`` computes
  them for all timesteps of a schedule in one call. It also adds the bias of the convolution they are added to.
- The values and the gates of a feed-forward layer are two products, so that no graph has to split one.
- The first layer of a transformer takes over the scale and shift of the group norm before it: two linear maps in a row
  are one.

diffusers' blocks are reused unchanged. They pass two arguments down untouched, ``temb`` and ``encoder_hidden_states``.
Here both carry tuples, and the leaves (``_Pick``, ``_CrossAttention``) take their own item out.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from nano_export.networks.attention import attend, split_heads, write_out

__all__ = ["HoistedUNet", "PromptKV", "StandardUNet", "TimeBiases"]


class StandardUNet(nn.Module):
    """diffusers' UNet with optimum's inputs: sample [B, C, h, w], timestep [1], encoder_hidden_states [B, L, D].

    A UNet with embedded guidance also takes its embedding, ``timestep_cond`` [B, E].
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        write_out(unet)
        _split_gates(unet)
        _fold_norms(unet)
        self.unet = unet

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, timestep_cond: Tensor | None = None
    ) -> Tensor:
        """Predict the noise (or velocity, or picture: the checkpoint decides), float32 [B, C, h, w]."""
        prediction: Tensor = self.unet(
            sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, return_dict=False
        )[0]
        return prediction


class PromptKV(nn.Module):
    """Hidden states [B, L, D] -> key and value [B, heads, L, d] of every cross-attention, in order.

    ``names`` are the names of the outputs. The UNet inputs that they feed have the same names.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        attentions = _cross_attentions(unet)
        self.projection = unet.encoder_hid_proj
        self.to_k = nn.ModuleList(attention.to_k for _, attention in attentions)
        self.to_v = nn.ModuleList(attention.to_v for _, attention in attentions)
        self.layouts = [(attention.heads, attention.scale) for _, attention in attentions]
        self.names = [f"{name}.{part}" for name, _ in attentions for part in ("key", "value")]

    def forward(self, encoder_hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Project; the scale 1/sqrt(d) of the attention goes into the keys."""
        if self.projection is not None:
            encoder_hidden_states = self.projection(encoder_hidden_states)
        outputs: list[Tensor] = []
        for to_k, to_v, (heads, scale) in zip(self.to_k, self.to_v, self.layouts, strict=True):
            key = split_heads(to_k(encoder_hidden_states) * scale, heads)
            outputs += [key, split_heads(to_v(encoder_hidden_states), heads)]
        return tuple(outputs)


class TimeBiases(nn.Module):
    """Timesteps float32 [T] -> what every residual block takes from them, float32 [T, C] each, in order.

    Most blocks add it to their channels: it then includes the bias of the block's first convolution, which is added to
    the same channels. Blocks with ``resnet_time_scale_shift`` scale and shift with it: [T, 2C].
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        resnets = _resnets(unet)
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.embedding_act = unet.time_embed_act
        self.act = resnets[0][1].nonlinearity  # one for all: the UNet's ``act_fn``
        self.skip_act = [resnet.skip_time_act for _, resnet in resnets]
        self.projections = nn.ModuleList(
            _linear(projection.weight.data, projection.bias.data + resnet.conv1.bias.data)
            if _adds(resnet)
            else projection
            for projection, resnet in ((resnet.time_emb_proj, resnet) for _, resnet in resnets)
        )
        self.names = [f"{name}.time_bias" for name, _ in resnets]

    def forward(self, timestep: Tensor, timestep_cond: Tensor | None = None) -> tuple[Tensor, ...]:
        """Embed and project; most blocks apply an activation to the embedding first (diffusers' ``ResnetBlock2D``).

        Args:
            timestep: float32 [T].
            timestep_cond: float32 [T, E], the embedded guidance of UNets that have ``time_cond_proj_dim``.
        """
        embedding = self.time_embedding(self.time_proj(timestep), timestep_cond)
        if self.embedding_act is not None:
            embedding = self.embedding_act(embedding)
        activated = self.act(embedding)
        return tuple(
            projection(embedding if skip else activated)
            for projection, skip in zip(self.projections, self.skip_act, strict=True)
        )


class HoistedUNet(nn.Module):
    """The rest of the UNet: sample [B, C, h, w], the prompt's keys and values, time biases [1, C] -> prediction.

    ``hoistable.py`` lists the parts with which this is diffusers' forward pass. Build ``PromptKV`` and ``TimeBiases``
    first: this class takes over the UNet and replaces its projections.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        write_out(unet)
        for index, (_, attention) in enumerate(_cross_attentions(unet)):
            attention.set_processor(_CrossAttention(2 * index))
            attention.to_k = attention.to_v = None
        for index, (_, resnet) in enumerate(_resnets(unet)):
            resnet.time_emb_proj, resnet.skip_time_act = _Pick(index), True
            if _adds(resnet):
                resnet.conv1.bias = None
        _split_gates(unet)
        _fold_norms(unet)
        unet.time_proj = unet.time_embedding = unet.encoder_hid_proj = None  # they are in graphs of their own
        self.unet = unet

    def forward(self, sample: Tensor, prompt_kv: tuple[Tensor, ...], time_biases: tuple[Tensor, ...]) -> Tensor:
        """Walk diffusers' blocks as ``UNet2DConditionModel.forward`` does, without its projections."""
        unet = self.unet
        hidden = unet.conv_in(2 * sample - 1 if unet.config.center_input_sample else sample)
        skips: tuple[Tensor, ...] = (hidden,)
        for block in unet.down_blocks:
            hidden, more = block(hidden, time_biases, **_context(block, prompt_kv))
            skips += more
        if unet.mid_block is not None:
            hidden = unet.mid_block(hidden, time_biases, **_context(unet.mid_block, prompt_kv))
        for block in unet.up_blocks:
            count = len(block.resnets)
            skips, own = skips[:-count], skips[-count:]
            hidden = block(hidden, own, time_biases, **_context(block, prompt_kv))
        prediction: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return prediction


def _context(block: nn.Module, prompt_kv: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    """Return the argument with keys and values; blocks without cross-attention do not take it."""
    return {"encoder_hidden_states": prompt_kv} if getattr(block, "has_cross_attention", False) else {}


class _Pick(nn.Module):
    """Replaces a time projection: returns the bias that was computed outside."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, time_biases: Sequence[Tensor]) -> Tensor:
        return time_biases[self.index]


class _CrossAttention:
    """Attention over keys and values computed outside, at ``index`` and ``index + 1`` of the tuple."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Sequence[Tensor],
        attention_mask: None = None,
    ) -> Tensor:
        key, value = encoder_hidden_states[self.index], encoder_hidden_states[self.index + 1]
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        return attend(attn, query, key.transpose(2, 3), value)


class _SplitGeglu(nn.Module):
    """diffusers' ``GEGLU`` with one linear layer for the values and one for the gates, over the same weights."""

    def __init__(self, geglu: GEGLU) -> None:
        super().__init__()
        self.value, self.gate = (_linear(*half) for half in zip(*(
            parameter.data.chunk(2) for parameter in (geglu.proj.weight, geglu.proj.bias)
        ), strict=True))  # fmt: skip

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return values times the GELU of the gates. Shazeer 2020 (arXiv:2002.05202), equation 5."""
        values: Tensor = self.value(hidden_states)
        return values * nn.functional.gelu(self.gate(hidden_states))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer over these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _split_gates(unet: UNet2DConditionModel) -> None:
    """Replace the first layer of every feed-forward network."""
    for module in list(unet.modules()):
        if isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            module.net[0] = _SplitGeglu(module.net[0])


def _fold_norms(unet: UNet2DConditionModel) -> None:
    """Move the scale and shift of every transformer's group norm into the layer behind it."""
    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            norm, layer = module.norm, module.proj_in
            weight = layer.weight.data  # [C', C], and [C', C, 1, 1] where it is a convolution
            layer.bias.data = layer.bias.data + weight.flatten(1) @ norm.bias.data
            layer.weight.data = (weight.flatten(1) * norm.weight.data).view_as(weight)
            norm.weight = norm.bias = None


def _cross_attentions(unet: UNet2DConditionModel) -> list[tuple[str, Attention]]:
    """Return all attentions over the prompt, in the order of ``named_modules``."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, Attention) and m.is_cross_attention]


def _resnets(unet: UNet2DConditionModel) -> list[tuple[str, ResnetBlock2D]]:
    """Return all residual blocks, in the order of ``named_modules``."""
    return [(n, m) for n, m in unet.named_modules() if isinstance(m, ResnetBlock2D)]


def _adds(resnet: ResnetBlock2D) -> bool:
    """Return whether a block adds its time embedding right behind the first convolution."""
    return bool(resnet.time_embedding_norm == "default")
