"""The comparison with other libraries: what it may not get wrong without anybody seeing it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.peers.catalogue import BEST, ORIGINAL, OURS, PEERS, Peer
from bench.peers.commands import PeerError
from bench.peers.measure import Sample, groups, write_noise
from bench.peers.processes import Conditions, Setup, Start, Worker
from bench.peers.report import control_psnr_db, markdown, rows
from PIL import Image

GB = 10**9

# A library that prints to the descriptor itself, and makes as many calls as its options say.
LOUD = """
import os, sys
sys.path.insert(0, {workers!r})
import numpy as np
from serve import Picture, serve

def load(job):
    os.write(1, b"loading\\n")
    def draw(prompt, noise):
        print("drawing", prompt)
        level = np.clip(128 + 64 * noise[0, 0], 0, 255).astype(np.uint8)
        return Picture(np.repeat(level[:, :, None], 3, axis=2), int(job.options["calls"]))
    return draw

serve(load)
"""


def setup_of(folder: Path, peer: Peer) -> Setup:
    for name in ("logs", "pictures"):
        (folder / name).mkdir(exist_ok=True)
    noise = folder / "noise.npy"
    write_noise(noise, runs=1, size=128)
    return Setup(Conditions("a red fox", 1, 20, 7.5, 128), {peer.name: folder}, noise, folder)


def loud(folder: Path, calls: int) -> Peer:
    workers = Path(__file__).parents[2] / "bench/peers/workers"
    script = folder / "loud.py"
    script.write_text(LOUD.format(workers=str(workers)), encoding="utf-8")
    return Peer("loud", "loud", str(script.with_suffix("")), None, "checkpoint", {"calls": str(calls)})


def test_a_worker_answers_whatever_its_library_prints_and_draws_from_the_given_noise(tmp_path):
    peer = loud(tmp_path, calls=21)
    setup = setup_of(tmp_path, peer)
    with closing(Worker(peer, setup, cached=False)) as worker:
        worker.loaded()
        answer = worker.draw(1, setup.picture(peer.name, 1))
    assert answer.calls == 21
    assert answer.peak_rss_bytes > 10 * 10**6  # numpy alone is more
    expected = np.clip(128 + 64 * np.load(setup.noise)[1, 0], 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(setup.picture(peer.name, 1)))[:, :, 0], expected)
    assert "loading\ndrawing a red fox 1" in setup.log("worker", peer.name).read_text()


def test_a_peer_that_makes_fewer_unet_calls_is_an_error_not_a_winner(tmp_path):
    peer = loud(tmp_path, calls=20)
    setup = setup_of(tmp_path, peer)
    with closing(Worker(peer, setup, cached=False)) as worker:
        worker.loaded()
        with pytest.raises(PeerError, match="20 UNet calls, not 21"):
            worker.draw(0, setup.picture(peer.name, 0))


def test_only_who_says_so_may_make_fewer_unet_calls(tmp_path):
    peer = replace(loud(tmp_path, calls=10), own_sampling=True)
    setup = setup_of(tmp_path, peer)
    with closing(Worker(peer, setup, cached=False)) as worker:
        worker.loaded()
        assert worker.draw(0, setup.picture(peer.name, 0)).calls == 10
    assert [peer.name for peer in (*OURS, *PEERS) if peer.own_sampling and not peer.optional] == []


def test_a_worker_that_dies_says_why(tmp_path):
    peer = loud(tmp_path, calls=21)
    (tmp_path / "loud.py").write_text("raise SystemExit('no such library')", encoding="utf-8")
    with (
        closing(Worker(peer, setup_of(tmp_path, peer), cached=False)) as worker,
        pytest.raises(PeerError, match="no such library"),
    ):
        worker.loaded()


@pytest.mark.parametrize("available", [None, 12 * GB, 16 * GB, 40 * GB])
def test_groups_fit_into_memory_and_ours_meet_every_peer(available):
    peers = [*OURS, *PEERS]
    peaks = {peer.name: (1 + index % 6) * GB for index, peer in enumerate(peers)}
    divided = groups(peers, peaks, available)
    always = {*(peer.name for peer in OURS), BEST.name}
    needed = sum(peaks[name] for name in always)
    for group in divided:
        names = {peer.name for peer in group}
        assert always <= names
        alone = len(names) == len(always) + 1  # one more is tried even if it may not fit
        assert alone or (available is not None and needed + sum(peaks[name] for name in names - always) <= available)
    met = [peer.name for group in divided for peer in group if peer.name not in always]
    assert sorted(met) == sorted(peer.name for peer in peers if peer.name not in always)
    assert len(divided) > 1 or available == 40 * GB


def test_ratios_are_taken_within_a_round_so_a_machine_that_slows_down_changes_none(tmp_path):
    ours, slow, fast = OURS[0], ORIGINAL, BEST
    pace = {ours.name: 2.0, slow.name: 16.0, fast.name: 3.0}
    samples = []
    seconds: dict[str, list[float]] = {name: [] for name in pace}
    for group, members in enumerate(((ours, fast), (ours, slow))):
        for run in range(3):
            for peer in members:
                drift = (1 + 2 * group) * (1 + 0.1 * run) * (1 if run else 5)  # the first is not warm
                samples.append(Sample(peer.name, group, run, pace[peer.name] * drift * 1e3, 21, GB))
                if run > 0:
                    seconds[peer.name].append(pace[peer.name] * drift)
    setup = setup_of(tmp_path, ours)
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (3, 16, 16, 3))
    for run, picture in enumerate(originals):
        for peer, error in ((slow, 0), (fast, 4), (ours, 1)):
            noisy = np.clip(picture + error * rng.choice([-1, 1], picture.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(setup.picture(peer.name, run))
    starts = [Start(peer.name, cached=False, run=run, ms=5e3, peak_rss_bytes=GB) for peer in (ours, slow, fast)
              for run in range(2)]  # fmt: skip

    table = {row.name: row for row in rows((ours, slow, fast), starts, samples, setup)}
    assert table[slow.name].ratios[ours.name] == pytest.approx(8)
    assert table[fast.name].ratios[ours.name] == pytest.approx(1.5)
    # The negative control: medians over all warm pictures would give another figure.
    naive = np.median(seconds[slow.name]) / np.median(seconds[ours.name])
    assert abs(naive - 8) > 1

    # An error of 1 or 4 in 255, less where it is cut off: 48.1 and 36.1 dB.
    assert table[ours.name].psnr_db == pytest.approx(48.1, abs=0.2)
    assert table[fast.name].psnr_db == pytest.approx(36.1, abs=0.2)
    control = control_psnr_db(samples, setup)
    assert control is not None
    assert control < 10  # unrelated pictures
    assert "| diffusers, torch fp32 | 8.00 |" in markdown(list(table.values()), control)
