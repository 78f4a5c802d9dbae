"""Scaled dot-product attention written out, so that every engine sees MatMul, Softmax, MatMul."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

__all__ = ["attend", "split_heads"]


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
