"""Samplers without torch: on networks whose pictures are known in closed form, in every spread, spacing and prediction.

``tests/parity`` compares every step with diffusers' classes.
"""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.errors import (
    StepsError,
    StrengthError,
    UnknownSchedulerError,
    UnsupportedScheduleError,
)
from nano_runtime.sampling.denoise import denoise
from nano_runtime.sampling.samplers import (
    NOISY,
    SAMPLERS,
    SPREADABLE,
    first_call,
    make_sampler,
    own_sampler,
    split_name,
)
from nano_runtime.sampling.schedule import Schedule

SHAPE = (1, 4, 4, 4)
PICTURE = np.linspace(-0.9, 0.9, 64, dtype=np.float32).reshape(SHAPE)
NOISE = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
CONFIG = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "skip_prk_steps": True,
}
SCHEDULE = Schedule.from_config(CONFIG)
SHARES = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
LEVELS = np.sqrt((1 - SHARES) / SHARES)
ALL = [*SAMPLERS, *(f"{name}_{spread}" for name in SPREADABLE for spread in ("karras", "exponential", "beta"))]
REFUSES_PICTURES = {"pndm", "euler_a", "dpm2", "dpm2_a"}
ADD_NOISE = NOISY & set(SAMPLERS)
HIGHER_ORDER = {  # how much nearer four times the steps come, at least, and with which noise levels
    "heun": ("heun", 15),
    "lms": ("lms", 15),
    "dpm2": ("dpm2", 8),
    "dpmpp_2s": ("dpmpp_2s_karras", 12),
    "deis": ("deis_karras", 15),
    "dpmpp_2m": ("dpmpp_2m_karras", 15),
    "dpmpp_3m": ("dpmpp_3m_karras", 50),
    "unipc": ("unipc_karras", 30),
}


class Gauss:
    """The best network for pictures that differ from a mean by Gaussian noise of one deviation; 0 knows the picture."""

    def __init__(self, mean: np.ndarray, deviation: float, kind: str = "epsilon") -> None:
        self.mean = mean
        self.deviation = deviation
        self.kind = kind

    def bound(self, timesteps: np.ndarray, shares: np.ndarray = SHARES):
        """The network at these timesteps. Between two trained ones the noise level is interpolated."""
        levels = np.interp(timesteps, np.arange(len(shares)), np.sqrt((1 - shares) / np.maximum(shares, 1e-9)))

        def predict(latents: np.ndarray, index: int) -> np.ndarray:
            alpha = 1 / np.sqrt(1 + levels[index] ** 2)
            sigma = levels[index] * alpha
            gain = alpha * self.deviation**2 / ((alpha * self.deviation) ** 2 + sigma**2)
            picture = self.mean + gain * (latents - alpha * self.mean)
            noise = (latents - alpha * picture) / sigma
            answer = {"epsilon": noise, "v_prediction": alpha * noise - sigma * picture, "sample": picture}[self.kind]
            return answer.astype(np.float32)

        return predict

    def solution(self, latents: np.ndarray, begin: float, end: float) -> np.ndarray:
        """Where the probability flow leads from latents of unit variance, from noise level to noise level."""
        exploding = latents * np.sqrt(1 + begin**2)
        shrunk = np.sqrt((self.deviation**2 + end**2) / (self.deviation**2 + begin**2))
        return self.mean + (exploding - self.mean) * shrunk


def noise_of(shape, seed: int = 0):
    """A source of unit noise."""
    dice = np.random.default_rng(seed)
    return lambda: dice.standard_normal(shape, np.float32)


def drawn(name: str, network: Gauss, schedule: Schedule = SCHEDULE, *, steps: int = 5, shape=SHAPE):
    """All steps of a drawing, and the first latents. Five steps divide the schedule, so that DDIM's last ends it."""
    noise = noise_of(shape)
    sampler = make_sampler(name, schedule, steps, noise)
    latents = noise() * np.float32(sampler.mixing.init_noise_sigma)
    predict = network.bound(sampler.timesteps, schedule.alphas_cumprod.astype(np.float64))
    return list(denoise(predict, sampler, latents)), latents


def tolerance(name: str) -> float:
    """Every method is exact where all calls agree on the picture; float32 leaves a few 1e-6.

    LMS over uneven levels magnifies them. TCD ends at timestep 0, not at no noise, and LCM keeps 7e-6 of the last
    call's latents. DEIS ends at the least noise.
    """
    return {"tcd": 0.1, "lcm": 1e-4, "lms": 2e-4, "deis": 0.1}.get(name.partition("_")[0], 1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ALL)
