"""A session whose graph has tensors of its own: other names, half precision, or a scalar for a tensor of one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.manifest import Component, Graph, TensorSpec
from nano_runtime.engines.base import LayerTime, Session

__all__ = ["as_the_component"]


def as_the_component(session: Session, component: Component, graph: Graph) -> Session:
    """Return a session with the tensors of the component; the same one if the graph has no others.

    Args:
        session: of the graph.
        component: whose inputs the caller feeds, and whose outputs it expects.
        graph: whose own tensors stand in the order of the component's.
    """
    if graph.inputs is None and graph.outputs is None:
        return session
    return _Translated(session, component, graph)


class _Translated:
    """Casts, reshapes and renames on the way to the engine and back."""

    def __init__(self, session: Session, component: Component, graph: Graph) -> None:
        self._session = session
        own_inputs = component.inputs if graph.inputs is None else graph.inputs
        own_outputs = component.outputs if graph.outputs is None else graph.outputs
        self._inputs = [*zip(component.inputs, own_inputs, strict=True)]
        self._outputs = [*zip(own_outputs, component.outputs, strict=True)]

    def run(self, feeds: Arrays) -> dict[str, F32]:
        """Compute all outputs; see ``Session.run``."""
        return _translated(self._session.run(_translated(feeds, self._inputs)), self._outputs)

    def layer_times(self) -> list[LayerTime]:
        """Return the time of each operator; see ``Session.layer_times``."""
        return self._session.layer_times()

    def close(self) -> None:
        """Free the memory."""
        self._session.close()


def _translated(arrays: Mapping[str, NDArray[Any]], tensors: Sequence[tuple[TensorSpec, TensorSpec]]) -> dict[str, Any]:
    """Return the arrays of the first tensor of each pair in the form of the second; tensors without an array stay out.

    An array that needs no change is passed on as it is: an engine has to bind it only once.
    """
    made = {}
    for given, wanted in tensors:
        if given.name in arrays:
            values = arrays[given.name].astype(wanted.dtype, copy=False)
            if not given.shape or not wanted.shape:  # a scalar on one side
                values = values.reshape([1] * len(wanted.shape))
            made[wanted.name] = values
    return made
