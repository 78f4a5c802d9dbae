"""What the manifest says of a graph: a name for its files, the sizes of its feeds, and the shapes of its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.wiring import BATCH, TOKENS, FreeDimension
from nano_runtime.engines.base import EngineOptions
from nano_runtime.errors import NonFiniteError, OutputShapeError
from nano_runtime.system.machine import instruction_sets

__all__ = ["check_outputs", "files_digest", "free_size", "identity_of"]

# To be changed with the settings of an engine that decide what it computes: earlier outputs are not taken for new ones.
_ARITHMETIC = "weights alone in f32"


def identity_of(bundle: Bundle, component: str, backend: Backend, version: str, options: EngineOptions) -> str:
    """Name all that a component's outputs depend on besides its inputs: its files, the engine, the processor.

    Args:
        bundle: has the component.
        component: its name.
        backend: the engine.
        version: of the engine.
        options: of the engine.
    """
    engine = (backend, version, options.threads, options.precision)
    return repr((files_digest(bundle, component, backend), *engine, instruction_sets(), _ARITHMETIC))


def files_digest(bundle: Bundle, component: str, backend: Backend) -> str:
    """Return a hex sha256 that names the content of a component's files, as the manifest says it is.

    All checksums go into it. Loading compares one of them only; in another one a bundle could claim to be somebody
    else's, and its outputs in the cache would be taken for theirs.
    """
    graph = bundle.graph(component, backend)
    files = (graph.model, graph.weights)
    digests = [(entry.sha256, entry.blake3) for entry in bundle.manifest.files if entry.path in files]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def free_size(bundle: Bundle, component: str, feeds: Arrays, name: FreeDimension) -> int:
    """Return the size of a free dimension in the feeds; 1 for graphs where it is not free."""
    for spec in bundle.component(component).inputs:
        if name in spec.shape and spec.name in feeds:
            size: int = feeds[spec.name].shape[spec.shape.index(name)]
            return size
    return 1


def check_outputs(bundle: Bundle, component: str, feeds: Arrays, outputs: Mapping[str, F32]) -> None:
    """Compare the outputs of a graph with its description in the manifest.

    Raises:
        OutputShapeError: an output is missing, or has another shape or type.
        NonFiniteError: an output has a NaN or an infinity.
    """
    free = {name: free_size(bundle, component, feeds, name) for name in (BATCH, TOKENS)}
    for tensor in bundle.component(component).outputs:
        shape = tuple(free[size] if isinstance(size, str) else size for size in tensor.shape)
        values = outputs.get(tensor.name)
        if values is None or values.shape != shape or values.dtype != tensor.dtype:
            found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
            raise OutputShapeError(component, tensor.name, found, f"{tensor.dtype} {list(shape)}")
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(component, f"output {name!r}")