def test_a_network_that_knows_the_picture_draws_it(name, kind):
    if kind == "sample" and split_name(name)[0] in REFUSES_PICTURES:
        with pytest.raises(UnsupportedScheduleError, match="prediction_type='sample'"):
            make_sampler(name, SCHEDULE.but(prediction_type=kind), 5)
        return
    for spacing in (None, "leading", "linspace", "trailing") if name in SAMPLERS else (None,):
        if name == "pndm" and (kind != "epsilon" or spacing in ("linspace", "trailing")):
            continue  # it mixes the outputs of calls, in even strides: only noise, and only these, are the same for all
        schedule = SCHEDULE.but(prediction_type=kind, **({} if spacing is None else {"timestep_spacing": spacing}))
        steps, first = drawn(name, Gauss(PICTURE, 0, kind), schedule)
        assert np.abs(steps[-1].latents - PICTURE).max() < tolerance(name), spacing
        assert np.abs(first - PICTURE).max() > 0.5
    other = Gauss(PICTURE, 0, "v_prediction" if kind == "epsilon" else "epsilon")
    mistaken, _ = drawn(name, other, SCHEDULE.but(prediction_type=kind))  # the last call mends most of it
    assert np.abs(mistaken[-1].latents - PICTURE).max() > {"tcd": 0.15}.get(name, 4e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - ADD_NOISE))
def test_more_steps_come_nearer_to_the_known_solution(sampler, kind):
    """Four times the steps: 4 times as near by a method of first order, 16 times by one of second.

    DPM-Solver++ and UniPC end at the least trained noise, for their last step to no noise is one of first order.
    """
    name, gain = HIGHER_ORDER.get(sampler, (sampler, 3))
    network = Gauss(PICTURE, 0.5, kind)
    end = LEVELS[0] if name.endswith("_karras") else 0.0
    schedule = SCHEDULE.but(prediction_type=kind, final_sigmas_type="sigma_min" if end else "zero")
    errors = []
    for count in (10, 40):
        steps, _ = drawn(name, network, schedule, steps=count)
        begin = np.interp(steps[0].timestep, np.arange(1000), LEVELS)
        last = steps[-1].latents * np.sqrt(1 + end**2)
        errors.append(np.abs(last - network.solution(steps[0].network_input, begin, end)).max())
    assert errors[0] < 0.5
    assert errors[0] / errors[1] > gain
    wrong = Gauss(PICTURE, 0.2).solution(steps[0].network_input, begin, end)
    assert np.abs(last - wrong).max() > 0.3


@pytest.mark.parametrize("name", sorted(ADD_NOISE - {"lcm"}))  # which goes to the mean of what is left
def test_pictures_of_a_noisy_sampler_are_spread_as_the_worlds(name):
    """A world of pictures around 0.7 with a deviation of 0.5; 1024 latents tell it to 1/32."""
    shape = (1, 16, 8, 8)
    network = Gauss(np.full(shape, 0.7), 0.5)
    steps, _ = drawn(name, network, steps=25, shape=shape)
    assert steps[-1].latents.mean() == pytest.approx(0.7, abs=0.05)
    assert 0.4 < steps[-1].latents.std() < 0.53  # a step that is too long leaves a little out

    quiet = noise_of(shape)
    sampler = make_sampler(name, SCHEDULE, 25, lambda: 2 * quiet())  # negative control: too much noise
    latents = quiet() * np.float32(sampler.mixing.init_noise_sigma)
    *_, last = denoise(network.bound(sampler.timesteps), sampler, latents)
    assert last.latents.std() > 0.6


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_noisy_samplers_depend_on_noise_of_their_own(name):
    network = Gauss(PICTURE, 0.5)
    results = []
    for seed in (1, 2):
        sampler = make_sampler(name, SCHEDULE, 5, noise_of(SHAPE, seed))
        latents = NOISE * np.float32(sampler.mixing.init_noise_sigma)
        results.append(list(denoise(network.bound(sampler.timesteps), sampler, latents))[-1].latents)
    one, other = results
    assert np.array_equal(one, other) == (name not in ADD_NOISE)


