"""From samples to rows, and from rows to a Markdown table with the ratios first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from bench.peers.catalogue import ORIGINAL, OURS, Peer
from bench.peers.measure import Sample
from bench.peers.processes import Setup, Start
from numpy.typing import NDArray
from PIL import Image

from nano_export.judge.metrics import psnr_db

__all__ = ["Row", "control_psnr_db", "markdown", "rows"]


@dataclass(frozen=True)
class Row:
    """One peer; times are medians in seconds without the first run, memory in GB (10^9 bytes).

    Attributes:
        name: as in the catalogue.
        title: as in the catalogue.
        ratios: the peer's time for a picture over that of ours in the same rounds, by the name of ours.
        image_s: a warm picture, from prompt to pixels.
        start_s: from the start of a process to its first PNG.
        start_cached_s: the same with the library's cache of compiled graphs, None if it has none; of ours, which always
            has those, with a prompt that an earlier process drew.
        peak_rss_gb: of such a process.
        peak_rss_cached_gb: the same with the cache.
        psnr_db: mean over the pictures, against the original's from the same noise; None where they cannot be compared.
    """

    name: str
    title: str
    ratios: dict[str, float]
    image_s: float
    start_s: float
    start_cached_s: float | None
    peak_rss_gb: float
    peak_rss_cached_gb: float | None
    psnr_db: float | None


def rows(peers: Iterable[Peer], starts: Sequence[Start], samples: Sequence[Sample], setup: Setup) -> list[Row]:
    """Put the samples together, the quickest first."""
    found = [_row(peer, starts, samples, setup) for peer in peers]
    return sorted(found, key=lambda row: row.image_s)


def control_psnr_db(samples: Sequence[Sample], setup: Setup) -> float | None:
    """Compare the original's pictures with its own next ones: what a peer with other weights or noise would score."""
    originals = [_picture(setup, ORIGINAL.name, run) for run in sorted(_runs(samples, ORIGINAL.name))]
    if len(originals) < 2:  # noqa: PLR2004 - a pair
        return None
    return float(np.mean([psnr_db(one, other, 255) for one, other in pairwise(originals)]))


def markdown(table: Sequence[Row], control_db: float | None) -> str:
    """Return the table, each peer's time over ours in the first columns."""
    ours = [peer for peer in OURS if any(peer.name in row.ratios for row in table)]
    head = ["", *(f"times {peer.title}" for peer in ours), "image s", "start to PNG s", "peak memory GB", "PSNR dB"]
    lines = [head, ["---"] * len(head)]
    lines += [
        [
            row.title,
            *(f"{row.ratios[peer.name]:.2f}" for peer in ours),
            f"{row.image_s:.2f}",
            _both(row.start_s, row.start_cached_s, 1),
            _both(row.peak_rss_gb, row.peak_rss_cached_gb, 2),
            "" if row.psnr_db is None else f"{row.psnr_db:.1f}",
        ]
        for row in table
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [
        "In brackets: with the library's own cache of compiled graphs, filled by an earlier start.",
        "Nano always has those, and in brackets draws a prompt that an earlier start drew.",
    ]
    if control_db is not None:
        notes.append(
            f"PSNR against diffusers from the same noise; from different noise its own score {control_db:.1f}."
        )
    return f"{text}\n\n{' '.join(notes)}\n"


def _row(peer: Peer, starts: Sequence[Start], samples: Sequence[Sample], setup: Setup) -> Row:
    plain = [start for start in starts if start.peer == peer.name and not start.cached and start.run > 0]
    cached = [start for start in starts if start.peer == peer.name and start.cached and start.run > 0]
    return Row(
        name=peer.name,
        title=peer.title,
        ratios={ours.name: ratio for ours in OURS if (ratio := _ratio(peer.name, ours.name, samples)) is not None},
        image_s=median(sample.ms for sample in samples if sample.peer == peer.name and sample.run > 0) / 1e3,
        start_s=median(start.ms for start in plain) / 1e3,
        start_cached_s=median(start.ms for start in cached) / 1e3 if cached else None,
        peak_rss_gb=max(start.peak_rss_bytes for start in plain) / 1e9,
        peak_rss_cached_gb=max(start.peak_rss_bytes for start in cached) / 1e9 if cached else None,
        psnr_db=_psnr_db(peer, samples, setup),
    )


def _ratio(name: str, ours: str, samples: Sequence[Sample]) -> float | None:
    """Return the median over rounds of a peer's time over ours in the same round; None if they never met."""
    times = {(sample.peer, sample.group, sample.run): sample.ms for sample in samples if sample.run > 0}
    ratios = [
        ms / times[ours, group, run]
        for (peer, group, run), ms in times.items()
        if peer == name and (ours, group, run) in times
    ]
    return median(ratios) if ratios else None


def _psnr_db(peer: Peer, samples: Sequence[Sample], setup: Setup) -> float | None:
    """Return the mean over the runs that the original drew, too."""
    runs = _runs(samples, peer.name) & _runs(samples, ORIGINAL.name)
    if not peer.takes_noise or peer.own_sampling or peer == ORIGINAL or not runs:
        return None
    scores = [psnr_db(_picture(setup, peer.name, run), _picture(setup, ORIGINAL.name, run), 255) for run in runs]
    return float(np.mean(scores))


def _runs(samples: Sequence[Sample], name: str) -> set[int]:
    return {sample.run for sample in samples if sample.peer == name}


def _picture(setup: Setup, name: str, run: int) -> NDArray[np.float32]:
    """Return pixels, float32 [height, width, 3] in 0..255."""
    with Image.open(setup.picture(name, run)) as image:
        return np.asarray(image, np.float32)


def _both(plain: float, cached: float | None, digits: int) -> str:
    """Write a figure, and in brackets the one with a cache."""
    return f"{plain:.{digits}f}" if cached is None else f"{plain:.{digits}f} ({cached:.{digits}f})"
