"""UniPC (Zhao et al. 2023); matches diffusers' ``UniPCMultistepScheduler``.

It has a predictor like DPM-Solver in several steps, and a corrector that uses each call a second time: it replaces the
latents that the predictor reached by better ones, once the network has been called there.
"""

from __future__ import annotations

import numpy as np

from nano_runtime.arrays import F32
from nano_runtime.errors import UnsupportedScheduleError
from nano_runtime.sampling.samplers.levels import whole_levels
from nano_runtime.sampling.samplers.mixing import VariancePreserving, thresholded
from nano_runtime.sampling.settings import Settings

__all__ = ["UniPC"]

_HALF = np.float32(0.5)


class UniPC:
    """Correct the latents, then extrapolate the predicted picture, or the noise, from the last calls.

    Args:
        settings: of the sampler, see ``samplers.levels.whole_levels``.
        num_inference_steps: 1 to ``num_train_timesteps``; the network is called once for each.

    Raises:
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: a network that predicts the flow is to be extrapolated as noise.
    """

    def __init__(self, settings: Settings, num_inference_steps: int) -> None:
        if settings.prediction_type == "flow_prediction" and not settings.predict_x0:
            raise UnsupportedScheduleError("predict_x0", settings.predict_x0, (True,))
        levels = whole_levels(settings, num_inference_steps)
        self.timesteps = levels.timesteps
        self.mixing = VariancePreserving.of_levels(settings, levels.sigmas)
        self._settings = settings
        self._outputs: list[F32] = []  # pictures or noises of the last calls; newest first, at most ``solver_order``
        self._order = 0  # of the last step
        self._before: F32 | None = None  # latents before it, corrected

    def step(self, noise_pred: F32, index: int, latents: F32) -> F32:
        """Go from noise level ``index`` to the next; the order rises from one with the calls."""
        of = self._settings
        output = self._extrapolated(noise_pred, latents, index)
        if self._before is not None and index - 1 not in of.disable_corrector:
            latents = self._moved(index - 1, self._before, self._order, output)
        self._outputs = [output, *self._outputs[: of.solver_order - 1]]
        most = min(of.solver_order, len(self.timesteps) - index) if of.lower_order_final else of.solver_order
        self._order = min(most, len(self._outputs))
        self._before = latents
        return self._moved(index, latents, self._order, None)

    def _extrapolated(self, output: F32, latents: F32, index: int) -> F32:
        """Return the predicted picture, thresholded if asked, or the predicted noise."""
        if not self._settings.predict_x0:
            return self.mixing.predicted_noise(output, latents, index)
        picture = self.mixing.predicted_picture(output, latents, index)
        return thresholded(picture, self._settings) if self._settings.thresholding else picture

    def _moved(self, index: int, latents: F32, order: int, reached: F32 | None) -> F32:
        """Return the latents after step ``index``: predicted, or corrected with the output at its end.

        Args:
            index: of the step; ``_outputs`` begins with the output before it.
            latents: before it.
            order: number of outputs that are used, without ``reached``.
            reached: output after the step, for the corrector.
        """
        (alpha, sigma), (alpha_target, sigma_target) = map(self.mixing.coefficients, (index, index + 1))
        lambdas, of_picture, value = self.mixing.lambdas, self._settings.predict_x0, self._outputs[0]
        with np.errstate(all="ignore"):
            h = np.float32(lambdas[index + 1] - lambdas[index])
            signed = -h if of_picture else h
            grown = _expm1(signed)
            scale = alpha_target if of_picture else sigma_target
            ratio = sigma_target / sigma if of_picture else alpha_target / alpha
            if h == 0:  # a step without width, where diffusers' higher orders divide by zero
                return ratio * latents
            places = [np.float32(lambdas[index - back] - lambdas[index]) / h for back in range(1, order)]
            slopes = [(self._outputs[back] - value) / place for back, place in enumerate(places, 1)]
            basis = signed if self._settings.solver_type == "bh1" else grown
            weights = _weights(places, signed, grown, basis, corrects=reached is not None)
            if reached is not None:
                slopes.append(reached - value)
            moved: F32 = ratio * latents - scale * grown * value
            total = sum((weight * slope for weight, slope in zip(weights, slopes, strict=True)), np.float32(0))
            return moved - scale * basis * total if slopes else moved


def _weights(
    places: list[np.float32], signed: np.float32, grown: np.float32, basis: np.float32, *, corrects: bool
) -> list[np.float32]:
    """Solve the paper's linear system for the weights of the slopes (formula 10, in diffusers' order).

    Args:
        places: of the earlier outputs, in widths of the step before its beginning.
        signed: width of the step; negative where the picture is extrapolated.
        grown: its exponential less one.
        basis: B(h), the width itself or ``grown``.
        corrects: whether the slope at the end of the step has a weight, too.
    """
    order = len(places) + 1
    if order == 1:
        return [_HALF] if corrects else []
    if order == 2 and not corrects:  # noqa: PLR2004 - diffusers does not solve for it
        return [_HALF]
    at = np.array([*places, 1], np.float32)
    rows, sides = [], []
    factorial, phi = 1, grown / signed - np.float32(1)
    for power in range(order):
        rows.append(at**power)
        sides.append(phi * np.float32(factorial) / basis)
        factorial *= power + 2
        phi = phi / signed - np.float32(1 / factorial)
    system, side = np.stack(rows).astype(np.float32), np.array(sides, np.float32)
    if not corrects:
        system, side = system[:-1, :-1], side[:-1]
    return list(np.linalg.solve(system, side))


def _expm1(power: np.float32) -> np.float32:
    """Return the exponential less one, rounded once."""
    return np.float32(np.expm1(np.float64(power)))
