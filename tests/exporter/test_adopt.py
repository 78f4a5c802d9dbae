"""Folders of graphs: which are recognised, how their tensors are fitted, and what is refused in words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from onnx import helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from transformers import CLIPTokenizer

from nano_export.adoption.adopting import _in_words, adopt
from nano_export.adoption.fitting import fit, sizes_of, task_for
from nano_export.adoption.folder import GraphFolder, open_folder
from nano_export.adoption.ir_graph import IrGraph
from nano_export.adoption.onnx_graph import OnnxGraph
from nano_export.adoption.tensors import Tensor, precision_of
from nano_export.adoption.tokenizer import clip_tokenizer
from nano_export.errors import AdoptionError, CheckpointError, ImageSizeError
from nano_export.source.builtin import DEMO
from nano_runtime.bundle.graph_files import IR, ONNX
from nano_runtime.bundle.manifest import TensorSpec

PROMPTS = ("a red fox", "", "Ünïcode  and\tspaces, it's 2026!", "<|endoftext|> inside", "a <cat> toy", "airplane!!! 🦊")
EOS = "<|endoftext|>"


class Graph:
    """A graph of tensors alone."""

    def __init__(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], weights: Mapping[str, int] | None = None
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.weight_bytes = {"float32": 4_000_000} if weights is None else weights

    def channels_into(self, tensor: str) -> int | None:
        """Tell nothing."""
        return 320 if tensor == "latents" else None

    def take_moments(self, output: str) -> bool:
        """Draw no noise."""
        return output != "drawn"

    def fix(self, inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
        """Take any shape."""

    def write(self, folder: Path) -> None:
        """Write nothing."""


def graphs(**changed: Graph) -> dict[str, Graph]:
    """Return the graphs of Stable Diffusion 1 as optimum writes them, sides free."""
    f32 = "float32"
    return {
        "text_encoder": Graph(
            [Tensor("input_ids", "int64", (None, None))], [Tensor("last_hidden_state", f32, (None, None, 768))]
        ),
        "unet": unet(),
        "vae_decoder": Graph(
            [Tensor("latent_sample", f32, (None, 4, None, None))], [Tensor("sample", f32, (None, 3, None, None))]
        ),
        "vae_encoder": Graph(
            [Tensor("sample", f32, (None, 3, None, None))], [Tensor("latent_parameters", f32, (None, 8, None, None))]
        ),
    } | changed


def unet(*further: Tensor, **changed: Tensor) -> Graph:
    """Return its UNet, with other inputs in place of some, and further ones."""
    inputs = {
        "sample": Tensor("sample", "float32", (None, 4, None, None)),
        "timestep": Tensor("timestep", "int64", ()),
        "encoder_hidden_states": Tensor("encoder_hidden_states", "float32", (None, None, 768)),
    } | changed
    return Graph([*inputs.values(), *further], [Tensor("out_sample", "float32", (None, 4, None, None))])


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder in optimum's layout, whose graphs are empty files."""
    write(
        tmp_path / "model_index.json",
        {"_class_name": "ORTStableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"]},
    )
    for part in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.onnx").write_bytes(b"")
    write(tmp_path / "unet/config.json", {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280]})
    write(tmp_path / "vae_decoder/config.json", {"block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.2})
    return tmp_path


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "unet_class", "exporter"),
    [
        ("ORTStableDiffusionPipeline", "UNet2DConditionModel", "optimum"),
        ("StableDiffusionPipeline", "OnnxRuntimeModel", "diffusers"),
        ("OnnxStableDiffusionPipeline", "OnnxRuntimeModel", "diffusers"),
        ("StableDiffusionOnnxPipeline", "OnnxRuntimeModel", "diffusers"),
        ("OVLatentConsistencyModelPipeline", "OVModelUnet", "optimum-intel"),
    ],
)
def test_the_tool_is_recognised(folder, name, unet_class, exporter):
    write(folder / "model_index.json", {"_class_name": name, "unet": ["any", unet_class]})
    if exporter == "optimum-intel":
        for file in folder.glob("*/model.onnx"):
            file.rename(file.with_name("openvino_model.xml"))
    found = open_folder(folder)
    assert found.exporter == exporter
    assert found.format == (IR if exporter == "optimum-intel" else ONNX)
    assert [*found.graphs] == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def index(name: str) -> Callable[[Path], None]:
    return lambda folder: write(folder / "model_index.json", {"_class_name": name})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (index("ORTStableDiffusionXLPipeline"), "its pipeline is ORTStableDiffusionXLPipeline"),
        (index("OVStableDiffusion3Pipeline"), "its pipeline is OVStableDiffusion3Pipeline"),
        (index("OVFluxPipeline"), "its pipeline is OVFluxPipeline"),
        (remove("model_index.json"), "model_index.json is missing"),
        (remove("unet/model.onnx"), "it has neither unet/model.onnx nor unet/openvino_model.xml"),
        (remove("vae_decoder/model.onnx"), "vae_decoder/model.onnx is missing"),
        (lambda folder: write(folder / "manifest.json", {}), "it is a bundle of Nano already"),
    ],
)
def test_other_folders_are_refused(folder, change, why):
    change(folder)
    with pytest.raises(AdoptionError, match=why):
        open_folder(folder)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(AdoptionError, match="has to be downloaded first"):
        open_folder(tmp_path / "someone/sd-onnx")


