"""INT8 bundles: how near they stay to fp32, and that the engines really compute in integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
from tests.results import arrays

from nano_export.judge.metrics import psnr_db
from nano_export.quantize import PLANS, Rule
from nano_export.quantize.plan import Scheme, scheme_for
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.engines import BACKENDS, EngineOptions
from nano_runtime.engines import onnxruntime as door
from nano_runtime.engines import openvino as openvino_door
from nano_runtime.engines.base import CheckedGraph
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.machine import describe_machine
from nano_runtime.system.processors import usable_cores

OPTIONS = EngineOptions(threads=usable_cores(), precision="f32")
QUANTIZED = ("text_encoder", "unet", "vae_decoder", "vae_encoder")  # those with integer arithmetic
# Random weights score 33 dB in the UNet; a wrong scale, a saturated product or a swapped axis less than 15 dB.
LEAST_DB = 25.0
# Between the same graph as written and fused: 41 dB and more here. Saturated products bring the UNet below 25 dB.
LEAST_FUSED_DB = 35.0
PROMPTS = ("a red fox", "a lighthouse")


@pytest.fixture(scope="module")
def inputs(fp32) -> dict[str, dict[str, np.ndarray]]:
    """What every graph gets while the fp32 bundle draws: two prompts, one timestep, two final latents, two pictures."""
    stages = LoadedGraphs(Bundle.open(fp32), "onnxruntime", OPTIONS)
    manifest = stages.bundle.manifest
    drawn = Pipeline(stages, keep_loaded=True)(PROMPTS, seed=1, num_inference_steps=8, output_type="latent")
    latents = arrays(drawn)
    feeds: dict[str, dict[str, np.ndarray]] = {
        "text_encoder": {"input_ids": np.random.default_rng(0).integers(0, 1000, (2, 77))},
        "unet_time": {"timestep": np.array([500], np.float32)},
        "vae_decoder": {"latent_sample": latents / np.float32(manifest.scaling_factor)},
    }
    (hidden,) = stages.run("text_encoder", feeds["text_encoder"], batch=2).values()
    feeds["unet_prompt"] = {"encoder_hidden_states": hidden}
    feeds["unet"] = {"sample": latents}
    feeds["unet"] |= stages.run("unet_prompt", feeds["unet_prompt"], batch=2)
    feeds["unet"] |= stages.run("unet_time", feeds["unet_time"], batch=1)
    (decoded,) = stages.run("vae_decoder", feeds["vae_decoder"], batch=2).values()
    feeds["vae_encoder"] = {"sample": np.clip(decoded, -1, 1)}
    stages.close()
    return feeds


def prediction(bundle: Path, backend: Backend, inputs: dict[str, dict[str, np.ndarray]], compiled: Path) -> np.ndarray:
    """What the UNet makes of token ids, a timestep and latents, through all four graphs that lead there."""
    stages = LoadedGraphs(Bundle.open(bundle), backend, replace(OPTIONS, cache=compiled))
    (hidden,) = stages.run("text_encoder", inputs["text_encoder"], batch=2).values()
    feeds = stages.run("unet_prompt", {"encoder_hidden_states": hidden}, batch=2)
    feeds |= stages.run("unet_time", inputs["unet_time"], batch=1)
    feeds["sample"] = inputs["unet"]["sample"]
    predicted = stages.run("unet", feeds, batch=2)["out_sample"]
    stages.close()
    return predicted


def optimized(model: Path, target: Path, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    """A session as the runtime's, that also writes the graph it made of the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", 2)
    return onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=door._DISABLED_OPTIMIZERS,  # noqa: SLF001
    )


def floats(bundle: Path, component: str, op_type: str) -> int:
    """How many nodes of a kind the plan leaves in float."""
    names = [str(node.name) for node in ir.load(bundle / component / "model.onnx").graph if node.op_type == op_type]
    return sum(scheme_for(rules_of(bundle, component), name) == "float" for name in names)


def rules_of(bundle: Path, component: str) -> tuple[Rule, ...]:
    """The plan with what was changed for this checkpoint, by the manifest."""
    quantization = Bundle.open(bundle).manifest.quantization
    assert quantization is not None
    schemes: dict[str, Scheme] = {"w8a8": "w8a8", "w8": "w8", "float": "float"}
    changes = [change for change in quantization.changes if change.component == component]
    changed = [Rule(change.layer, schemes[change.scheme], change.reason) for change in changes]
    return (*changed, *PLANS["w8a8"][component])


