"""The judge: which concept on which colour does a picture show? Correlation with templates, nothing learned.

The background is the median of the border. What differs from it is correlated with every concept's template, placed
on that same background, at every size and position that fits into the frame; the highest correlation wins. Numpy and
Pillow suffice; the templates travel with the project, so no font is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from models.demo.knowledge import Knowledge, load_knowledge
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Accuracy", "Scorer", "Verdict", "load_scorer", "measure"]

FRAME = 64
"""Side in pixels at which pictures are compared: half of 128, since shapes decide and not texture."""

SIDES = (44, 48, 52, 56, 60)
"""Sizes of the templates in pixels of FRAME: 69 to 94 % of the picture."""

COLUMNS = 10
"""Templates per row of the sheet."""


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in one picture.

    Attributes:
        concept: name of the best template.
        color: name of the nearest background colour.
        correlation: of the picture with the best template, -1..1; below about 0.5 nothing is recognisable.
        distance: Euclidean distance in RGB (0..441) of the background from the named colour.
    """

    concept: str
    color: str
    correlation: float
    distance: float


@dataclass(frozen=True)
class Accuracy:
    """Shares in 0..1 of pictures that show what was asked for.

    Attributes:
        count: number of pictures.
        concept: share with the right concept.
        color: share with the right colour.
        both: share with both right.
    """

    count: int
    concept: float
    color: float
    both: float


class Scorer:
    """Templates prepared for correlation; made once, then asked about any number of pictures."""

    def __init__(self, knowledge: Knowledge, templates: NDArray[np.uint8]) -> None:
        """Prepare the templates.

        Args:
            knowledge: names of the concepts, in the order of `templates`, and the colours.
            templates: uint8 [concepts, height, width, 4], RGBA with straight alpha, the ink centred and filling the
                longer side.
        """
        self.knowledge = knowledge
        self._palette = np.array(list(knowledge.colors.values()), np.float32)
        stamps = np.zeros((len(templates), len(SIDES), 4, FRAME, FRAME), np.float32)
        for index, template in enumerate(templates):
            image = Image.fromarray(template, "RGBA").convert("RGBa")
            for place, side in enumerate(SIDES):
                start = (FRAME - side) // 2
                stamp = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 255
                stamps[index, place, :, start : start + side, start : start + side] = stamp.transpose(2, 0, 1)
        ink, alpha = stamps[:, :, :3], stamps[:, :, 3]
        # A template on a background b differs from it by ink - alpha b. Its square is a polynomial in b, and its
        # correlation with the picture is linear in b, so one set of transforms serves every background.
        self._spectra = np.conj(np.fft.rfft2(stamps)).astype(np.complex64)
        self._squares = np.square(ink).sum((2, 3, 4))
        self._crosses = np.einsum("nscyx,nsyx->nsc", ink, alpha)
        self._areas = np.square(alpha).sum((2, 3))
        self._allowed = np.stack([_inside(side) for side in SIDES])

    def judge(self, picture: NDArray[np.uint8]) -> Verdict:
        """Name what a picture shows.

        Args:
            picture: uint8 [128, 128, 3], RGB.

        Returns:
            The nearest concept and colour; a flat picture has correlation 0 and an arbitrary concept.
        """
        border = np.concatenate(
            [picture[:3], picture[-3:], picture[:, :3].swapaxes(0, 1), picture[:, -3:].swapaxes(0, 1)]
        )
        background = np.median(border.reshape(-1, 3), axis=0).astype(np.float32)
        distances = np.linalg.norm(self._palette - background, axis=1)
        color = int(distances.argmin())
        correlations = self._correlate(picture, background / 255)
        concept = int(correlations.argmax())
        return Verdict(
            concept=self.knowledge.names[concept],
            color=list(self.knowledge.colors)[color],
            correlation=float(correlations[concept]),
            distance=float(distances[color]),
        )

    def _correlate(self, picture: NDArray[np.uint8], background: NDArray[np.float32]) -> NDArray[np.float32]:
        """Highest normalised correlation over sizes and positions, float32 [concepts]."""
        cell = picture.shape[0] // FRAME
        small = picture.reshape(FRAME, cell, FRAME, cell, 3).mean((1, 3), dtype=np.float32) / 255
        signal = (small - background).transpose(2, 0, 1)
        energy = float(np.square(signal).sum())
        if energy == 0:
            return np.zeros(len(self.knowledge.names), np.float32)
        spectrum = np.fft.rfft2(signal).astype(np.complex64)
        ink = np.einsum("nscyx,cyx->nsyx", self._spectra[:, :, :3], spectrum)
        alpha = self._spectra[:, :, 3] * np.einsum("c,cyx->yx", background, spectrum)
        products = np.fft.irfft2(ink - alpha, s=(FRAME, FRAME))
        best = np.where(self._allowed, products, -np.inf).max((2, 3))
        norms = self._squares - 2 * self._crosses @ background + self._areas * float(np.square(background).sum())
        correlations: NDArray[np.float32] = (best / np.sqrt(norms * energy)).max(1).astype(np.float32)
        return correlations


def _inside(side: int) -> NDArray[np.bool_]:
    """Circular shifts, bool [FRAME, FRAME], that keep a centred square of `side` pixels within the frame."""
    free = (FRAME - side) // 2
    shifts = np.abs(np.fft.fftfreq(FRAME, 1 / FRAME)) <= free
    allowed: NDArray[np.bool_] = shifts[:, None] & shifts[None, :]
    return allowed


def load_scorer(folder: Path) -> Scorer:
    """Make the judge from `concepts.json` and `templates.png` in the demo's folder."""
    knowledge = load_knowledge(folder / "concepts.json")
    with Image.open(folder / "templates.png") as image:
        sheet: NDArray[np.uint8] = np.asarray(image.convert("RGBA"))
    side = sheet.shape[1] // COLUMNS
    rows = sheet.reshape(-1, side, COLUMNS, side, 4).swapaxes(1, 2).reshape(-1, side, side, 4)
    return Scorer(knowledge, rows[: len(knowledge.names)])


def measure(
    scorer: Scorer, pictures: Iterable[NDArray[np.uint8]], asked: Iterable[tuple[str, str]]
) -> tuple[Accuracy, list[Verdict]]:
    """Judge many pictures against the (concept, colour) pairs they were asked to show.

    Raises:
        ValueError: the two differ in length, or there are none.
    """
    verdicts: list[Verdict] = []
    right: list[Any] = []
    for picture, (concept, color) in zip(pictures, asked, strict=True):
        verdict = scorer.judge(picture)
        verdicts.append(verdict)
        right.append((verdict.concept == concept, verdict.color == color))
    if not verdicts:
        message = "there is no picture to judge"
        raise ValueError(message)
    hits = np.array(right)
    return (
        Accuracy(
            count=len(verdicts),
            concept=float(hits[:, 0].mean()),
            color=float(hits[:, 1].mean()),
            both=float(hits.all(1).mean()),
        ),
        verdicts,
    )
