"""The graphs of a bundle as callables: each is checked, loaded when first needed, timed, and let go on request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nano_runtime.backends import Arrays, EngineOptions, Session, open_session
from nano_runtime.bundle import Bundle
from nano_runtime.errors import NonFiniteError
from nano_runtime.manifest import Backend
from nano_runtime.timing import Stopwatch

__all__ = ["Stages"]


class Stages:
    """Holds at most one loaded engine per component; asking for another batch size replaces it."""

    def __init__(self, bundle: Bundle, backend: Backend, options: EngineOptions) -> None:
        self.bundle = bundle
        self.backend = backend
        self.options = options
        self._loaded: dict[str, tuple[int, Session]] = {}

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the components that occupy memory now."""
        return frozenset(self._loaded)

    def run(self, component: str, feeds: Arrays, watch: Stopwatch, *, batch: int) -> dict[str, NDArray[np.float32]]:
        """Compute one component's outputs.

        Args:
            component: its name in the manifest.
            feeds: all inputs by name, as the manifest describes them.
            watch: gets a ``run`` sample, and a ``verify`` and a ``load`` sample if the graph was not loaded.
            batch: size of the free dimension.

        Raises:
            TamperedFileError: a file is not the one the manifest describes.
            EngineError: the engine refuses the graph or the inputs.
            NonFiniteError: an output has a NaN or an infinity.
        """
        session = self._session(component, watch, batch=batch)
        with watch.time("run", component):
            outputs = session.run(feeds)
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise NonFiniteError(component, f"output {name!r}")
        return outputs

    def close(self, *components: str) -> None:
        """Let these components go; all of them if none is named."""
        for name in components or tuple(self._loaded):
            if name in self._loaded:
                self._loaded.pop(name)[1].close()

    def _session(self, component: str, watch: Stopwatch, *, batch: int) -> Session:
        """Return the loaded engine for a component, loading it if needed."""
        if component in self._loaded and self._loaded[component][0] == batch:
            return self._loaded[component][1]
        self.close(component)
        with watch.time("verify", component):
            model = self.bundle.verified(component, self.backend)
        with watch.time("load", component):
            session = open_session(self.backend, model, batch=batch, options=self.options)
        self._loaded[component] = (batch, session)
        return session