def planned(bundle: Path, component: str, kind: str) -> int:
    """How many layers of a kind have an activation and a weight on an integer grid, by the manifest."""
    work = Bundle.open(bundle).manifest.components[component].work
    return sum(group.layers for group in work if (group.kind, group.arithmetic) == (kind, "int8"))


def openvino_kernels(bundle: Path, component: str) -> Counter[tuple[str, bool]]:
    """How many layers of each kind OpenVINO runs, by whether the kernel it chose computes in integers."""
    core = openvino.Core()
    graph = core.read_model(bundle / component / "openvino_model.xml")
    shapes = {
        port: [2 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
        for port in graph.inputs
    }
    graph.reshape({port: openvino.PartialShape(shape) for port, shape in shapes.items()})
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(str(layer["layerType"].value), str(layer["primitiveType"].value)) for layer in layers]
    return Counter((kind, kernel.lower().endswith("_i8")) for kind, kernel in kinds)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_draws_nearly_the_same_picture(fp32, int8, backend, compiled):
    pictures = [
        arrays(
            Pipeline.from_pretrained(bundle, backend, keep_loaded=False, keep_prompts=False, cache=compiled)(
                "a red fox", seed=1, num_inference_steps=8, output_type="np"
            )
        )
        for bundle in (fp32, int8)
    ]
    assert LEAST_DB < psnr_db(pictures[1], pictures[0], 1.0) < 60  # and not the same one: it is another arithmetic


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_unet_stays_near_fp32(fp32, int8, backend, compiled, inputs):
    expected, actual = (prediction(bundle, backend, inputs, compiled) for bundle in (fp32, int8))
    peak = float(expected.max() - expected.min())
    assert psnr_db(actual, expected, peak) > LEAST_DB
    assert psnr_db(actual[::-1], expected, peak) < LEAST_DB  # negative control: the other sample's


def test_the_manifest_tells_each_graphs_distance(int8):
    components = Bundle.open(int8).manifest.components
    for name in QUANTIZED:
        scores = components[name].fidelity
        assert all(LEAST_DB < scores[f"{backend}.psnr_db"] < 60 for backend in BACKENDS), name


def test_every_rule_of_the_plan_names_a_layer(fp32):
    """A rule that matches nothing is a mistake in its pattern; matching is by the float graphs' names."""
    for component, rules in PLANS["w8a8"].items():
        names = [str(node.name) for node in ir.load(fp32 / component / "model.onnx").graph]
        decisive = {next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None) for name in names}
        assert set(rules) <= decisive, component


@pytest.mark.parametrize(
    "component", ["text_encoder", "unet_prompt", "unet_time", "unet", "vae_decoder", "vae_encoder"]
)
def test_weights_that_meet_integers_lie_in_half_the_int8_range(int8, component):
    graph = ir.load(int8 / component / "model.onnx").graph
    values = [one.const_value for one in graph.initializers.values() if str(one.name).endswith(".int8")]
    weights = {value.name: value.numpy() for value in values if value is not None}
    assert len(weights) == len(values) > 0
    largest = {name: int(np.abs(weight.astype(int)).max()) for name, weight in weights.items()}
    alone = {name for name in weights if component in {"unet_prompt", "unet_time"} or "embedding" in str(name)}
    assert {largest[name] for name in alone} <= {127}
    assert {largest[name] for name in weights.keys() - alone} <= {63}
    assert all(weight.dtype == np.int8 for weight in weights.values())


@pytest.mark.parametrize("component", QUANTIZED)
def test_onnxruntime_fuses_all_integer_layers(int8, component, tmp_path):
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    optimized(int8 / component / "model.onnx", tmp_path / "optimized.onnx", level)
    counts = Counter(node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph)
    assert counts["QLinearConv"] == planned(int8, component, "conv")
    assert counts["MatMulIntegerToFloat"] == planned(int8, component, "matmul")
    assert counts["Conv"] + counts["FusedConv"] == floats(int8, component, "Conv")
    least = 5 if component == "text_encoder" else 10  # of its twelve layers, the search may leave some in floats
    assert counts["QLinearConv"] + counts["MatMulIntegerToFloat"] > least
    masked = component == "text_encoder"  # its attention stays as it was traced
    assert (counts["Softmax"] > 0, counts["MultiHeadAttention"] > 0) == (masked, not masked)


