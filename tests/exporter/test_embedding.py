"""Textual inversions at export: tokenizer and text encoder become those of diffusers' ``load_textual_inversion``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

from nano_export import cli
from nano_export.errors import EmbeddingError
from nano_export.exporting import Exported, export
from nano_export.judge.original import diffusers_pipeline
from nano_export.options import EmbeddingFile, Options, parse_embedding
from nano_export.source import builtin
from nano_export.source.adapters.embedding import add_embeddings, open_embedding, words_of, words_of_one_vector
from nano_export.source.checkpoint import Checkpoint, open_checkpoint
from nano_runtime import Pipeline
from nano_runtime.bundle.checksums import sha256_of
from nano_runtime.bundle.reading import read_manifest
from nano_runtime.cli import bundle as bundle_command

WIDTH = 48
# Latents of a few steps, on the latents' own range of about 4: law one of the exporter.
EQUAL_LATENTS = 4e-4


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FILES = {
    "A1111, many": ({"emb_params": vectors(5, WIDTH)}, None, "easynegative"),
    "A1111, one in a list": ({"emb_params": vectors(1, WIDTH)}, None, "easynegative"),
    "A1111, half precision, with a word": ({"emb_params": vectors(3, WIDTH).half()}, "Bad Hands-5", "Bad Hands-5"),
    "diffusers, one": ({"<cat-toy>": vectors(WIDTH)}, None, "<cat-toy>"),
    "diffusers, many": ({"<cat-toy>": vectors(2, WIDTH)}, None, "<cat-toy>"),
    "diffusers, renamed": ({"<cat-toy>": vectors(2, WIDTH).bfloat16()}, "<toy>", "<toy>"),
}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "easynegative.safetensors"


def with_embeddings(*given: EmbeddingFile) -> Checkpoint:
    return add_embeddings(open_checkpoint("tiny", None), [open_embedding(one) for one in given])


@pytest.mark.parametrize("kind", FILES)
def test_tokenizer_and_text_encoder_are_those_of_diffusers(kind, file):
    content, word, expected_word = FILES[kind]
    save_file(content, file)
    parts = builtin.build("tiny")
    pipeline = diffusers_pipeline(parts)
    pipeline.load_textual_inversion(str(file), token=word if "emb_params" not in content else expected_word)

    checkpoint = with_embeddings(EmbeddingFile(file, word))

    assert checkpoint.tokenizer.get_vocab() == pipeline.tokenizer.get_vocab()
    assert checkpoint.tokenizer.backend_tokenizer.to_str() == pipeline.tokenizer.backend_tokenizer.to_str()
    table, theirs = (model.get_input_embeddings().weight for model in (checkpoint.text_encoder, parts.text_encoder))
    assert torch.equal(table, theirs)
    upper = expected_word != expected_word.lower()
    assert words_of_one_vector(checkpoint) == ([(expected_word, expected_word.lower())] if upper else [])
    count = next(iter(content.values())).reshape(-1, WIDTH).shape[0]
    assert checkpoint.embeddings == {expected_word: tuple(range(1024, 1024 + count))}
    assert table.shape[0] == checkpoint.text_encoder.config.vocab_size == 1024 + count


def test_several_files_are_added_in_order(file, tmp_path):
    other = tmp_path / "toy.safetensors"
    save_file({"emb_params": vectors(2, WIDTH)}, file)
    save_file({"<cat-toy>": vectors(3, WIDTH, seed=1)}, other)
    pipeline = diffusers_pipeline(builtin.build("tiny"))
    pipeline.load_textual_inversion([str(file), str(other)], token=["easynegative", "<cat-toy>"])
    checkpoint = with_embeddings(EmbeddingFile(file), EmbeddingFile(other))
    assert checkpoint.tokenizer.get_vocab() == pipeline.tokenizer.get_vocab()
    assert checkpoint.embeddings == {"easynegative": (1024, 1025), "<cat-toy>": (1026, 1027, 1028)}


def test_the_words_of_a_checkpoint_that_was_saved_with_them_are_found(file, tmp_path):
    save_file({"<cat-toy>": vectors(4, WIDTH)}, file)
    pipeline = diffusers_pipeline(builtin.build("tiny"))
    assert words_of(pipeline.tokenizer) == {}
    pipeline.load_textual_inversion(str(file))
    pipeline.load_textual_inversion({"solo": vectors(WIDTH)}, "solo")
    pipeline.tokenizer.save_pretrained(tmp_path / "tokenizer")
    saved = type(pipeline.tokenizer).from_pretrained(tmp_path / "tokenizer")
    assert words_of(saved) == {"<cat-toy>": (1024, 1025, 1026, 1027), "solo": (1028,)}


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ("easynegative.safetensors", "easynegative.safetensors", None),
        ("a.safetensors=<cat>", "a.safetensors", "<cat>"),
        ("a=b/c=d.safetensors=bad hands=5", "a=b/c=d.safetensors", "bad hands=5"),
        ("a=b/c.safetensors", "a=b/c.safetensors", None),
        ("C:\\e\\x.safetensors=x", "C:\\e\\x.safetensors", "x"),
        ("a.safetensors=", "a.safetensors=", None),
        ("old.pt=word", "old.pt", "word"),
    ],
)
def test_only_an_equals_sign_behind_the_suffix_begins_a_word(text, path, word):
    assert parse_embedding(text) == EmbeddingFile(Path(path), word)


@pytest.mark.parametrize(
    ("content", "word", "why"),
    [
        pytest.param({"emb_params": vectors(2, 768)}, "", "768 wide (Stable Diffusion 1), the model's", id="SD 1"),
        pytest.param({"emb_params": vectors(2, 1024)}, "", "1024 wide (Stable Diffusion 2), the", id="SD 2"),
        pytest.param({"clip_l": vectors(1, WIDTH), "clip_g": vectors(1, 1280)}, "", "is for Stable Dif", id="SDXL"),
        pytest.param({"a": vectors(WIDTH), "b": vectors(WIDTH)}, "", "holds 2 tensors ('a', 'b')", id="two"),
        pytest.param({"<x>": torch.full((WIDTH,), math.nan)}, "", "values than finite floats", id="nan"),
        pytest.param({"<x>": torch.ones(WIDTH, dtype=torch.int32)}, "", "than finite floats", id="integers"),
        pytest.param({"<x>": torch.ones(1, 1, WIDTH)}, "", "no vector and no list of vectors", id="three axes"),
        pytest.param({"<x>": torch.ones(0, WIDTH)}, "", "no vector and no list of vectors", id="empty"),
        pytest.param({"<x>": torch.ones(1025, WIDTH)}, "", "1025 vectors are more than 1024", id="many"),
        pytest.param({}, "", "it holds no tensors", id="no tensors"),
        pytest.param({"<x>": vectors(WIDTH)}, "th", "has the word 'th' already; name another", id="a word that exists"),
        pytest.param({"<x>": vectors(WIDTH)}, " ", "' ' cannot be a word", id="blank"),
        pytest.param({"evil\n\x1b[2J": vectors(WIDTH)}, "", "'evil\\n\\x1b[2J' cannot be a word", id="unprintable"),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_is_written(content, word, why, file, capsys):
    save_file(content, file)
    assert why in refused(f"{file}={word}" if word else str(file), file.parent, capsys)


def test_files_that_cannot_be_read_are_refused(file, tmp_path, capsys):
    assert "there is no such file" in refused(str(file), tmp_path, capsys)
    file.write_bytes(b"not a tensor")
    assert "it is not a safetensors file" in refused(str(file), tmp_path, capsys)
    pickled = tmp_path / "old.pt"
    torch.save({"string_to_param": {"*": vectors(1, WIDTH)}}, pickled)
    why = refused(f"{pickled}=old", tmp_path, capsys)
    assert "it is a pickle, which can run code" in why
    assert "safetensors.torch.save_file" in why


def test_one_word_for_two_files_is_refused(file):
    save_file({"emb_params": vectors(1, WIDTH)}, file)
    checkpoint = open_checkpoint("tiny", None)
    with pytest.raises(EmbeddingError, match="has the word 'easynegative' already"):
        add_embeddings(checkpoint, [open_embedding(EmbeddingFile(file))] * 2)
    assert checkpoint.text_encoder.get_input_embeddings().weight.shape[0] == 1024


def refused(given: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command and return the line that says why it refused."""
    place = folder / "place"
    place.mkdir(exist_ok=True)
    assert cli.main(["tiny", "-o", str(place / "bundle"), "--embedding", given]) == 2
    err = capsys.readouterr().err
    assert list(place.iterdir()) == []
    line = err[err.index("nano-export: ") :].splitlines()[0]
    assert line.startswith("nano-export: the embedding ")
    return line


