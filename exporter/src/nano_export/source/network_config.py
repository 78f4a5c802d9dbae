"""Leaves of a network's config what describes the network: all else would be an order to the library that loads it.

transformers and diffusers obey a config.json: it may name an attention kernel to be fetched from the Hub, a quantizer,
a type of numbers, or the form of outputs. Nano loads in fp32, with the library's own attention, whatever stands there.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Final

from nano_export.errors import CheckpointError

__all__ = ["network_config"]

# Of transformers' CLIPTextConfig, without what all of its configs have.
_TEXT_ENCODER: Final = frozenset(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"),
        *("num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout"),
        *("initializer_range", "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id"),
    )
)
_WHOLE_CLIP: Final = "clip"  # a config of text and picture encoder together, as the library takes it
_QUANTIZED: Final = "quantization_config"


def network_config(kind: Any, config: dict[str, Any], folder: Path) -> dict[str, Any]:  # noqa: ANN401 - see load_network
    """Return the keys of a config that its class is built of.

    Args:
        kind: class of diffusers or transformers.
        config: of the network.
        folder: of the network, for messages.

    Raises:
        CheckpointError: it says that the weights are quantized.
    """
    text = config.get("text_config")
    if config.get("model_type") == _WHOLE_CLIP and isinstance(text, dict):
        config = text
    if config.get(_QUANTIZED):
        raise CheckpointError(
            folder, f"its config.json has a {_QUANTIZED}: the model from before it was quantized is needed"
        )
    known = inspect.signature(kind.__init__).parameters if hasattr(kind, "load_config") else _TEXT_ENCODER
    return {key: value for key, value in config.items() if key in known}
