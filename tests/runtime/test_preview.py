"""The picture the network believes in is found from any sampler's step, and becomes colours by one product."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.pictures.preview import colours, predicted_latents
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.noise import noise_source, randn
from nano_runtime.sampling.samplers import SAMPLERS, make_sampler
from nano_runtime.sampling.schedule import Schedule

SCHEDULE = Schedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
)
SHAPE = (2, 4, 8, 8)
PICTURE = randn(5, SHAPE)


def knowing(kind: str, timesteps: np.ndarray):
    """A network that knows the picture, and says so in noise, as velocity or outright."""
    shares = np.interp(timesteps, np.arange(1000), SCHEDULE.alphas_cumprod)

    def predict(latents, index):
        alpha, sigma = np.sqrt(shares[index]), np.sqrt(1 - shares[index])
        noise = (latents - alpha * PICTURE) / sigma
        answer = {"epsilon": noise, "v_prediction": alpha * noise - sigma * PICTURE, "sample": PICTURE}[kind]
        return answer.astype(np.float32)

    return predict


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", [*SAMPLERS, "dpmpp_2m_karras", "euler_exponential"])
def test_what_the_network_believes_is_read_from_every_call(name, kind):
    if kind == "sample" and name in {"pndm", "euler_a", "dpm2", "dpm2_a"}:
        return  # those refuse it
    schedule = SCHEDULE.but(prediction_type=kind, skip_prk_steps=True)
    noise = noise_source((1, 2), SHAPE[1:])
    sampler = make_sampler(name, schedule, 8, noise)
    predict = knowing(kind, sampler.timesteps)
    steps = list(denoise(predict, sampler, noise() * np.float32(sampler.mixing.init_noise_sigma)))
    for step in steps:
        # Where there is hardly any picture left (alpha is 0.07), the rounding of the noise is magnified by 1 / alpha.
        assert np.abs(predicted_latents(step, schedule) - PICTURE).max() < 1e-4
    wrong = schedule.but(prediction_type="v_prediction" if kind == "epsilon" else "epsilon")
    assert np.abs(predicted_latents(steps[0], wrong) - PICTURE).max() > 0.1


def test_colours_are_a_product_and_a_sum():
    weights = np.array([[1, 0, 0], [0, 0.5, 0], [0, 0, 0], [0, 0, -1], [0.5, 0.25, 0.5]], np.float32)
    latents = np.zeros((1, 4, 2, 3), np.float32)
    latents[0, :, 1, 2] = (0.25, 0.5, 9, 1)
    mapped = colours(latents, weights)
    assert mapped.shape == (1, 2, 3, 3)
    assert mapped[0, 0, 0].tolist() == [0.5, 0.25, 0.5]
    assert mapped[0, 1, 2].tolist() == [0.75, 0.5, 0]  # cut at black