@pytest.mark.parametrize("name", sorted(ADD_NOISE))
def test_a_noisy_sampler_without_a_source_of_noise_says_so(name):
    sampler = make_sampler(name, SCHEDULE, 5)
    assert len(sampler.timesteps) == (9 if name == "dpm2_a" else 5)  # which is what it may be made for
    predict = Gauss(PICTURE, 0.5).bound(sampler.timesteps)
    with pytest.raises(TypeError, match="without a source"):
        list(denoise(predict, sampler, NOISE))


@pytest.mark.parametrize("name", [name for name in ALL if name != "pndm"])  # whose second call goes back a stride
def test_a_start_in_the_middle_of_a_picture_ends_at_the_picture(name):
    sampler = make_sampler(name, SCHEDULE, 10, noise_of(SHAPE))
    first = first_call(name, 10, 0.5)
    assert first == 5 * SAMPLERS[split_name(name)[0]].calls_per_step
    noisy = sampler.mixing.add_noise(PICTURE, NOISE, first)
    steps = list(denoise(Gauss(PICTURE, 0).bound(sampler.timesteps), sampler, noisy, first))
    assert len(steps) == len(sampler.timesteps) - first
    assert np.abs(steps[-1].latents - PICTURE).max() < tolerance(name)
    assert np.abs(noisy - PICTURE).max() > 0.3


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_becomes_as_noisy_as_the_timestep_says(name):
    sampler = make_sampler(name, SCHEDULE, 10)
    for index in (0, 4, len(sampler.timesteps) - 1):
        latents = sampler.mixing.add_noise(PICTURE, NOISE, index)
        unit = sampler.mixing.scale_model_input(latents, index)
        level = np.interp(sampler.timesteps[index], np.arange(1000), LEVELS)
        expected = (PICTURE + level * NOISE) / np.sqrt(1 + level**2)
        np.testing.assert_allclose(unit, expected, atol=1e-5)
        assert np.abs(unit - (PICTURE + 1.2 * level * NOISE) / np.sqrt(1 + level**2)).max() > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_allowed(name):
    steps, _ = drawn(name, Gauss(PICTURE, 0), steps=1)
    assert len(steps) == 1
    assert np.abs(steps[-1].latents - PICTURE).max() < tolerance(name)


@pytest.mark.parametrize("name", [*SAMPLERS, "euler_karras", "unipc_beta"])
def test_no_step_and_more_than_were_trained_are_refused(name):
    for count in (0, -1, 1001):
        with pytest.raises(StepsError, match=f"{count} steps cannot be run"):
            make_sampler(name, SCHEDULE, count)


