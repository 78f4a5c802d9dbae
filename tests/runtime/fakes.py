"""A bundle whose graphs are numpy formulas: drawing runs in milliseconds, without torch and without an engine.

``FakeGraphs`` stands in for ``LoadedGraphs``. It runs the formulas, checks all feeds against the manifest, and writes
down what it was asked to do. Every output depends on every input, so a wrong wire changes the picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from nano_runtime.bundle.checksums import entry_of
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import (
    FORMAT_VERSION,
    Backend,
    Component,
    Default,
    Graph,
    Licence,
    Manifest,
    Preset,
    Source,
    TensorSpec,
    TokenizerSpec,
)
from nano_runtime.bundle.reading import write_manifest
from nano_runtime.bundle.wiring import GraphForm, Task, sample_channels
from nano_runtime.engines.base import Batch, EngineOptions
from nano_runtime.engines.loaded_graphs import GraphsOfCall, LoadedGraphs
from nano_runtime.errors import MissingArgumentError, NonFiniteError, OutOfMemoryError
from nano_runtime.pipeline import Pipeline
from nano_runtime.system.timing import Stopwatch

__all__ = ["FORMULAS", "IMAGE", "LATENTS", "LENGTH", "WORDS", "FakeGraphs", "Run", "make_bundle", "pipeline_of"]

Array: TypeAlias = NDArray[Any]
Formula: TypeAlias = Callable[..., dict[str, Array]]

IMAGE, LATENTS, LENGTH, WIDTH = 32, (4, 4, 4), 8, 5
"""Pixels of a side; shape of a picture's latents; tokens of a chunk, BOS and EOS included; size of a hidden state."""
_STRIDE = IMAGE // LATENTS[1]
_WORDS = ["<pad>", "<bos>", "<eos>", "?", "a", "red", "blue", "fox", "owl", "sea", "snow", "blurry", ",", "one", "two"]
WORDS = {word: number for number, word in enumerate(_WORDS)}
"""The tokenizer's ids of words; any other word is letters, those that no word has ``?``."""

_TO_COLOURS = np.array([[0.9, -0.3, 0.2, 0.4], [0.1, 0.8, -0.5, 0.3], [-0.4, 0.2, 0.7, 0.6]])
_PREVIEW = [(0.2, 0.1, 0.0), (0.0, 0.2, 0.1), (0.1, 0.0, 0.2), (-0.1, 0.1, 0.0), (0.5, 0.4, 0.6)]


def _text_encoder(input_ids: Array) -> dict[str, Array]:
    places, channels = np.arange(LENGTH)[:, np.newaxis], np.arange(1, WIDTH + 1)
    return {"last_hidden_state": np.sin(0.7 * input_ids[..., np.newaxis] * channels + 0.1 * places)}


def _unet_prompt(encoder_hidden_states: Array) -> dict[str, Array]:
    hidden = encoder_hidden_states
    return {"key_0": np.swapaxes(hidden * hidden, 1, 2), "value_0": np.tanh(hidden) + 0.1}


def _unet_time(timestep: Array) -> dict[str, Array]:
    waves = np.array([0.3, 1.1, 2.3, 4.1])
    return {"time_0": np.cos(timestep[:, np.newaxis] / 1000 * waves)}


def _unet(sample: Array, key_0: Array, value_0: Array, time_0: Array) -> dict[str, Array]:
    sample, told = _with_seen(sample), _told(key_0, value_0, time_0)
    deep = np.tanh(0.5 * np.roll(sample[:, :2], 1, axis=(2, 3)) + told[:, 2:])  # which looks at its neighbours
    return {"out_sample": _prediction(sample, told, deep), "deep_feature": deep}


def _unet_shallow(sample: Array, key_0: Array, value_0: Array, time_0: Array, deep_feature: Array) -> dict[str, Array]:
    return {"out_sample": _prediction(_with_seen(sample), _told(key_0, value_0, time_0), deep_feature)}


def _with_seen(sample: Array) -> Array:
    """The latents, moved by the channels behind them, each of which moves each of the four by a share of its own."""
    seen = sample[:, LATENTS[0] :]
    shares = np.cos(np.arange(LATENTS[0])[:, np.newaxis] + 2.3 * np.arange(seen.shape[1]))
    return sample[:, : LATENTS[0]] + 0.3 * np.einsum("ok,nkhw->nohw", shares, seen)


def _told(key_0: Array, value_0: Array, time_0: Array) -> Array:
    """What prompt and timestep say, [rows, 4, 1, 1]; as in attention, the order of the tokens says nothing."""
    attended = (key_0 @ value_0)[:, :4, 0] / key_0.shape[2]
    return np.tanh(6 * attended + 0.2 * time_0)[:, :, np.newaxis, np.newaxis]