def test_a_damaged_graph_is_refused_and_nothing_is_written(folder):
    write(
        folder / "scheduler/scheduler_config.json", json.loads((DEMO / "scheduler/scheduler_config.json").read_text())
    )
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer").mkdir(exist_ok=True)
        (folder / "tokenizer" / name).write_bytes((DEMO / "tokenizer" / name).read_bytes())
    (folder / "text_encoder/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(AdoptionError, match="it cannot be read"):
        list(adopt(folder, folder / "bundle"))
    assert not (folder / "bundle").exists()


def test_weights_that_end_too_early_are_refused(folder, tmp_path):
    """An ONNX graph whose external data is shorter than it says."""
    file = folder / "unet/model.onnx"
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 64])],
        [weights],
    )
    onnx.save_model(helper.make_model(graph), file, save_as_external_data=True, location="weights.pb", size_threshold=0)
    (file.parent / "weights.pb").write_bytes(b"short")
    with pytest.raises(AdoptionError, match="cannot be written"), _in_words(file, "it cannot be written"):
        OnnxGraph(file).write(tmp_path / "written")


def test_sizes_come_from_graphs_then_from_the_caller_then_from_configs(folder):
    found = open_folder(folder)
    assert sizes_of(found, graphs(), 77, None).pixels == (512, 512)
    assert sizes_of(found, graphs(), 77, 256).pixels == (256, 256)
    wide = graphs(unet=unet(sample=Tensor("sample", "float32", (None, 4, 32, 64))))
    assert sizes_of(found, wide, 77, None).pixels == (256, 512)
    with pytest.raises(AdoptionError, match="draw 256 pixels, not 512"):
        sizes_of(found, wide, 77, 512)
    with pytest.raises(ImageSizeError):
        sizes_of(found, graphs(), 77, 100)
    sizes = sizes_of(found, graphs(), None, None)
    assert (sizes.length, sizes.tokens, sizes.width, sizes.latents) == (77, "tokens", 768, (4, 64, 64))


def test_a_size_that_halves_with_a_rest_is_taken_where_the_graphs_were_traced_at_one(folder):
    found = open_folder(folder)
    with pytest.raises(ImageSizeError, match="72"):  # they double: 9 would become 5, then 10
        sizes_of(found, graphs(), 77, 72)
    write(folder / "unet/config.json", {"sample_size": 9, "block_out_channels": [320, 640, 1280, 1280]})
    found = open_folder(folder)
    assert sizes_of(found, graphs(), 77, None).latents == (4, 9, 9)
    assert sizes_of(found, graphs(), 77, 88).pixels == (88, 88)
    with pytest.raises(ImageSizeError, match="76"):
        sizes_of(found, graphs(), 77, 76)