@pytest.mark.parametrize("spread", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("name", SPREADABLE)
def test_spreads_move_the_timesteps_and_keep_both_ends(name, spread):
    plain, moved = (make_sampler(one, SCHEDULE, 8).timesteps for one in (name, f"{name}_{spread}"))
    assert len(moved) == len(plain)
    assert np.all(np.diff(np.unique(moved)[::-1]) < 0)
    assert moved[0] == pytest.approx(999, abs=1)
    assert moved[-1] == pytest.approx(0, abs=1)
    assert np.abs(moved - plain).max() > 20


@pytest.mark.parametrize("spread", ["karras", "exponential"])
def test_spread_levels_are_even_in_their_own_measure(spread):
    """Karras' in the seventh root, exponential ones in the logarithm."""
    timesteps = make_sampler(f"euler_{spread}", SCHEDULE, 9).timesteps.astype(np.float64)
    log_levels = np.interp(timesteps, np.arange(1000), np.log(LEVELS))
    measure = log_levels if spread == "exponential" else np.exp(log_levels / 7)
    np.testing.assert_allclose(np.diff(measure), np.diff(measure).mean(), rtol=1e-3)
    even = make_sampler("euler", SCHEDULE, 9).timesteps
    assert np.ptp(np.diff(np.interp(even, np.arange(1000), np.log(LEVELS)))) > 0.5  # negative control


def test_a_beta_spread_is_dense_at_both_ends():
    timesteps = make_sampler("euler_beta", SCHEDULE, 21).timesteps.astype(np.float64)
    widths = -np.diff(np.interp(timesteps, np.arange(1000), LEVELS))
    assert widths[10] > 2 * widths[0]
    assert widths[10] > 2 * widths[-1]
    np.testing.assert_allclose(widths, widths[::-1], rtol=0.02)  # the distribution is symmetric


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "lcm"])
def test_clipping_keeps_predicted_pictures_within_the_range(name, clip):
    schedule = SCHEDULE.but(clip_sample=clip, clip_sample_range=0.5)
    steps, _ = drawn(name, Gauss(PICTURE, 0), schedule)
    expected = np.clip(PICTURE, -0.5, 0.5) if clip else PICTURE
    assert np.abs(steps[-1].latents - expected).max() < tolerance(name)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_a_schedule_may_end_at_the_least_trained_noise(name):
    schedule = SCHEDULE.but(final_sigmas_type="sigma_min", timestep_spacing="trailing")
    (*_, last), _ = drawn(name, Gauss(PICTURE, 0), schedule)
    rest = last.latents - PICTURE
    assert 0.3 * LEVELS[0] < rest.std() < 3 * LEVELS[0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_schedule_may_begin_at_pure_noise(name):
    schedule = SCHEDULE.but(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    blind = name in {"ddim", "ddim_a", "ddpm", "lcm", "tcd"}  # whose first call would say nothing
    if blind:
        with pytest.raises(UnsupportedScheduleError, match="prediction_type='epsilon'"):
            make_sampler(name, schedule, 5)
    velocity = schedule.but(prediction_type="v_prediction")
    steps, _ = drawn(name, Gauss(PICTURE, 0, "v_prediction"), velocity)
    assert np.isfinite(steps[-1].latents).all()
    if blind:
        assert np.abs(steps[-1].latents - PICTURE).max() < tolerance(name)
    else:  # negative control: these make something of it
        make_sampler(name, schedule, 5)


def test_a_runge_kutta_start_needs_four_steps():
    with_start = SCHEDULE.but(skip_prk_steps=False)
    assert len(make_sampler("pndm", with_start, 4).timesteps) == 13
    with pytest.raises(StepsError, match="from 4 to 1000"):
        make_sampler("pndm", with_start, 3)
    steps, _ = drawn("pndm", Gauss(PICTURE, 0), with_start)
    assert np.abs(steps[-1].latents - PICTURE).max() < 1e-5


@pytest.mark.parametrize("name", ["plms", "ddim_karras", "euler_trained", "", "DDIM"])
def test_a_name_that_is_none_lists_those_that_are(name):
    with pytest.raises(UnknownSchedulerError, match=f"no scheduler '{name}'") as caught:
        make_sampler(name, SCHEDULE, 5)
    assert all(known in caught.value.hint for known in SAMPLERS)


def test_strengths_leave_a_step_or_are_refused():
    assert [first_call("ddim", 10, strength) for strength in (1, 0.55, 0.1)] == [0, 5, 9]
    assert first_call("heun_karras", 10, 0.55) == 10
    with pytest.raises(StrengthError):
        first_call("ddim", 10, 0.09)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"_class_name": "PNDMScheduler"}, "pndm"),
        ({"_class_name": "DDIMParallelScheduler"}, "ddim"),
        ({"_class_name": "TCDScheduler"}, "tcd_ode"),
        ({"_class_name": "DEISMultistepScheduler", "use_karras_sigmas": True}, "deis_karras"),
        ({"_class_name": "DPMSolverSinglestepScheduler", "solver_order": 3}, "dpmpp_3s"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_order": 3}, "unipc"),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "algorithm_type": "sde-dpmsolver",
                "final_sigmas_type": "sigma_min",
            },
            "dpm_2m_sde",
        ),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "euler_karras"),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "dpmpp_2m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "dpmpp_3m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "dpmpp_2m_sde"),
        ({"_class_name": "UniPCMultistepScheduler", "use_beta_sigmas": True}, "unipc_beta"),
        ({"_class_name": "LCMScheduler"}, "lcm"),
    ],
    ids=str,
)
def test_a_checkpoints_config_says_with_which_sampler_it_was_published(config, name):
    assert own_sampler(config) == name
    make_sampler(name, Schedule.from_config({**CONFIG, **config}), 5)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"_class_name": "NoSuchScheduler"},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
        {"_class_name": "DPMSolverSDEScheduler"},
        {"_class_name": "UniPCMultistepScheduler", "solver_p": "DDIMScheduler"},
        {"_class_name": "UniPCMultistepScheduler", "lower_order_final": False},  # divides by zero in diffusers, too
        {"_class_name": "DDPMScheduler", "variance_type": "learned_range"},
    ],
    ids=str,
)
def test_a_config_that_asks_for_what_is_not_implemented_is_refused(config):
    with pytest.raises(UnsupportedScheduleError, match="not implemented"):
        own_sampler(config)
