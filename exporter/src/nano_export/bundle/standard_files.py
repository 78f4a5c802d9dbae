"""Writes the files that other libraries' pipelines look for beside the graphs of a standard bundle.

``ORTStableDiffusionPipeline`` (optimum-onnx), ``OVStableDiffusionPipeline`` (optimum-intel) and ``Text2ImagePipeline``
(openvino-genai) then open the bundle as it is; ``bench/interop`` draws with each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nano_export.graph.to_openvino import write_tokenizer
from nano_export.source.checkpoint import Checkpoint

__all__ = ["write_json", "write_standard_files"]


def write_standard_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the index, the configs of all parts, and the tokenizer in the forms that each library reads.

    Args:
        folder: of the bundle, with ``tokenizer/tokenizer.json`` in it.
        checkpoint: that the files describe.
    """
    _write_tokenizer(folder / "tokenizer", checkpoint)
    configs = {
        "text_encoder": checkpoint.text_encoder.config.to_dict(),
        "unet": json.loads(checkpoint.unet.to_json_string()),
        "vae_decoder": json.loads(checkpoint.vae.to_json_string()),
        "vae_encoder": json.loads(checkpoint.vae.to_json_string()),
    }
    for name, config in configs.items():
        config.pop("_name_or_path", None)  # a path of this machine
        write_json(folder / name / "config.json", config)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", checkpoint.scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", type(checkpoint.vae).__name__],
    }
    write_json(folder / "model_index.json", index)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, in a folder that is created if it is missing."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the tokenizer for transformers 4 (vocabulary and merges), 5 (its config) and openvino-genai (graphs)."""
    tokenizer = checkpoint.tokenizer
    tokenizer.save_pretrained(folder)
    encoder = tokenizer.backend_tokenizer
    encoder.model.save(str(folder))  # vocab.json and merges.txt, with the line of the version at its top
    added = {
        token.content: index
        for index, token in encoder.get_added_tokens_decoder().items()
        if encoder.model.token_to_id(token.content) is None
    }
    if added:  # words of embeddings, which transformers 4 looks for here
        write_json(folder / "added_tokens.json", added)
    write_tokenizer(tokenizer, folder)
