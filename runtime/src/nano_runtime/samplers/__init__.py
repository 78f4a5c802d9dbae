"""How latents go from noise to picture: one class per sampler behind one protocol, and their names.

A sampler (diffusers: scheduler; k-diffusion: sampler; elsewhere: solver) draws one batch: it holds the history of the
calls so far, so make a new one for the next. Adding one is a file with a class and a line in ``SAMPLERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nano_runtime.errors import UnknownSchedulerError
from nano_runtime.samplers.ddim import DDIM
from nano_runtime.samplers.dpmpp import DPMSolverPP2M
from nano_runtime.samplers.euler import Euler
from nano_runtime.samplers.pndm import PNDM
from nano_runtime.schedule import Schedule

__all__ = ["SAMPLERS", "Sampler", "make_sampler"]


class Sampler(Protocol):
    """What the denoising loop needs to know of a sampler. Latents are float32 [batch, channels, height, width]."""

    @property
    def timesteps(self) -> NDArray[np.float32]:
        """One entry per call of the network, in order: float32 [calls]. Not always whole, not always ``steps`` many."""

    @property
    def init_noise_sigma(self) -> float:
        """What unit noise is multiplied with to become the first latents."""

    def scale_model_input(self, latents: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Return what the network is given for call ``index``; never changes ``latents``."""

    def step(self, noise_pred: NDArray[np.float32], index: int, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the latents after call ``index``, in which the network computed ``noise_pred``.

        Calls come in order and each once. The first may have any index, for a start from a half-noised picture.
        """


SAMPLERS: Final[Mapping[str, Callable[[Schedule, int], Sampler]]] = MappingProxyType(
    {"pndm": PNDM, "ddim": DDIM, "euler": Euler, "dpmpp_2m": DPMSolverPP2M},
)


def make_sampler(name: str, schedule: Schedule, num_inference_steps: int) -> Sampler:
    """Make a fresh sampler for one batch.

    Args:
        name: a key of ``SAMPLERS``.
        schedule: of the model.
        num_inference_steps: 1 to ``schedule.num_train_timesteps``.

    Raises:
        UnknownSchedulerError: there is no sampler of that name.
        StepsError: that many steps do not fit into the schedule.
        UnsupportedScheduleError: the sampler cannot follow this schedule.
    """
    if name not in SAMPLERS:
        raise UnknownSchedulerError(name, SAMPLERS)
    return SAMPLERS[name](schedule, num_inference_steps)
