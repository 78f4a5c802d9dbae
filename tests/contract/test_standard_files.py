"""What optimum-onnx, optimum-intel and openvino-genai look for in a folder, in a standard bundle.

``make interop`` draws with the libraries themselves; these tests hold what they read.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import onnx
import openvino
import pytest
from openvino_tokenizers import _ext_path
from transformers import CLIPTokenizer

from nano_export import cli
from nano_export.bundle.facts import OPENVINO_TOKENIZER
from nano_export.exporting import Exported
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Change

PROMPTS = ("a red fox", "", "Ünïcode  and\tspaces, it's 2026!", "the otter re-enters; (thing:1.2)")


@pytest.fixture(scope="module")
def tokenizer(sd1) -> CLIPTokenizer:
    """The bundle's own ``tokenizer.json``."""
    return CLIPTokenizer.from_pretrained(sd1 / "tokenizer", local_files_only=True)


def test_each_graph_has_the_inputs_of_its_readers(sd1):
    """optimum-onnx feeds a scalar timestep, optimum-intel and openvino-genai one of shape [1]; both are integers."""
    inputs = {value.name: value.type.tensor_type for value in onnx.load(sd1 / "unet/model.onnx").graph.input}
    assert [*inputs] == ["sample", "timestep", "encoder_hidden_states"]
    assert not inputs["timestep"].shape.dim
    assert inputs["timestep"].elem_type == onnx.TensorProto.INT64
    ports = openvino.Core().read_model(sd1 / "unet/openvino_model.xml").inputs
    assert [port.any_name for port in ports] == [*inputs]
    assert list(ports[1].partial_shape.to_shape()) == [1]
    assert ports[1].element_type == openvino.Type.i64


def test_the_manifest_says_that_one_engine_takes_a_scalar(sd1):
    unet = Bundle.open(sd1).component("unet")
    assert [tensor.shape for tensor in unet.inputs][1] == [1]
    own = unet.graphs["onnxruntime"].inputs
    assert own is not None
    assert own[1].shape == []
    assert unet.graphs["openvino"].inputs is None


def test_the_vocabulary_alone_gives_the_same_ids(sd1, tokenizer, tmp_path):
    """transformers 4's tokenizer, which optimum-onnx 0.1 takes, reads these two files and no ``tokenizer.json``."""
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(sd1 / "tokenizer" / name, tmp_path)
    alone = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert [alone(prompt).input_ids for prompt in PROMPTS] == [tokenizer(prompt).input_ids for prompt in PROMPTS]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    without_merges = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert without_merges("the otter").input_ids != tokenizer("the otter").input_ids


def test_openvino_genai_gets_a_tokenizer(sd1, tokenizer):
    """The graphs are run as openvino-genai runs them: with the package's library of operators."""
    core = openvino.Core()
    core.add_extension(str(_ext_path))
    encode = core.compile_model(sd1 / "tokenizer/openvino_tokenizer.xml", "CPU")
    decode = core.compile_model(sd1 / "tokenizer/openvino_detokenizer.xml", "CPU")
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        assert encode([prompt])["input_ids"].tolist() == [ids]
        assert (
            decode([ids])[0].tolist()[0].replace("</w>", " ").split()
            == tokenizer.decode(ids, skip_special_tokens=True).replace("</w>", " ").split()
        )


def test_the_configs_are_those_of_the_checkpoint(sd1, sd1_checkpoint):
    """Each part has its own beside its graph; the decoder's has the scale that openvino-genai divides by."""
    for part, origin in {
        "text_encoder": "text_encoder",
        "unet": "unet",
        "vae_decoder": "vae",
        "vae_encoder": "vae",
    }.items():
        config, original = (
            json.loads((folder / "config.json").read_text()) for folder in (sd1 / part, sd1_checkpoint / origin)
        )
        for key in (
            "in_channels",
            "sample_size",
            "cross_attention_dim",
            "scaling_factor",
            "block_out_channels",
            "hidden_size",
        ):
            assert config.get(key) == original.get(key), (part, key)
        assert "_name_or_path" not in config
    index = json.loads((sd1 / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["scheduler"] == [
        "diffusers",
        json.loads((sd1 / "scheduler/scheduler_config.json").read_text())["_class_name"],
    ]


def test_the_report_says_what_openvino_genai_lacks(sd1, fp32, tmp_path, capsys):
    """Without the package ``openvino_tokenizers``, a standard bundle has no tokenizer for it."""
    without = shutil.copytree(sd1, tmp_path / "without", copy_function=os.link)
    (without / OPENVINO_TOKENIZER).unlink()
    said = {}
    for bundle in (sd1, fp32, without):
        with patch("nano_export.exporting.export", lambda options: iter([Exported(options.output, {}, 0)])):
            assert cli.main(["tiny", "-o", str(bundle), "--force"]) == 0
        said[bundle] = "openvino-genai needs" in capsys.readouterr().out
    assert said == {sd1: False, fp32: False, without: True}


def test_the_report_says_what_a_better_plan_costs(tmp_path, capsys):
    change = Change(component="unet", layer="conv_in/Conv", scheme="float", reason="half of the error", share=0.004)
    spared = Change(component="vae_decoder", layer="up/Conv", scheme="w8a8", reason="the goal is met", share=0.06)
    said = []
    for changes in ((), (change, spared), (change,) * 12):
        exported = Exported(tmp_path, {}, 0, changes)
        with patch("nano_export.exporting.export", lambda _options, made=exported: iter([made])):
            assert cli.main(["tiny", "-o", str(tmp_path / "bundle")]) == 0
        said.append(capsys.readouterr().out.splitlines()[1:])
    nothing, two, twelve = said
    assert nothing == []
    assert two == [
        "layers in another scheme than the plan's: 2; arithmetic in floats: unet +0.4%, vae_decoder -6.0%",
        "  unet conv_in/Conv: float, 0.4%, half of the error",
        "  vae_decoder up/Conv: w8a8, 6.0%, the goal is met",
    ]
    assert len(twelve) == 12
    assert twelve[-1] == "  and 2 more, which nano-bundle info lists"


def test_a_hoisted_bundle_has_none_of_these_files(fp32):
    """They would lead another library to graphs that it cannot call."""
    assert [path.name for path in Path(fp32).glob("**/*.json") if path.name == "config.json"] == []
    assert not (fp32 / "model_index.json").exists()
    assert [path.name for path in (fp32 / "tokenizer").iterdir()] == ["tokenizer.json"]
