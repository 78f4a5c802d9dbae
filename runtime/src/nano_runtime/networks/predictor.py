"""The UNet as a function of the latents: prompts, timesteps and guidance bound to its inputs, whole or shallow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.engines import Batch
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.networks.conditioning import UNetInputs
from nano_runtime.sampling.denoise import guide
from nano_runtime.sampling.forecast import Forecast
from nano_runtime.sampling.shortcuts import Call
from nano_runtime.system.timing import Stopwatch

__all__ = ["Predictor", "graphs_of"]

_SAMPLE = "sample"


class Predictor:
    """Predicts the noise in the latents of a group of pictures, as planned.

    Guidance is one call with the negative rows first, as in diffusers: the weights, which are what takes the time, are
    read from memory once. Calls without it run on the rows that follow, on the same loaded graph.

    Args:
        stages: the graphs.
        watch: gets the time of each call.
        negative: what the UNet knows of each picture's negative prompt; empty if no call is guided.
        positive: what it knows of each picture's prompt, arrays with one row.
        times: what it knows of each timestep, arrays with one row for each.
        timesteps: float32, of each call.
        guidance_scale: classifier-free guidance.
        calls: how each call is made, in order.
    """

    def __init__(
        self,
        stages: LoadedGraphs,
        watch: Stopwatch,
        *,
        negative: Sequence[UNetInputs],
        positive: Sequence[UNetInputs],
        times: UNetInputs,
        timesteps: F32,
        guidance_scale: float,
        calls: Sequence[Call],
    ) -> None:
        self._stages = stages
        self._watch = watch
        self._times = times
        self._timesteps = timesteps
        self._guidance_scale = guidance_scale
        self._calls = calls
        self._count = len(positive)
        self._output, *self._kept = [spec.name for spec in stages.bundle.component("unet").outputs]
        self._forecasts = {name: Forecast() for name in self._kept}
        # The same arrays every time: an engine that knows where its inputs are is not told again.
        self._shared = {name: values[:1].copy() for name, values in times.items()}
        self._rows = self._arrays([*negative, *positive])
        self._feeds = {call: self._bound(call) for call in set(calls)}
        self._batches = graphs_of(calls, self._count)

    def __call__(self, latents: F32, index: int) -> F32:
        """Return the prediction of call ``index``, guidance included: float32 of the shape of ``latents``."""
        call, timestep, count = self._calls[index], float(self._timesteps[index]), self._count
        component, feeds = _component(call), self._feeds[call]
        for name, values in self._times.items():
            self._shared[name][:] = values[index]
        feeds[_SAMPLE].reshape(-1, *latents.shape)[:] = latents
        if not call.whole:
            for name, forecast in self._forecasts.items():
                feeds[name][:] = forecast.at(timestep, _rows(call, self._count))
        outputs = self._stages.run(component, feeds, self._watch, batch=self._batches[component])
        if call.whole:
            for name, forecast in self._forecasts.items():
                forecast.learn(timestep, outputs[name])
        noise = outputs[self._output]
        return guide(noise[:count], noise[count:], self._guidance_scale) if call.guided else noise

    def _arrays(self, texts: Sequence[UNetInputs]) -> UNetInputs:
        """Return all inputs with one row per text: prompts, latents, and what shallow calls take from whole ones."""
        bundle = self._stages.bundle
        rows: UNetInputs = {name: np.concatenate([text[name] for text in texts]) for name in texts[0]}
        rows[_SAMPLE] = np.empty((len(texts), *bundle.manifest.latent_shape), np.float32)
        if not all(call.whole for call in self._calls):
            for spec in bundle.component("unet").outputs:
                if spec.name in self._kept:
                    shape = [size if isinstance(size, int) else len(texts) for size in spec.shape]
                    rows[spec.name] = np.empty(shape, np.float32)
        return rows

    def _bound(self, call: Call) -> UNetInputs:
        """Return the inputs of one kind of call: the rows that it runs on, which are the last ones."""
        rows = {name: values[-_rows(call, self._count) :] for name, values in self._rows.items()}
        wanted = {spec.name for spec in self._stages.bundle.component(_component(call)).inputs}
        return {name: values for name, values in {**rows, **self._shared}.items() if name in wanted}


def graphs_of(calls: Iterable[Call], count: int) -> dict[str, Batch]:
    """Return the graphs that calls for so many pictures run, and the rows that they run on.

    One number if it is the same for all calls of a graph, or the smallest and the largest.
    """
    sizes: dict[str, set[int]] = {}
    for call in calls:
        sizes.setdefault(_component(call), set()).add(_rows(call, count))
    return {name: (min(rows), max(rows)) if len(rows) > 1 else max(rows) for name, rows in sizes.items()}


def _rows(call: Call, count: int) -> int:
    """Return how many rows a call for so many pictures runs on."""
    return count * (2 if call.guided else 1)


def _component(call: Call) -> str:
    """Return the graph that a call runs."""
    return "unet" if call.whole else "unet_shallow"
