"""The rules that a manifest of the right types must also keep: safe names, and parts that fit each other.

A new rule is one function and one line in ``RULES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

from nano_runtime.bundle.graph_files import FORMATS, IR
from nano_runtime.bundle.manifest import MANIFEST_NAME, Component, Manifest, TensorSpec
from nano_runtime.bundle.safe_paths import collision, fault_of_name
from nano_runtime.bundle.shapes import SHAPE_RULES
from nano_runtime.bundle.wiring import (
    UNET,
    UNET_SHALLOW,
    UNET_TIME,
    VAE_ENCODER,
    FreeDimension,
    Wiring,
    required_graphs,
    wiring_of,
)

__all__ = ["RULES", "first_contradiction"]

_MAX_ELEMENTS: Final = 1 << 28  # of one tensor with a batch of 1; the full-size model's largest has 0.1 million
_FED: Final = ("float32", "int64")  # what the runtime feeds and takes; an engine's own tensors may have half of it
_SHOWN: Final = 200  # characters of a name in a message


def first_contradiction(manifest: Manifest) -> str | None:
    """Return the first thing in a manifest that cannot be true or is not safe, as a message; None for a good one."""
    return next((found for rule in RULES if (found := rule(manifest)) is not None), None)


def files_are_listed_once(manifest: Manifest) -> str | None:
    """Refuse two entries for one path."""
    return None if len(_listed(manifest)) == len(manifest.files) else "a file is listed twice"


def paths_are_safe(manifest: Manifest) -> str | None:
    """Refuse a path that leaves the bundle, or means another file on another system."""
    for name in _paths_in(manifest):
        if (fault := fault_of_name(name)) is not None:
            return f"the path {name[:_SHOWN]!r} {fault}"
    return None


def files_have_checksums(manifest: Manifest) -> str | None:
    """Require an entry for every file that the manifest mentions."""
    listed = _listed(manifest)
    return next((f"the file {name!r} has no checksum" for name in _paths_in(manifest) if name not in listed), None)


def names_differ_on_all_systems(manifest: Manifest) -> str | None:
    """Refuse two names that are one file where case does not count; the manifest's own name is taken."""
    pair = collision([MANIFEST_NAME, *sorted(_listed(manifest))])
    return None if pair is None else f"{pair[0]!r} and {pair[1]!r} are one file on some systems"


def graphs_are_there(manifest: Manifest) -> str | None:
    """Require the graphs that draw a picture from a prompt, at every quality that the bundle offers."""
    missing = (name for name in _required(manifest) if name not in manifest.components)
    return next((f"the component {name!r} is missing" for name in missing), None)


def graphs_serve_all_engines(manifest: Manifest) -> str | None:
    """Require each of those graphs for every engine that the bundle claims to serve."""
    for name in _required(manifest):
        for backend in manifest.backends:
            if backend not in manifest.components[name].graphs:
                return f"the component {name!r} has no graph for {backend}"
    return None


def files_are_where_engines_look(manifest: Manifest) -> str | None:
    """Refuse a graph or weights that an engine would look for elsewhere than the manifest says."""
    return _first_of_components(manifest, _misplaced)


def tensors_are_believable(manifest: Manifest) -> str | None:
    """Refuse tensors of one name, and tensors that fit no memory."""
    return _first_of_components(manifest, _unbelievable)


def own_tensors_match(manifest: Manifest) -> str | None:
    """Require that the tensors of an engine's own graph can be made of the component's, and the other way round."""
    return _first_of_components(manifest, _unlike)


def tensors_join_graphs(manifest: Manifest) -> str | None:
    """Require that the UNet takes all that it is fed and nothing else, and the shallow one nothing else."""
    stray = {
        *_strangers(manifest, UNET),
        *(_fed(manifest, wiring_of(manifest.graph, UNET)) - _inputs(manifest, UNET)),
        *(_strangers(manifest, UNET_TIME) if manifest.graph == "hoisted" else ()),
        *(_strangers(manifest, UNET_SHALLOW) if UNET_SHALLOW in manifest.components else ()),
    }
    return next((f"the tensor {name!r} joins no two graphs" for name in sorted(stray)), None)


def pictures_can_be_encoded(manifest: Manifest) -> str | None:
    """Require the encoder where the UNet sees a picture."""
    if manifest.task == "text-to-image" or VAE_ENCODER in manifest.components:
        return None
    return f"the component {VAE_ENCODER!r} is missing, and {manifest.task} needs it"


def embeddings_have_their_own_ids(manifest: Manifest) -> str | None:
    """Refuse two words of textual inversions that begin with the same id."""
    first = [ids[0] for ids in manifest.tokenizer.embeddings.values()]
    return None if len(set(first)) == len(first) else "two words of textual inversions have one id"


def preview_fits_the_latents(manifest: Manifest) -> str | None:
    """Require one row of colours for each channel, and one to add."""
    channels = manifest.latent_shape[0]
    if manifest.preview is None or len(manifest.preview) == channels + 1:
        return None
    return f"preview has {len(manifest.preview)} rows for {channels} channels and one to add"


def intervals_are_in_order(manifest: Manifest) -> str | None:
    """Refuse a preset whose guidance ends before it begins."""
    for name, preset in manifest.presets.items():
        begin, end = preset.guidance_interval
        if begin > end:
            return f"the guidance interval of {name!r} ends before it begins"
    return None


