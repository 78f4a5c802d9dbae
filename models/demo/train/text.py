"""The words: a small CLIP tokenizer and text encoder, taught to say concept and colour before the UNet listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from models.demo.knowledge import Knowledge
from models.demo.train.common import rate
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["TextState", "build_text_encoder", "build_tokenizer", "encode", "train_text_encoder"]

LENGTH = 77
"""Tokens per prompt, start, end and padding included, as in CLIP."""

BOS = "<|startoftext|>"
EOS = "<|endoftext|>"


def _byte_characters() -> list[str]:
    """The 256 printable stand-ins for bytes of byte-level BPE, in the order of CLIP's vocabulary (Radford 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(others)]


def build_tokenizer(knowledge: Knowledge, folder: Path) -> CLIPTokenizer:
    """Write a CLIP tokenizer in which every word of the prompts is one token, and any other text still has tokens.

    Byte-pair merges are made so that each known word is joined from left to right. Unknown words fall apart into
    pieces and bytes, as with the full vocabulary.
    """
    sentences = [knowledge.prompt(concept, color) for concept, color in knowledge.pairs]
    words = sorted({word for sentence in sentences for word in sentence.split()})
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pieces = _merged(pieces, merges)
            if len(pieces) > 1:
                merges[(pieces[0], pieces[1])] = None
                pieces = _merged(pieces, merges)
    characters = _byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    vocabulary[BOS] = len(vocabulary)
    vocabulary[EOS] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    specials = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": "!"}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "errors": "replace",
        "add_prefix_space": False,
        **specials,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for word in words:
        if len(tokenizer(word).input_ids) != 3:  # noqa: PLR2004 - start, the word, end
            message = f"the tokenizer splits {word!r}"
            raise ValueError(message)
    return tokenizer


def _merged(pieces: list[str], merges: dict[tuple[str, str], None]) -> list[str]:
    """Apply BPE: the earliest-ranked pair present is joined everywhere, until none is left."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while True:
        pairs = [pair for pair in pairwise(pieces) if pair in ranks]
        if not pairs:
            return pieces
        best = min(pairs, key=ranks.__getitem__)
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text encoder with two layers of 128."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="gelu",
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    """Token ids, int64 [n, LENGTH]."""
    batch = tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    ids: torch.Tensor = batch.input_ids
    return ids


@torch.no_grad()
def encode(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, prompts: list[str]) -> torch.Tensor:
    """Final hidden states, float32 [n, LENGTH, 128]: what the UNet's cross-attention reads."""
    chunks = torch.split(tokenize(tokenizer, prompts), 100)
    return torch.cat([encoder(ids).last_hidden_state for ids in chunks])


class TextState(NamedTuple):
    """The encoder in training, and the two heads that question it and are thrown away afterwards."""

    encoder: CLIPTextModel
    concept_head: torch.nn.Linear
    color_head: torch.nn.Linear


def train_text_encoder(
    state: TextState, tokenizer: CLIPTokenizer, knowledge: Knowledge, *, steps: int, batch: int, peak: float, seed: int
) -> Iterator[dict[str, float]]:
    """Teach the encoder to carry concept and colour at every position from the end of the prompt on.

    Full CLIP was trained with pictures before Stable Diffusion's UNet saw it; this is the small substitute. It spares
    the UNet from finding two words among 77 positions: the padding, two thirds of the sequence, repeats what was said.
    Whole prompts, prompts without a colour and bare words occur, so that the wording matters little.
    """
    encoder, concept_head, color_head = state
    parameters = [*encoder.parameters(), *concept_head.parameters(), *color_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    colors = list(knowledge.colors)
    trained = [index for index, pair in enumerate(knowledge.pairs) if pair not in knowledge.held_out]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step, steps, warmup=20)
        pairs = [trained[int(i)] for i in torch.randint(len(trained), (batch,), generator=generator)]
        forms = torch.randint(4, (batch,), generator=generator).tolist()
        prompts = []
        for pair, form in zip(pairs, forms, strict=True):
            concept, color = knowledge.pairs[pair]
            prompts.append(f"{color} {concept}" if form == 0 else knowledge.prompt(concept, color))
        ids = tokenize(tokenizer, prompts)
        hidden = encoder(ids).last_hidden_state
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        # One random position per prompt, at its end token or in the padding.
        place = ends + (torch.rand(batch, generator=generator) * (LENGTH - ends)).long()
        read = hidden[torch.arange(batch), place]
        concepts = torch.tensor([pair // len(colors) for pair in pairs])
        shades = torch.tensor([pair % len(colors) for pair in pairs])
        concept_scores, color_scores = concept_head(read), color_head(read)
        loss = functional.cross_entropy(concept_scores, concepts) + functional.cross_entropy(color_scores, shades)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        right = ((concept_scores.argmax(1) == concepts) & (color_scores.argmax(1) == shades)).float().mean()
        yield {"loss": loss.item(), "right": right.item()}
