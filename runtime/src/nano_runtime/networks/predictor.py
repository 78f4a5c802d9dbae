"""The UNet as a function of the latents: prompts, pictures, timesteps and guidance are bound to its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.wiring import SAMPLE, UNET
from nano_runtime.engines.base import Runner
from nano_runtime.networks.conditioning import Conditions, UNetInputs
from nano_runtime.networks.unet_calls import Call, rows_by_graph
from nano_runtime.sampling.denoise import guide, guide_by_picture
from nano_runtime.sampling.forecast import Forecast

__all__ = ["Predictor"]


class Predictor:
    """Predicts the noise in the latents of a group of pictures, call by call as planned.

    Guidance is one call with the negative rows first, as in diffusers: most of its time goes into reading the weights
    from memory, and so they are read once. Calls without guidance run on the last rows, on the same loaded graph.

    A UNet that is also guided by a picture has three rows of each: the negative prompt without the picture, which is
    zero there, the negative prompt with it, and the prompt with it.

    Args:
        runner: runs the graphs.
        bundle: describes them.
        conditions: of the group.
        guidance_scales: of classifier-free guidance by the prompt and by the picture; None for no guidance by it.
        calls: the planned calls, one for each timestep.
    """

    def __init__(
        self,
        runner: Runner,
        bundle: Bundle,
        conditions: Conditions,
        *,
        guidance_scales: tuple[float, float | None],
        calls: Sequence[Call],
    ) -> None:
        self._runner = runner
        self._bundle = bundle
        self._times = conditions.times
        self._timesteps = conditions.timesteps
        self._guidance_scales = guidance_scales
        self._calls = calls
        self._count = len(conditions.positive)
        self._output, *self._kept = [spec.name for spec in bundle.component(UNET).outputs]
        self._forecasts = {name: Forecast() for name in self._kept}
        # The same arrays every time: an engine has to bind an array only once.
        self._shared = {name: values[:1].copy() for name, values in conditions.times.items()}
        self._rows = self._arrays([*conditions.negative, *conditions.positive], conditions.behind)
        self._feeds = {call: self._bound(call) for call in set(calls)}
        self._batches = rows_by_graph(calls, self._count)

    def __call__(self, latents: F32, index: int) -> F32:
        """Return the prediction of call ``index``, guidance included: float32 of the shape of ``latents``."""
        call, timestep, count = self._calls[index], float(self._timesteps[index]), self._count
        component, feeds = call.component, self._feeds[call]
        for name, values in self._times.items():
            self._shared[name][:] = values[index]
        feeds[SAMPLE].reshape(-1, count, *feeds[SAMPLE].shape[1:])[:, :, : latents.shape[1]] = latents
        if not call.whole:
            for name, forecast in self._forecasts.items():
                feeds[name][:] = forecast.at(timestep, call.rows(self._count))
        outputs = self._runner.run(component, feeds, batch=self._batches[component])
        if call.whole:
            for name, forecast in self._forecasts.items():
                forecast.learn(timestep, outputs[name])
        noise = outputs[self._output]
        if not call.guided:
            return noise
        by_prompt, by_picture = self._guidance_scales
        if by_picture is None:
            return guide(noise[:count], noise[count:], by_prompt)
        return guide_by_picture(noise[:count], noise[count:-count], noise[-count:], by_prompt, by_picture)

    def _arrays(self, texts: Sequence[UNetInputs], behind: F32 | None) -> UNetInputs:
        """Return all inputs with one row per text: prompts, latents, and the features for shallow calls."""
        rows: UNetInputs = {name: np.concatenate([text[name] for text in texts]) for name in texts[0]}
        rows[SAMPLE] = self._sample(len(texts), behind)
        if not all(call.whole for call in self._calls):
            for spec in self._bundle.component(UNET).outputs:
                if spec.name in self._kept:
                    shape = [size if isinstance(size, int) else len(texts) for size in spec.shape]
                    rows[spec.name] = np.empty(shape, np.float32)
        return rows

    def _sample(self, rows: int, behind: F32 | None) -> F32:
        """Return the array for the latents, [rows, channels, h, w], in which the channels behind them are filled."""
        channels, height, width = self._bundle.manifest.latent_shape
        if behind is None:
            return np.empty((rows, channels, height, width), np.float32)
        sample = np.empty((rows, channels + behind.shape[1], height, width), np.float32)
        sample.reshape(-1, self._count, *sample.shape[1:])[:, :, channels:] = behind
        if self._guidance_scales[1] is not None and rows > self._count:
            sample[: self._count, channels:] = 0
        return sample

    def _bound(self, call: Call) -> UNetInputs:
        """Return the inputs of one kind of call: the rows that it runs on, which are the last ones."""
        rows = {name: values[-call.rows(self._count) :] for name, values in self._rows.items()}
        wanted = {spec.name for spec in self._bundle.component(call.component).inputs}
        return {name: values for name, values in {**rows, **self._shared}.items() if name in wanted}