def _prediction(sample: Array, told: Array, deep: Array) -> Array:
    return 0.6 * sample + 0.3 * told + 0.4 * np.concatenate([deep, -deep[:, ::-1]], axis=1)


def _standard_unet(sample: Array, timestep: Array, encoder_hidden_states: Array) -> dict[str, Array]:
    return _unet(sample, **_unet_prompt(encoder_hidden_states), **_unet_time(timestep))


def _vae_decoder(latent_sample: Array) -> dict[str, Array]:
    colours = np.tanh(np.einsum("ok,nkhw->nohw", _TO_COLOURS, latent_sample) * 0.2)
    return {"sample": colours.repeat(_STRIDE, axis=2).repeat(_STRIDE, axis=3)}


def _vae_encoder(sample: Array) -> dict[str, Array]:
    side = LATENTS[1]
    colours = sample.reshape(-1, 3, side, _STRIDE, side, _STRIDE).mean(axis=(3, 5))
    mean = np.einsum("ok,nohw->nkhw", _TO_COLOURS, colours)
    return {"latent_parameters": np.concatenate([mean, mean - 4], axis=1)}


_SHARED: dict[str, Formula] = {
    "text_encoder": _text_encoder,
    "vae_encoder": _vae_encoder,
    "vae_decoder": _vae_decoder,
}
FORMULAS: Mapping[GraphForm, Mapping[str, Formula]] = {
    "hoisted": {
        **_SHARED,
        "unet_prompt": _unet_prompt,
        "unet_time": _unet_time,
        "unet": _unet,
        "unet_shallow": _unet_shallow,
    },
    "standard": {**_SHARED, "unet": _standard_unet},
}
"""The graphs of both forms, each a function of its inputs by name. They keep the precision of what they are given."""

_Shape: TypeAlias = list[int | Literal["batch", "tokens"]]
_PIXELS: _Shape = ["batch", 3, IMAGE, IMAGE]
_PROMPT: dict[str, _Shape] = {"key_0": ["batch", WIDTH, "tokens"], "value_0": ["batch", "tokens", WIDTH]}
_TIME: dict[str, _Shape] = {"time_0": [1, 4]}
_SAMPLE: dict[str, _Shape] = {"sample": ["batch", *LATENTS]}
_DEEP: dict[str, _Shape] = {"deep_feature": ["batch", 2, *LATENTS[1:]]}
_OUT: dict[str, _Shape] = {"out_sample": ["batch", *LATENTS]}
_TENSORS: dict[str, tuple[dict[str, _Shape], dict[str, _Shape]]] = {
    "text_encoder": ({"input_ids": ["batch", LENGTH]}, {"last_hidden_state": ["batch", LENGTH, WIDTH]}),
    "unet_prompt": (
        {"encoder_hidden_states": ["batch", LENGTH, WIDTH]},
        {"key_0": ["batch", WIDTH, LENGTH], "value_0": ["batch", LENGTH, WIDTH]},
    ),
    "unet_time": ({"timestep": ["batch"]}, {"time_0": ["batch", 4]}),
    "unet": ({**_SAMPLE, **_PROMPT, **_TIME}, {**_OUT, **_DEEP}),
    "unet_shallow": ({**_SAMPLE, **_PROMPT, **_TIME, **_DEEP}, _OUT),
    "vae_encoder": ({"sample": _PIXELS}, {"latent_parameters": ["batch", 2 * LATENTS[0], *LATENTS[1:]]}),
    "vae_decoder": ({"latent_sample": ["batch", *LATENTS]}, {"sample": _PIXELS}),
}
_STANDARD_UNET: tuple[dict[str, _Shape], dict[str, _Shape]] = (
    {**_SAMPLE, "timestep": [1], "encoder_hidden_states": ["batch", "tokens", WIDTH]},
    _OUT,
)


