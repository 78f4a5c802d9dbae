"""The noise of seeds: some numbers that torch 2.13 drew, and streams that go on; tests/parity compares millions."""

from __future__ import annotations

import numpy as np
import pytest

from nano_runtime.errors import SeedError
from nano_runtime.sampling.noise import TorchGenerator, noise_source, randn

# torch.randn(16, generator=torch.Generator("cpu").manual_seed(0)), and the same for 4 and the last five of 20.
SIXTEEN = np.array(
    [
        *(-1.1258398294448853, -1.152360200881958, -0.2505785822868347, -0.4338788092136383, 0.8487103581428528),
        *(0.6920091509819031, -0.31601276993751526, -2.1152193546295166, 0.32227492332458496, -1.2633347511291504),
        *(0.34998318552970886, 0.30813392996788025, 0.11984150856733322, 1.237657904624939, 1.1167771816253662),
        -0.2472781538963318,
    ],
    np.float32,
)
FOUR = np.array([1.5409960746765137, -0.293428897857666, -2.1787893772125244, 0.5684312582015991], np.float32)
LAST_OF_TWENTY = np.array([-0.843676745891571, 0.9318265914916992, 1.2590092420578003, 2.0049805641174316], np.float32)


def test_known_seeds_draw_torchs_bits():
    assert randn(0, (16,)).tobytes() == SIXTEEN.tobytes()
    assert randn(0, (2, 2)).tobytes() == FOUR.tobytes()
    assert randn(0, (20,))[15:19].tobytes() == LAST_OF_TWENTY.tobytes()  # the last 16 are drawn anew
    assert randn(0, (20,))[:4].tobytes() == SIXTEEN[:4].tobytes()
    assert np.abs(randn(1, (16,)) - SIXTEEN).min() > 1e-3


def test_small_draws_share_one_stream_with_large_ones():
    one_by_one = TorchGenerator(0)
    np.testing.assert_array_equal(np.concatenate([one_by_one.randn((1,)) for _ in range(4)]), FOUR)
    mixed = TorchGenerator(0)
    first, large, second = mixed.randn((1,)), mixed.randn((16,)), mixed.randn((1,))
    np.testing.assert_array_equal([first[0], second[0]], FOUR[:2])  # the second of a pair waits
    assert not np.array_equal(large, SIXTEEN)


def test_only_the_low_32_bits_of_a_seed_matter():
    np.testing.assert_array_equal(randn(7 + 2**32, (16,)), randn(7, (16,)))
    assert not np.array_equal(randn(8, (16,)), randn(7, (16,)))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(SeedError, match=str(seed)):
        randn(seed, (4,))
    randn(2**64 - 1, (4,))


def test_every_picture_of_a_batch_has_a_stream_of_its_own():
    noise = noise_source((3, 4), (4, 4, 4))
    first, second = noise(), noise()
    for row, seed in enumerate((3, 4)):
        alone = TorchGenerator(seed)
        np.testing.assert_array_equal(first[row], alone.randn((4, 4, 4)))
        np.testing.assert_array_equal(second[row], alone.randn((4, 4, 4)))
    assert not np.array_equal(first, second)


def test_noise_is_normal():
    """Of 100,000 draws the mean lies within 0.01 (3 deviations), and so do the shares below one and two deviations."""
    drawn = randn(11, (100_000,))
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1, abs=0.01)
    for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(drawn) < bound).mean() == pytest.approx(share, abs=0.005)