def quantization_is_of_these_graphs(manifest: Manifest) -> str | None:
    """Refuse a record of quantization that speaks of other graphs, or of a quantizer that does not serve an engine."""
    quantization = manifest.quantization
    if quantization is None:
        return None
    if manifest.precision != "int8":
        return f"there is a quantization, and the precision is {manifest.precision}"
    named = (*quantization.goal_db, *(change.component for change in quantization.changes))
    for name in named:
        if name not in manifest.components:
            return f"the quantization names the component {name[:_SHOWN]!r}, which is not there"
    if quantization.quantizer == "nncf" and manifest.backends != ["openvino"]:
        return "nncf quantizes for openvino alone"
    return None


# A rule may rely on all that stand before it.
RULES: Final[tuple[Callable[[Manifest], str | None], ...]] = (
    files_are_listed_once,
    paths_are_safe,
    files_have_checksums,
    names_differ_on_all_systems,
    graphs_are_there,
    graphs_serve_all_engines,
    files_are_where_engines_look,
    tensors_are_believable,
    own_tensors_match,
    tensors_join_graphs,
    *SHAPE_RULES,
    pictures_can_be_encoded,
    embeddings_have_their_own_ids,
    preview_fits_the_latents,
    intervals_are_in_order,
    quantization_is_of_these_graphs,
)


def _listed(manifest: Manifest) -> set[str]:
    """Return the paths that have an entry."""
    return {entry.path for entry in manifest.files}


def _paths_in(manifest: Manifest) -> Iterator[str]:
    """Yield all paths that a manifest mentions."""
    yield from (entry.path for entry in manifest.files)
    yield manifest.tokenizer.file
    yield manifest.licence.file
    for component in manifest.components.values():
        for graph in component.graphs.values():
            yield graph.model
            if graph.weights is not None:
                yield graph.weights


def _required(manifest: Manifest) -> tuple[str, ...]:
    """Return the graphs that must be there; a shallow UNet must be whole if it is there, or if a preset needs it."""
    caching = any(preset.cache_interval > 1 for preset in manifest.presets.values())
    return required_graphs(manifest.graph, shallow=caching or UNET_SHALLOW in manifest.components)


def _first_of_components(manifest: Manifest, check: Callable[[Component], Iterator[str]]) -> str | None:
    """Return the first fault that a check finds in a component."""
    found = (f"the component {name!r} has {why}" for name, part in manifest.components.items() for why in check(part))
    return next(found, None)


def _misplaced(component: Component) -> Iterator[str]:
    """Yield graphs that an engine does not read, and weights that it would not find."""
    for backend, graph in component.graphs.items():
        if not graph.model.endswith(tuple(form.suffix for form in FORMATS[backend])):
            yield f"the graph {graph.model!r}, which is none for {backend}"
        beside = f"{graph.model.removesuffix(IR.suffix)}.bin"
        if graph.model.endswith(IR.suffix) and graph.weights != beside:
            yield f"no {beside}, which is what the engine reads with {graph.model!r}"
        if graph.weights is not None and _folder_of(graph.weights) != _folder_of(graph.model):
            yield "weights in another folder than the graph"


def _unbelievable(component: Component) -> Iterator[str]:
    """Yield tensors of one name, and tensors that fit no memory."""
    for tensors in (component.inputs, component.outputs):
        if len({tensor.name for tensor in tensors}) != len(tensors):
            yield "two tensors of one name"
        for tensor in tensors:
            if math.prod(size for size in tensor.shape if not isinstance(size, str)) > _MAX_ELEMENTS:
                yield f"a tensor {tensor.name!r} of more than {_MAX_ELEMENTS} values"


def _unlike(component: Component) -> Iterator[str]:
    """Yield tensors that the runtime does not feed, and an engine's own that are none of them in another form."""
    for tensor in (*component.inputs, *component.outputs):
        if tensor.dtype not in _FED:
            yield f"a tensor {tensor.name!r} in {tensor.dtype}; only an engine's own may be in it"
    for backend, graph in component.graphs.items():
        for own, fed in ((graph.inputs, component.inputs), (graph.outputs, component.outputs)):
            if own is None:
                continue
            if len(own) != len(fed):
                yield f"{len(own)} tensors for {backend} where there are {len(fed)}"
            if len({tensor.name for tensor in own}) != len(own):
                yield f"two tensors of one name for {backend}"
            for mine, common in zip(own, fed, strict=False):
                if _kind(mine) != _kind(common) or _without_scalar(mine) != _without_scalar(common):
                    yield f"a tensor {mine.name!r} for {backend}, which is not {common.name!r} in another form"


def _kind(tensor: TensorSpec) -> str:
    return tensor.dtype.rstrip("0123456789")


def _without_scalar(tensor: TensorSpec) -> list[int | FreeDimension]:
    """Return the shape; that of one value for a scalar."""
    return tensor.shape or [1]


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _inputs(manifest: Manifest, graph: str) -> set[str]:
    """Return the names of a graph's inputs."""
    return {tensor.name for tensor in manifest.components[graph].inputs}


def _strangers(manifest: Manifest, graph: str) -> set[str]:
    """Return the names of a graph's inputs that nothing fills."""
    wiring = wiring_of(manifest.graph, graph)
    return _inputs(manifest, graph) - _fed(manifest, wiring) - {*wiring.may_have}


def _fed(manifest: Manifest, wiring: Wiring) -> set[str]:
    """Return the names of all inputs that the runtime and other graphs have for a graph."""
    outputs = (tensor.name for name in wiring.fed_by for tensor in manifest.components[name].outputs)
    return {*wiring.given, *outputs}