def test_the_count_of_fused_layers_can_fail(fp32, int8, tmp_path):
    """Negative control: the float bundle has none of the integer kernels."""
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    optimized(fp32 / "unet" / "model.onnx", tmp_path / "optimized.onnx", level)
    counts = Counter(node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph)
    assert counts["QLinearConv"] == counts["MatMulIntegerToFloat"] == counts["MultiHeadAttention"] == 0
    assert counts["Conv"] + counts["FusedConv"] > floats(int8, "unet", "Conv")


@pytest.mark.parametrize("component", QUANTIZED)
def test_openvino_runs_all_integer_layers_in_integers(fp32, int8, component):
    integer, floating = openvino_kernels(int8, component), openvino_kernels(fp32, component)
    assert integer["Convolution", True] == planned(int8, component, "conv")
    assert integer["Convolution", False] == floats(int8, component, "Conv")
    assert integer["FullyConnected", True] == planned(int8, component, "matmul")
    assert not [key for key in floating if key[1]]  # negative control


@pytest.mark.parametrize("component", QUANTIZED)
def test_integer_kernels_do_not_saturate(int8, component, inputs, tmp_path):
    """The fused graph on integer kernels against the same file node by node, where every product is in float32.

    Without VNNI, kernels add pairs of u8 x s8 products in 16 bits; weights in [-63, 63] are what keeps that exact.
    The two differ where a sum lies near the middle of two steps of an output grid, which later layers spread.
    """
    levels = onnxruntime.GraphOptimizationLevel
    outputs = [
        optimized(int8 / component / "model.onnx", tmp_path / "optimized.onnx", level).run(None, inputs[component])[0]
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    ]
    peak = float(outputs[0].max() - outputs[0].min())
    score = psnr_db(outputs[1], outputs[0], peak)
    assert score > LEAST_FUSED_DB, describe_machine().isa


# Arithmetic that is the same on every processor


def rounded_in_groups(values: np.ndarray, size: int = 32) -> np.ndarray:
    """As engines may round the activations of products with INT8 weights alone: 8 bits and a scale for each group."""
    groups = np.split(values, range(size, values.shape[-1], size), axis=-1)
    steps = [np.abs(group).max(-1, keepdims=True) / 127 for group in groups]
    return np.concatenate([np.rint(group / step) * step for group, step in zip(groups, steps, strict=True)], axis=-1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("component", ["unet_prompt", "unet_time"])
def test_weights_alone_are_computed_as_written(int8, backend, component, inputs, tmp_path):
    """Both engines can round activations to 8 bits there, but do so on some processors only."""
    graphs = LoadedGraphs(Bundle.open(int8), backend, OPTIONS)
    feeds = {name: np.resize(values, (2, *values.shape[1:])) for name, values in inputs[component].items()}
    actual = graphs.run(component, feeds, batch=2)
    graphs.close()
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    written = optimized(int8 / component / "model.onnx", tmp_path / "written.onnx", level)
    names = [output.name for output in written.get_outputs()]

    def furthest(feeds: dict[str, np.ndarray]) -> float:
        expected = written.run(names, feeds)
        pairs = [(actual[name], values) for name, values in zip(names, expected, strict=True)]
        return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)

    assert furthest(feeds) < 1e-5  # sums in another order
    if component == "unet_prompt":
        control = {name: rounded_in_groups(values) for name, values in feeds.items()}
        assert furthest(control) > 1e-3


def test_openvino_is_told_to_round_no_activations(int8):
    """Its default is groups of 32, which only shows on processors with VNNI."""
    key = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
    bundle, name = Bundle.open(int8), "unet_prompt/openvino_model"
    checked = CheckedGraph(int8 / f"{name}.xml", bundle.content(f"{name}.xml"), "", bundle.held(f"{name}.bin"))
    session = openvino_door.open_graph(checked, batch=1, tokens=77, options=OPTIONS)
    compiled = session._compiled  # noqa: SLF001 - what was asked for
    assert compiled is not None
    assert compiled.get_property(key) == 0
    assert openvino.Core().compile_model(int8 / "unet_prompt" / "openvino_model.xml", "CPU").get_property(key) > 0


@pytest.mark.parametrize("component", [*QUANTIZED, "unet_prompt", "unet_time"])
def test_no_graph_chooses_scales_while_it_runs(int8, component):
    """Operators that round activations by what they see leave open how, and each kind of processor has its own way."""
    graph = ir.load(int8 / component / "model.onnx").graph
    names = [
        node.op_type for node in graph if node.op_type.startswith("Dynamic") or "accuracy_level" in node.attributes
    ]
    assert not names
