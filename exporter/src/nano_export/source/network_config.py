"""Leaves of a network's config what describes the network: all else would be an order to the library that loads it.

transformers and diffusers obey a config.json: it may name an attention kernel to be fetched from the Hub, a quantizer,
a type of numbers, or the form of outputs. Nano loads in fp32, with the library's own attention, whatever stands there.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Final

from nano_export.errors import CheckpointError
from nano_export.source.weights import Weights

__all__ = ["check_sizes", "network_config"]

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
_COUNTS: Final = ("layers", "blocks")  # in the names of keys that say how many a network has
_ID: Final = "_id"  # ends the keys of tokens, which need not be in the vocabulary
_SMALL: Final = 4096  # sizes of pictures are no tensor's; up to here none takes much memory
_MOST: Final = 256  # of the largest, CLIP's bigG, one has 32; a library builds as many as it is told, for hours


def network_config(kind: Any, config: dict[str, Any], folder: Path) -> dict[str, Any]:  # noqa: ANN401 - see load_network
    """Return the keys of a config that its class is built of.

    Args:
        kind: class of diffusers or transformers.
        config: of the network.
        folder: of the network, for messages.

    Raises:
        CheckpointError: it says that the weights are quantized, or that the network has thousands of layers.
    """
    text = config.get("text_config")
    if config.get("model_type") == _WHOLE_CLIP and isinstance(text, dict):
        config = text
    if config.get(_QUANTIZED):
        raise CheckpointError(
            folder, f"its config.json has a {_QUANTIZED}: the model from before it was quantized is needed"
        )
    for key, value in config.items():
        if any(word in key for word in _COUNTS) and _largest(value) > _MOST:
            raise CheckpointError(folder, f"its config.json has {key}={str(value)[:40]}, and no network has so many")
    known = inspect.signature(kind.__init__).parameters if hasattr(kind, "load_config") else _TEXT_ENCODER
    return {key: value for key, value in config.items() if key in known}


def check_sizes(config: dict[str, Any], weights: Weights) -> None:
    """Refuse a size that none of the tensors has, before a library takes memory for it.

    Args:
        config: of the network.
        weights: of it.

    Raises:
        CheckpointError: names the key.
    """
    most = max((size for shape in weights.shapes.values() for size in shape), default=0)
    for key, value in config.items():
        if not key.endswith(_ID) and _largest(value) > max(most, _SMALL):
            raise CheckpointError(
                weights.folder, f"its config.json has {key}={str(value)[:40]}, and no tensor is larger than {most}"
            )


def _largest(value: object) -> float:
    """Return the largest number in a value of JSON, or how many values a list has; 0 without one."""
    if isinstance(value, (list, tuple)):
        return max(len(value), *map(_largest, value), 0)
    return value if isinstance(value, (int, float)) else 0
