"""A config describes a network; what else it says reaches no library."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from nano_export.errors import CheckpointError
from nano_export.source import builtin
from nano_export.source.card import front_matter
from nano_export.source.network_config import network_config

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


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    "text",
    [
        "license: 2021-13-45", "license: " + "9" * 5000, "license: " + "[" * 100_000, f"{ALIASES}license: *i",
        "license: &x mit\nother: *x", f"license: {'x' * 300_000}",
    ],
    ids=["a date that is none", "5,000 digits", "deep", "aliases of aliases", "an alias", "long"],
)  # fmt: skip
def test_cards_of_strangers_say_nothing(text):
    assert front_matter(f"---\n{text}\n---\n") == {}


def test_an_ordinary_card_is_read():
    """The control."""
    assert front_matter("---\nlicense: mit\nwidget:\n- text: a fox\n---\n") == {
        "license": "mit",
        "widget": [{"text": "a fox"}],
    }
