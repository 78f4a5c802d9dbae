"""Scaled dot-product attention written out, so that every engine sees MatMul, Softmax, MatMul."""

from __future__ import annotations

import functools
from types import MethodType

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import AttentionPooling
from torch import Tensor, nn

__all__ = ["attend", "split_heads", "write_out"]

_MAP_RANK = 4  # [batch, channels, height, width]


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, L, heads * d] -> [B, heads, L, d]."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key) value, heads merged, through the output projection.

    Vaswani et al. 2017 (arXiv:1706.03762), equation 1.

    Args:
        attn: the module whose output projection is applied.
        query: float32 [B, heads, L, d]; it or the key is scaled by 1/sqrt(d) already.
        key: float32 [B, heads, d, T], transposed.
        value: float32 [B, heads, T, d].

    Returns:
        float32 [B, L, heads * d].
    """
    mixed = torch.softmax(query @ key, dim=-1) @ value
    merged: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
    return merged


def write_out(part: nn.Module) -> None:
    """Replace the processors of all attentions of a network, and what pools its prompt by attention."""
    for module in part.modules():
        if isinstance(module, Attention):
            module.set_processor(_Written() if module.added_kv_proj_dim is None else _WrittenAdded())
        elif isinstance(module, AttentionPooling):
            module.forward = MethodType(_pool, module)


class _Written:
    """diffusers' ``AttnProcessor2_0``: self- or cross-attention over tokens [B, L, C] or a map [B, C, H, W]."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        temb: object = None,
    ) -> Tensor:
        tokens = _normed_tokens(attn, hidden_states)
        context = _context(attn, tokens, encoder_hidden_states)
        query = split_heads(attn.to_q(tokens) * attn.scale, attn.heads)
        key = split_heads(attn.to_k(context), attn.heads).transpose(2, 3)
        value = split_heads(attn.to_v(context), attn.heads)
        mixed = attend(attn, query, key, value)
        if hidden_states.ndim == _MAP_RANK:
            mixed = mixed.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            mixed = mixed + hidden_states
        return mixed if attn.rescale_output_factor == 1 else mixed / attn.rescale_output_factor


class _WrittenAdded:
    """diffusers' ``AttnAddedKVProcessor2_0``: a map attends to the prompt's keys and values, and then to its own."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor:
        tokens = _normed_tokens(attn, hidden_states)
        plain = hidden_states.flatten(2).transpose(1, 2)
        context = _context(attn, plain, encoder_hidden_states)
        parts = [(attn.add_k_proj(context), attn.add_v_proj(context))]
        if not attn.only_cross_attention:
            parts.append((attn.to_k(tokens), attn.to_v(tokens)))
        query = split_heads(attn.to_q(tokens) * attn.scale, attn.heads)
        projected: Tensor = attn.to_out[0](_attend_to_parts(query, parts, attn.heads))
        return projected.transpose(1, 2).reshape(hidden_states.shape) + hidden_states


def _pool(pooling: AttentionPooling, tokens: Tensor) -> Tensor:
    """Diffusers' ``AttentionPooling``: the mean of tokens [B, L, C] attends to itself and to them; [B, C]."""
    mean = tokens.mean(dim=1, keepdim=True) + pooling.positional_embedding
    query = split_heads(pooling.q_proj(mean) * pooling.dim_per_head**-0.5, pooling.num_heads)
    parts = [(pooling.k_proj(part), pooling.v_proj(part)) for part in (mean, tokens)]
    return _attend_to_parts(query, parts, pooling.num_heads)[:, 0]


def _attend_to_parts(query: Tensor, parts: list[tuple[Tensor, Tensor]], heads: int) -> Tensor:
    """Return attention to several lists of keys and values [B, T, heads * d], heads merged: [B, L, heads * d].

    There is one softmax over all parts. They are not joined: the sum of their lengths would be traced as a number.
    """
    scores = [query @ split_heads(key, heads).transpose(2, 3) for key, _ in parts]
    largest = functools.reduce(torch.maximum, (score.amax(-1, keepdim=True) for score in scores))
    shares = [torch.exp(score - largest) for score in scores]
    values = [share @ split_heads(value, heads) for share, (_, value) in zip(shares, parts, strict=True)]
    total = functools.reduce(torch.add, (share.sum(-1, keepdim=True) for share in shares))
    mixed = functools.reduce(torch.add, values) / total
    return mixed.transpose(1, 2).flatten(2)


def _normed_tokens(attn: Attention, hidden_states: Tensor) -> Tensor:
    """Return a map's positions, or tokens, through the group norm of the attention if it has one: [B, L, C]."""
    channels_first = hidden_states.flatten(2) if hidden_states.ndim == _MAP_RANK else None
    if attn.group_norm is None:
        return hidden_states if channels_first is None else channels_first.transpose(1, 2)
    normed: Tensor = attn.group_norm(hidden_states.transpose(1, 2) if channels_first is None else channels_first)
    return normed.transpose(1, 2)


def _context(attn: Attention, tokens: Tensor, encoder_hidden_states: Tensor | None) -> Tensor:
    """Return what keys and values are made of: the prompt, normed where the attention does, or the tokens."""
    if encoder_hidden_states is None:
        return tokens
    return attn.norm_encoder_hidden_states(encoder_hidden_states) if attn.norm_cross else encoder_hidden_states
