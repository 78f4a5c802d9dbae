"""Noise against torch's CPU generator: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nano_runtime.errors import SeedError
from nano_runtime.sampling import noise
from nano_runtime.sampling.noise import TorchGenerator, randn

# Seeds that differ only above bit 31 draw the same in torch; both ends of the range and a middle are here.
SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 2**63 + 5, 2**64 - 1]
# Latents; whole blocks; a remainder that is drawn anew; one by one, below 16; a scalar; nothing.
SHAPES = [(1, 4, 16, 16), (2, 4, 16, 16), (16,), (17,), (31,), (100,), (15,), (3, 2), (1,), (), (0, 4)]

needs_avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch draws other bits on this machine: its kernel for 16 elements and more needs AVX2",
)


def drawn_by_torch(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(shape, generator=generator).numpy() for shape in shapes]


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Bytes, not values: -0 is not 0 here."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@needs_avx2
def test_one_generator_for_several_pictures_gives_all_but_the_first_other_noise():
    """As the documents say: a list of generators draws ours."""
    shape = (4, 16, 16)
    together, ours = drawn_by_torch(7, (2, *shape))[0], [randn(seed, shape) for seed in (7, 8)]
    assert same_bits(together[0], ours[0])
    assert float(np.abs(together[1] - ours[1]).max()) > 1


@needs_avx2
@pytest.mark.parametrize("seed", SEEDS)
def test_every_shape_has_torchs_bits(seed):
    for shape in SHAPES:
        assert same_bits(randn(seed, shape), drawn_by_torch(seed, shape)[0]), shape


@needs_avx2
def test_a_million_draws_have_torchs_bits():
    assert same_bits(randn(7, (1_000_003,)), drawn_by_torch(7, (1_000_003,))[0])


@needs_avx2
def test_successive_draws_share_one_stream():
    # The second normal of a pair waits across a large draw, which neither uses nor drops it.
    shapes = [(3,), (16,), (2, 2), (40,), (1,), (0,), (1,), (7,), (1, 4, 16, 16), (5,)]
    generator = TorchGenerator(9)
    for ours, theirs in zip([generator.randn(shape) for shape in shapes], drawn_by_torch(9, *shapes), strict=True):
        assert same_bits(ours, theirs)


def test_any_machine_is_close_to_torch():
    # 1e-5 is four times the largest difference seen with torch's kernel for machines without AVX2.
    assert np.abs(randn(3, (100_000,)) - drawn_by_torch(3, (100_000,))[0]).max() < 1e-5


def test_another_seed_is_far_from_torch():
    assert not same_bits(randn(1, (64,)), drawn_by_torch(0, (64,))[0])
    assert np.abs(randn(1, (64,)) - drawn_by_torch(0, (64,))[0]).max() > 1e-1


@needs_avx2
def test_without_fused_steps_the_bits_differ(monkeypatch):
    monkeypatch.setattr(noise, "_fma", lambda a, b, c: (a * b + c).astype(np.float32))
    assert not same_bits(randn(0, (1024,)), drawn_by_torch(0, (1024,))[0])


def test_fused_step_is_rounded_once():
    fma = noise._fma  # noqa: SLF001 - random draws would meet this case once in millions
    # The exact sum lies 2.5e-17 above the middle between 1 and the next float32: float64 has no room for that, rounds
    # to the middle, and a second rounding goes down to 1.
    a = np.array([float.fromhex("0x1.000ff2p-12")], np.float32)
    b = np.array([float.fromhex("0x1.ffe01ep-13")], np.float32)
    one = np.array([1], np.float32)
    twice_rounded = (a.astype(np.float64) * b.astype(np.float64) + 1.0).astype(np.float32)
    assert fma(a, b, one)[0] == np.nextafter(np.float32(1), np.float32(2))
    assert fma(-a, b, -one)[0] == -np.nextafter(np.float32(1), np.float32(2))
    assert twice_rounded[0] == 1


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_outside_64_bits_are_refused(seed):
    with pytest.raises(SeedError):
        randn(seed, (4,))