def make_bundle(folder: Path, form: GraphForm = "hoisted", **changes: Any) -> Bundle:
    """Write a bundle for the formulas and open it; ``changes`` replace fields of its manifest."""
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_text(_tokenizer(), encoding="utf-8")
    for name in ("LICENSE", *(f"{graph}.onnx" for graph in FORMULAS[form])):
        (folder / name).write_text(f"see FORMULAS in {Path(__file__).name}", encoding="utf-8")
    described: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": "formulas",
        "source": Source(model="somewhere/formulas", revision=None),
        "licence": Licence(id="apache-2.0", file="LICENSE"),
        "graph": form,
        "precision": "fp32",
        "backends": ["onnxruntime", "openvino"],
        "image_size": (IMAGE, IMAGE),
        "latent_shape": LATENTS,
        "scaling_factor": 0.25,
        "tokenizer": TokenizerSpec(file="tokenizer/tokenizer.json", length=LENGTH, pad_id=0, bos_id=1, eos_id=2),
        "scheduler": {
            "_class_name": "PNDMScheduler",
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
        },
        "guidance_scale": 3.0,
        "default": Default(scheduler="ddim", steps=4, fidelity={}),
        "preview": _PREVIEW,
        "components": {name: _component(name, form, changes.get("task", "text-to-image")) for name in FORMULAS[form]},
        "presets": _PRESETS if form == "hoisted" else {},
        "fidelity": {},
        "versions": {},
        "options": {},
        "files": [entry_of(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()],
    }
    write_manifest(folder, Manifest(**{**described, **changes}))
    return Bundle.open(folder)


_PRESETS = {
    "balanced": Preset(cache_interval=2, guidance_interval=(0.0, 0.75), work=0.5, fidelity={}),
    "fast": Preset(cache_interval=3, guidance_interval=(0.0, 0.5), work=0.3, fidelity={}),
}


