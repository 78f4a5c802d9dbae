"""The text encoder as a graph: CLIP's hidden states after the final layer norm."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import CLIPTextModel

__all__ = ["TextEncoder"]


class TextEncoder(nn.Module):
    """Token ids int64 [B, L] -> hidden states after the final layer norm, float32 [B, L, D]."""

    def __init__(self, model: CLIPTextModel) -> None:
        super().__init__()
        model.set_attn_implementation("eager")  # written out: torch's fused operator would fix the batch when traced
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode; Stable Diffusion 1 and 2 do not use the pooled output."""
        hidden: Tensor = self.model(input_ids, return_dict=False)[0]
        return hidden