def small() -> builtin.Parts:
    """A model of two blocks, which exports in a few seconds; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
            sample_size=64,
        )
    return replace(builtin.build("tiny"), unet=unet, vae=vae)


@pytest.mark.slow
def test_a_bundle_draws_what_diffusers_draws_with_the_word(file, tmp_path, capsys):
    save_file({"emb_params": 3 * vectors(4, WIDTH)}, file)
    builtin.write_checkpoint(small(), tmp_path / "small")
    bundle = tmp_path / "bundle"
    options = Options(
        model=str(tmp_path / "small"),
        output=bundle,
        backends=("onnxruntime",),
        embeddings=(EmbeddingFile(file, "<toy>"),),
    )
    *_, exported = export(options)
    assert isinstance(exported, Exported)

    manifest = read_manifest(bundle)
    assert manifest.tokenizer.embeddings == {"<toy>": [1024, 1025, 1026, 1027]}
    entry = {"name": file.name, "sha256": sha256_of(file), "word": "<toy>", "vectors": 4}
    assert manifest.options["embeddings"] == [entry]
    assert f"`<toy>` in a prompt (4 tokens), from `{file.name}`" in (bundle / "README.md").read_text()
    assert bundle_command.main(["info", str(bundle)]) == 0
    assert "embedding   <toy> (4 tokens)" in capsys.readouterr().out

    theirs = diffusers_pipeline(small())
    theirs.load_textual_inversion(str(file), "<toy>")
    pipeline = Pipeline.from_pretrained(bundle, backend="onnxruntime")
    drawn = []
    for prompt in ("a photo of <toy>, on the table", "a photo of a toy, on the table"):
        settings: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "latent"}
        ours = pipeline(prompt, seed=1, scheduler="pndm", **settings).images
        noise = torch.Generator().manual_seed(1)
        expected = theirs(prompt, height=64, width=64, generator=noise, **settings).images.numpy()
        drawn.append(expected)
        assert np.abs(ours - expected).max() < EQUAL_LATENTS
    assert np.abs(drawn[0] - drawn[1]).max() > 100 * EQUAL_LATENTS
    assert json.loads((bundle / "manifest.json").read_text())["format_version"] == 5