def test_a_graph_that_was_traced_at_a_size_with_a_rest_draws_others_too(tmp_path):
    """With torch's older tracer, as optimum and diffusers' script use it; the other way round it draws nothing."""
    levels = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "attention_head_dim": 4, "layers_per_block": 1}
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    unet = UNet2DConditionModel(
        **levels, cross_attention_dim=8, down_block_types=down, up_block_types=up, mid_block_type=None
    ).eval()
    unet.set_attn_processor(AttnProcessor())
    names = ["sample", "timestep", "encoder_hidden_states"]
    sides = {"sample": {2: "height", 3: "width"}}

    def inputs(side: int) -> tuple[torch.Tensor, ...]:
        noise = torch.Generator().manual_seed(side)
        return torch.randn(1, 4, side, side, generator=noise), torch.tensor(9), torch.randn(1, 5, 8, generator=noise)

    def far(traced: int, side: int) -> float:
        path = tmp_path / f"{traced}.onnx"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    unet, inputs(traced), path, input_names=names, dynamic_axes=sides, opset_version=17, dynamo=False
                )
        session = onnxruntime.InferenceSession(path)
        found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs(side), strict=True)})[0]
        with torch.no_grad():
            return float(np.abs(found - unet(*inputs(side))[0].numpy()).max())

    assert max(far(9, side) for side in (9, 10, 11, 12)) < 1e-5
    with pytest.raises(Fail):
        far(12, 9)


def test_a_unet_with_the_guidance_scale_as_an_input_is_taken(folder):
    """LCM's."""
    found, lcm = open_folder(folder), unet(Tensor("timestep_cond", "float32", (None, 256)))
    fitted = fit(found, "unet", lcm, sizes_of(found, graphs(unet=lcm), 77, None))
    assert [tensor.name for tensor in fitted.inputs] == ["sample", "timestep", "encoder_hidden_states", "timestep_cond"]
    assert fitted.inputs[3].shape == ["batch", 256]


@pytest.mark.parametrize(("channels", "task"), [(4, "text-to-image"), (9, "inpainting"), (8, "instruct-pix2pix")])
def test_the_channels_tell_the_task(folder, channels, task):
    found = open_folder(folder)
    changed = graphs(unet=unet(sample=Tensor("sample", "float32", (None, channels, None, None))))
    assert task_for(found, sizes_of(found, changed, 77, None)) == task


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (unet(Tensor("text_embeds", "float32", (None, 1280))), "takes 'text_embeds'"),
        (unet(sample=Tensor("sample", "float32", (2, 4, None, None))), "fixed at a batch of 2"),
        (unet(sample=Tensor("sample", "float64", (None, 4, None, None))), "has the type float64"),
        (unet(timestep=Tensor("timestep", "int64", (None, 1))), "has 2 dimensions, not 1"),
        (
            unet(encoder_hidden_states=Tensor("encoder_hidden_states", "float32", (None, None))),
            "has 2 dimensions, not 3",
        ),
        (Graph([Tensor("latents", "float32", (None, 4, 64, 64))], []), "the graph has no input 'sample'"),
    ],
)
def test_other_tensors_are_refused_by_name(folder, changed, why):
    found = open_folder(folder)
    with pytest.raises(AdoptionError, match=why):
        fit(found, "unet", changed, sizes_of(found, graphs(unet=changed), 77, None))


@pytest.mark.parametrize(
    ("weights", "precision"),
    [
        ({"float32": 400}, "fp32"),
        ({"float16": 400, "float32": 100}, "fp16"),
        ({"int8": 400, "float16": 100, "float32": 60}, "int8"),
        ({"float32": 400, "int8": 90}, "fp32"),
    ],
)
def test_the_precision_is_that_of_most_weights(weights, precision):
    assert precision_of(Graph([], [], weights)) == precision


def test_weights_of_four_bits_are_refused():
    with pytest.raises(ValueError, match="u4"):
        precision_of(Graph([], [], {"u4": 400, "float16": 50}))


