"""The UNet as a function of the latents: prompts, timesteps and guidance are bound to its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import SAMPLE, UNET
from nano_runtime.engines.base import Runner
from nano_runtime.networks.conditioning import Conditions, UNetInputs
from nano_runtime.networks.unet_calls import Call, rows_by_graph
from nano_runtime.sampling.denoise import guide
from nano_runtime.sampling.forecast import Forecast

__all__ = ["Predictor"]


class Predictor:
    """Predicts the noise in the latents of a group of pictures, call by call as planned.

    Guidance is one call with the negative rows first, as in diffusers: most of its time goes into reading the weights
    from memory, and so they are read once. Calls without guidance run on the other rows, on the same loaded graph.

    Args:
        runner: runs the graphs.
        bundle: describes them.
        conditions: of the group.
        guidance_scale: classifier-free guidance.
        calls: the planned calls, one for each timestep.
    """

    def __init__(
        self, runner: Runner, bundle: Bundle, conditions: Conditions, *, guidance_scale: float, calls: Sequence[Call]
    ) -> None:
        self._runner = runner
        self._bundle = bundle
        self._times = conditions.times
        self._timesteps = conditions.timesteps
        self._guidance_scale = guidance_scale
        self._calls = calls
        self._count = len(conditions.positive)
        self._output, *self._kept = [spec.name for spec in bundle.component(UNET).outputs]
        self._forecasts = {name: Forecast() for name in self._kept}
        # The same arrays every time: an engine has to bind an array only once.
        self._shared = {name: values[:1].copy() for name, values in conditions.times.items()}
        self._rows = self._arrays([*conditions.negative, *conditions.positive])
        self._feeds = {call: self._bound(call) for call in set(calls)}
        self._batches = rows_by_graph(calls, self._count)

    def __call__(self, latents: F32, index: int) -> F32:
        """Return the prediction of call ``index``, guidance included: float32 of the shape of ``latents``."""
        call, timestep, count = self._calls[index], float(self._timesteps[index]), self._count
        component, feeds = call.component, self._feeds[call]
        for name, values in self._times.items():
            self._shared[name][:] = values[index]
        feeds[SAMPLE].reshape(-1, *latents.shape)[:] = latents
        if not call.whole:
            for name, forecast in self._forecasts.items():
                feeds[name][:] = forecast.at(timestep, call.rows(self._count))
        outputs = self._runner.run(component, feeds, batch=self._batches[component])
        if call.whole:
            for name, forecast in self._forecasts.items():
                forecast.learn(timestep, outputs[name])
        noise = outputs[self._output]
        return guide(noise[:count], noise[count:], self._guidance_scale) if call.guided else noise

    def _arrays(self, texts: Sequence[UNetInputs]) -> UNetInputs:
        """Return all inputs with one row per text: prompts, latents, and the features for shallow calls."""
        rows: UNetInputs = {name: np.concatenate([text[name] for text in texts]) for name in texts[0]}
        rows[SAMPLE] = np.empty((len(texts), *self._bundle.manifest.latent_shape), np.float32)
        if not all(call.whole for call in self._calls):
            for spec in self._bundle.component(UNET).outputs:
                if spec.name in self._kept:
                    shape = [size if isinstance(size, int) else len(texts) for size in spec.shape]
                    rows[spec.name] = np.empty(shape, np.float32)
        return rows

    def _bound(self, call: Call) -> UNetInputs:
        """Return the inputs of one kind of call: the rows that it runs on, which are the last ones."""
        rows = {name: values[-call.rows(self._count) :] for name, values in self._rows.items()}
        wanted = {spec.name for spec in self._bundle.component(call.component).inputs}
        return {name: values for name, values in {**rows, **self._shared}.items() if name in wanted}