def _tokenizer() -> str:
    """Return a file in CLIP's form: each word is merged of its letters, from the left."""
    vocabulary = {word if word[0] in "<?" else f"{word}</w>": number for word, number in WORDS.items()}
    merges: list[list[str]] = []
    for word in (word for word in WORDS if word[0] not in "<?"):
        letters, last = word[:-1], word[-1]
        parts = [*letters, f"{last}</w>"]
        for end in range(1, len(parts)):
            merges.append(["".join(parts[:end]), parts[end]])
            for piece in merges[-1]:
                vocabulary.setdefault(piece, len(vocabulary))
            vocabulary.setdefault("".join(parts[: end + 1]), len(vocabulary))
    splits = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = {"type": "Split", "pattern": {"Regex": splits}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    blanks = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    model = {"type": "BPE", "unk_token": "?", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": merges}
    return json.dumps(
        {
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, blanks, {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "model": model,
        }
    )


def _component(name: str, form: GraphForm, task: Task) -> Component:
    inputs, outputs = _STANDARD_UNET if (name, form) == ("unet", "standard") else _TENSORS[name]
    if name in {"unet", "unet_shallow"}:
        inputs = {**inputs, "sample": ["batch", sample_channels(task, LATENTS[0]), *LATENTS[1:]]}
    graph = Graph(model=f"{name}.onnx", weights=None)
    return Component(
        precision="fp32",
        inputs=[_spec(*tensor) for tensor in inputs.items()],
        outputs=[_spec(*tensor) for tensor in outputs.items()],
        graphs={"onnxruntime": graph, "openvino": graph},
    )


def _spec(name: str, shape: _Shape) -> TensorSpec:
    whole = name == "input_ids" or shape == [1]  # the standard form's timestep is a whole number, as diffusers' is
    return TensorSpec(name=name, dtype="int64" if whole else "float32", shape=shape)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a graph: copies of what it was given, and what it computed."""

    component: str
    feeds: dict[str, Array]
    batch: Batch
    outputs: dict[str, Array]


class FakeGraphs:
    """The formulas behind the face of ``LoadedGraphs``.

    Args:
        bundle: that ``make_bundle`` wrote.
        backend: the engine that it claims to be.
        cache: folder for what the next process may use.
        most_rows: a UNet that computes more rows at once runs out of memory; None has memory for all.
        instead: formulas that replace some of the bundle's.

    Attributes:
        runs: every run of a graph.
        log: every load, close, and beginning of work ahead, in order, as (word, component, ...).
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend = "onnxruntime",
        *,
        cache: Path | None = None,
        most_rows: int | None = None,
        instead: Mapping[str, Formula] | None = None,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.options = EngineOptions(threads=1, precision="f32", cache=cache)
        self.runs: list[Run] = []
        self.log: list[tuple[Any, ...]] = []
        self._most_rows = most_rows
        self._fails = False
        self._formulas = {**FORMULAS[bundle.manifest.graph], **({} if instead is None else instead)}
        self._loaded: dict[str, tuple[Batch, int]] = {}
        self._ahead: dict[str, tuple[Batch, int]] = {}

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._loaded)

    @property
    def waiting(self) -> frozenset[str]:
        """Names of what was loaded ahead and did not run yet."""
        return frozenset(self._ahead)

    def identity(self, component: str) -> str:
        return f"{component} of {self.bundle.digest}"

    def prepare(self, components: Iterable[str]) -> None:
        self.log.append(("prepare", *components))

    def load_ahead(self, component: str, *, batch: Batch, tokens: int = 1) -> None:
        if component not in self._loaded and component not in self._ahead:
            self._ahead[component] = (batch, tokens)
            self.log.append(("ahead", component, batch, tokens))

    def timed(self, watch: Stopwatch) -> GraphsOfCall:
        return cast("GraphsOfCall", _Timed(self, watch))

    def close(self, *components: str) -> None:
        for name in components or tuple({**self._loaded, **self._ahead}):
            if self._ahead.pop(name, None) or self._loaded.pop(name, None):
                self.log.append(("close", name))

    def kill(self) -> None:
        raise MissingArgumentError("kill()", "isolated")

    def run_out_of_memory_once(self) -> None:
        """Let the next run of the UNet find no memory, however few its rows are."""
        self._fails = True

    def ran(self, *components: str) -> list[Run]:
        """The runs of some components, of all if none is named."""
        return [run for run in self.runs if not components or run.component in components]

    def _run(self, component: str, feeds: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
        rows, tokens = self._check_feeds(component, feeds)
        least, most = (batch, batch) if isinstance(batch, int) else batch
        assert least <= rows <= most, f"{component} was to be loaded for {batch} rows and gets {rows}"
        self._load(component, (batch, tokens))
        crowded = self._most_rows is not None and rows > self._most_rows
        if component == "unet" and (crowded or self._fails):
            self._fails = False
            raise OutOfMemoryError(f"running the {component}")
        outputs = {
            name: values.astype(np.float32)
            for name, values in self._formulas[component](**{name: one.copy() for name, one in feeds.items()}).items()
        }
        for spec in self.bundle.component(component).outputs:
            assert outputs[spec.name].shape == _fixed(spec, rows, tokens), (component, spec.name)
            if not np.isfinite(outputs[spec.name]).all():
                raise NonFiniteError(component, f"output {spec.name!r}")
        self.runs.append(Run(component, {name: one.copy() for name, one in feeds.items()}, batch, outputs))
        return {name: values.copy() for name, values in outputs.items()}

    def _check_feeds(self, component: str, feeds: Mapping[str, Array]) -> tuple[int, int]:
        """Compare the inputs with the manifest; return the sizes of the free dimensions."""
        specs = {spec.name: spec for spec in self.bundle.component(component).inputs}
        assert set(feeds) == set(specs), component
        sizes = [pair for name, spec in specs.items() for pair in zip(spec.shape, feeds[name].shape, strict=True)]
        free = {"batch": 1, "tokens": 1, **{name: size for name, size in sizes if isinstance(name, str)}}
        for name, spec in specs.items():
            assert feeds[name].shape == _fixed(spec, free["batch"], free["tokens"]), (component, name)
            assert feeds[name].dtype == spec.dtype, (component, name)
        assert free["tokens"] % LENGTH == 0 or free["tokens"] == 1
        return free["batch"], free["tokens"]

    def _load(self, component: str, sizes: tuple[Batch, int]) -> None:
        """Note a load, unless the graph is there with these sizes or was loaded ahead with them."""
        if self._loaded.get(component) == sizes:
            return
        if self._ahead.get(component) == sizes:
            del self._ahead[component]
        else:
            self.close(component)
            self.log.append(("load", component, *sizes))
        self._loaded[component] = sizes


class _Timed:
    """The graphs as one call sees them."""

    over = False

    def __init__(self, graphs: FakeGraphs, watch: Stopwatch) -> None:
        self._graphs = graphs
        self._watch = watch

    def close(self, *components: str) -> None:
        self._graphs.close(*components)

    def run(self, component: str, feeds: Mapping[str, Array], *, batch: Batch) -> dict[str, Array]:
        with self._watch.time("run", component):
            return self._graphs._run(component, feeds, batch)  # noqa: SLF001 - the other half of one class


def pipeline_of(graphs: FakeGraphs, *, keep_loaded: bool = True, **options: Any) -> Pipeline:
    """Return a pipeline that draws with the formulas."""
    return Pipeline(cast("LoadedGraphs", graphs), keep_loaded=keep_loaded, **options)


def _fixed(spec: TensorSpec, batch: int, tokens: int) -> tuple[int, ...]:
    """Return the shape of a tensor with both free dimensions filled in."""
    return tuple({"batch": batch, "tokens": tokens}[size] if isinstance(size, str) else size for size in spec.shape)