@pytest.fixture
def vocabulary(tmp_path) -> Path:
    """The demo's vocabulary and merges, without configs."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((DEMO / "tokenizer" / name).read_bytes())
    return tmp_path


TOKEN = {"lstrip": False, "rstrip": False, "single_word": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "none": {},
    "config": {"tokenizer_config.json": {"pad_token": "!", "model_max_length": 77}},
    "the map wins": {"tokenizer_config.json": {"pad_token": EOS}, "special_tokens_map.json": {"pad_token": "!"}},
    "added tokens win over the map": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"952": {"content": EOS, "normalized": True, "special": True, **TOKEN}}
        },
        "special_tokens_map.json": {"pad_token": "!"},
    },
    "an embedding": {"added_tokens.json": {"<cat>": 953, "<cat>_1": 954}},
    "an embedding in the config": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "953": {"content": "<cat>", "normalized": True, "special": False, **TOKEN},
                "952": {"content": EOS, "normalized": False, "special": True, **TOKEN},
            }
        }
    },
}


@pytest.mark.parametrize("files", CONFIGS.values(), ids=CONFIGS)
def test_ids_are_those_of_transformers(vocabulary, files):
    for name, content in files.items():
        write(vocabulary / name, content)
    ours, theirs = clip_tokenizer(vocabulary), CLIPTokenizer.from_pretrained(vocabulary, local_files_only=True)
    assert [ours.encoder.encode(prompt).ids for prompt in PROMPTS] == [theirs(prompt).input_ids for prompt in PROMPTS]
    special = (ours.pad_id, ours.bos_id, ours.eos_id)
    assert special == (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id)


def test_words_of_several_vectors_are_found(vocabulary):
    write(vocabulary / "added_tokens.json", {"<cat>": 953, "<cat>_1": 954, "<dog>": 955, "<cat>_2": 956})
    assert clip_tokenizer(vocabulary).words == {"<cat>": [953, 954, 956]}


def test_a_tokenizer_of_transformers_5_alone_is_read(vocabulary, tmp_path):
    theirs = CLIPTokenizer.from_pretrained(vocabulary, local_files_only=True)
    theirs.save_pretrained(tmp_path / "new")
    ours = clip_tokenizer(tmp_path / "new")
    assert [ours.encoder.encode(prompt).ids for prompt in PROMPTS] == [theirs(prompt).input_ids for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("merges.txt", None, "it is missing"),
        ("vocab.json", "[]", "not a JSON object"),
        ("merges.txt", "a b c\n", "the merge 'a b c' is no pair"),
        ("tokenizer_config.json", '{"padding_side": "left"}', "padding_side is 'left'"),
    ],
)
def test_a_damaged_tokenizer_is_refused(vocabulary, name, content, why):
    if content is None:
        (vocabulary / name).unlink()
    else:
        (vocabulary / name).write_text(content)
    with pytest.raises(CheckpointError, match=why):
        clip_tokenizer(vocabulary)


def test_the_folder_of_a_config_without_scale_has_the_one_of_diffusers(folder):
    found = open_folder(folder)
    assert found.vae("scaling_factor", 0.18215) == 0.2
    (folder / "vae_decoder/config.json").unlink()
    assert found.vae("scaling_factor", 0.18215) == 0.18215
    assert isinstance(found, GraphFolder)


def test_a_pointer_in_place_of_weights_is_refused(folder):
    (folder / "unet/model.onnx_data").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        open_folder(folder)


def test_weights_that_are_a_link_to_a_file_of_the_user_are_refused(folder, tmp_path_factory):
    """Any file can be read as raw weights, and the bundle with them would be published."""
    mine = tmp_path_factory.mktemp("home") / "mine"
    mine.write_text("secret")
    weights = folder / "unet" / "model.onnx_data"
    weights.symlink_to(mine)
    with pytest.raises(CheckpointError, match=r"model\.onnx_data .* a link to a file elsewhere"):
        open_folder(folder)
    weights.unlink()
    (folder / "here").write_text("weights")
    weights.symlink_to(folder / "here")
    assert open_folder(folder).format == ONNX  # the control


def test_an_ir_is_read_as_one(tmp_path):
    """OpenVINO would read this as ONNX, with weights wherever it says."""
    path = tmp_path / "openvino_model.xml"
    onnx.save(helper.make_model(helper.make_graph([], "graph", [], [])), path)
    with pytest.raises(ValueError, match="no IR"):
        IrGraph(path)
