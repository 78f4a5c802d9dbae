"""A config describes a network; what else it says reaches no library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from nano_export.errors import CheckpointError
from nano_export.source import builtin
from nano_export.source.card import front_matter
from nano_export.source.network_config import check_sizes, network_config
from nano_export.source.single_file.networks import shapes_of
from nano_export.source.tokenizer import load_tokenizer
from nano_export.source.weights import Weights

HERE = Path("unet")
ORDERS = {
    "_attn_implementation": "kernels-community/nobody-has-this",
    "attn_implementation": "flash_attention_2",
    "torch_dtype": "evil",
    "dtype": "evil",
    "auto_map": {"AutoModel": "code.Model"},
    "return_dict": False,
    "use_kernels": True,
    "quantization_config": None,
    "torchscript": True,
}


def test_what_describes_the_network_stays():
    parts = builtin.build("tiny")
    for kind, module in ((CLIPTextModel, parts.text_encoder), (UNet2DConditionModel, parts.unet)):
        config = dict(module.config.to_dict() if kind is CLIPTextModel else module.config)
        found = network_config(kind, {**config, **ORDERS}, HERE)
        assert not {*found} & {*ORDERS}
        again = CLIPTextModel(CLIPTextConfig(**found)) if kind is CLIPTextModel else kind.from_config(found)
        assert {name: value.shape for name, value in again.state_dict().items()} == {
            name: value.shape for name, value in module.state_dict().items()
        }


def test_the_text_encoders_keys_are_those_of_its_class():
    """Reference: what the class adds to all configs of the library."""
    assert {*network_config(CLIPTextModel, CLIPTextConfig().to_dict(), HERE)} == {
        key for key in CLIPTextConfig.__annotations__ if key in CLIPTextConfig().to_dict()
    } - {"transformers_version"}


def test_a_config_of_both_encoders_has_the_texts_inside():
    whole = {"model_type": "clip", "text_config": {"hidden_size": 8, "dtype": "evil"}}
    assert network_config(CLIPTextModel, whole, HERE) == {"hidden_size": 8}


@pytest.mark.parametrize("kind", [CLIPTextModel, UNet2DConditionModel, AutoencoderKL])
def test_quantized_weights_are_refused(kind):
    with pytest.raises(CheckpointError, match="quantization_config"):
        network_config(kind, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, HERE)


@pytest.mark.parametrize(
    "key", ["layers_per_block", "transformer_layers_per_block", "num_hidden_layers", "num_decoder_blocks"]
)
@pytest.mark.parametrize("value", [10**9, [1, [2, 10**9]], [1] * 1000, 1e300])
def test_more_layers_than_any_network_has_are_refused(key, value):
    """A library would build them all, one by one."""
    with pytest.raises(CheckpointError, match=key):
        network_config(UNet2DConditionModel, {key: value}, HERE)
    network_config(UNet2DConditionModel, {key: [1, [], [2, 3]]}, HERE)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "block_out_channels"])
@pytest.mark.parametrize("value", [2**40, [320, 2**40], 49409])
def test_a_size_that_no_tensor_has_is_refused_by_its_key(key, value):
    """A library would take memory for it first, and the user be told to close other programs."""
    weights = Weights(HERE, (), None, {"embedding": (49408, 768), "norm": (768,)}, 0)
    with pytest.raises(CheckpointError, match=rf"{key}=.*no tensor is larger than 49408"):
        check_sizes({key: value}, weights)
    check_sizes({key: 49408, "sample_size": 1024, "eos_token_id": 10**6, "norm_eps": 1e-5}, weights)


def test_configs_of_single_files_give_no_orders_either():
    """Control: the library obeys those about attention and types."""
    config = {**builtin.build("tiny").text_encoder.config.to_dict(), **ORDERS}
    with pytest.raises((ImportError, ValueError, AttributeError)):
        CLIPTextModel(CLIPTextConfig(**config))
    assert shapes_of(HERE, "text_encoder", config)


TOKENIZER_ORDERS: dict[str, dict[str, Any]] = {
    "gguf_file": {"gguf_file": "other.gguf"},
    "init_inputs": {"init_inputs": [{"a": 1}, []]},
    "vocab": {"vocab": "/etc/hostname", "merges": "/etc/hostname"},
    "fast_tokenizer_files": {"fast_tokenizer_files": ["tokenizer.0.json"]},
    "tokenizer_object": {"tokenizer_object": "x"},
    "chat_template": {"chat_template": [{}], "auto_map": {"AutoTokenizer": ["code.T", None]}},
    "padding": {"tokenizer_padding": "x", "_json_padding": "x"},
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """A tokenizer in both forms: as the exporter's models have it, and as transformers 5 writes it."""
    place = tmp_path_factory.mktemp("tokenizers")
    builtin.write_checkpoint(builtin.build("tiny"), place / "checkpoint")
    CLIPTokenizer.from_pretrained(place / "checkpoint" / "tokenizer").save_pretrained(place / "whole")
    assert (place / "whole" / "tokenizer.json").is_file()
    return {"whole": place / "whole", "apart": Path(shutil.move(place / "checkpoint" / "tokenizer", place / "apart"))}


@pytest.mark.parametrize("form", ["whole", "apart"])
def test_what_describes_a_tokenizer_stays(tokenizers, form):
    theirs, ours = CLIPTokenizer.from_pretrained(tokenizers[form]), load_tokenizer(tokenizers[form])
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert (ours.model_max_length, ours.special_tokens_map) == (theirs.model_max_length, theirs.special_tokens_map)


@pytest.mark.parametrize("order", TOKENIZER_ORDERS)
@pytest.mark.parametrize("form", ["whole", "apart"])
def test_a_tokenizers_config_gives_no_orders(tokenizers, form, order, tmp_path):
    """transformers 5.23 obeys all of them, in one form or both: it reads those files, or raises."""
    expected = load_tokenizer(tokenizers[form]).backend_tokenizer.to_str()
    folder = Path(shutil.copytree(tokenizers[form], tmp_path / "tokenizer"))
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**said, **TOKENIZER_ORDERS[order]}))
    assert load_tokenizer(folder).backend_tokenizer.to_str() == expected


@pytest.mark.parametrize("part", ["vocab", "merges"])
def test_a_vocabulary_that_names_a_file_is_refused(tokenizers, part, tmp_path):
    folder = Path(shutil.copytree(tokenizers["whole"], tmp_path / "tokenizer"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"][part] = "/etc/hostname"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json.* no vocab and merges"):
        load_tokenizer(folder)


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    "text",
    [
        "license: 2021-13-45", "license: " + "9" * 5000, "license: " + "[" * 100_000, f"{ALIASES}license: *i",
        "license: &x mit\nother: *x", f"license: {'x' * 300_000}", f"license: 0x{'f' * 5000}",
        f"license: {'1:' * 3000}1", 'license: x\nlicense_link: "\\ud800"',
    ],
    ids=["a date that is none", "5,000 digits", "deep", "aliases of aliases", "an alias", "long", "5,000 hex digits",
         "a number of minutes", "half a character"],
)  # fmt: skip
def test_cards_of_strangers_say_nothing(text):
    assert front_matter(f"---\n{text}\n---\n") == {}


def test_an_ordinary_card_is_read():
    """The control."""
    assert front_matter("---\nlicense: mit\nwidget:\n- text: a fox\n---\n") == {
        "license": "mit",
        "widget": [{"text": "a fox"}],
    }
