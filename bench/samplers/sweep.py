"""Draws the same prompts with every sampler, number of steps and preset, and keeps the verdict on each picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bench.quality import Drawn, drawn_by
from models.demo.score import Scorer

from nano_export.judge.metrics import psnr_db, ssim
from nano_runtime.bundle.manifest import Quality
from nano_runtime.pictures.pixels import to_uint8
from nano_runtime.pipeline import Pipeline
from nano_runtime.sampling.samplers import SAMPLERS

__all__ = [
    "CELLS",
    "CONTROLS",
    "FEW",
    "REFERENCE",
    "STEPS",
    "TOGETHER",
    "Cell",
    "Judged",
    "Kept",
    "arranged",
    "cells_of",
    "decisive",
    "sweep",
]

STEPS = (4, 6, 8, 9, 10, 12, 15, 20, 25, 30, 50)
TOGETHER = 4
"""Pictures that share a UNet call."""
FEW = 20
"""A cell with up to so many steps draws all prompts; one with more draws those of the first groups only."""
_GROUPS_OF_MANY, _GROUPS_OF_CONTROLS = 4, 2


@dataclass(frozen=True)
class Cell:
    """One way to draw; ``steps`` is the user's number, not that of the UNet calls."""

    scheduler: str
    steps: int
    quality: Quality = "exact"


REFERENCE = Cell("ddim", 200)
"""The limit of deterministic samplers with many steps. They follow one differential equation, the probability
flow of Song et al. 2021, so any of them would do; ``CONTROLS`` show how nearly. Samplers that add noise draw other
pictures of the same prompt, however many steps they make: their distance says that it is another one, not a bad one."""

CONTROLS = (
    *(Cell(name, 200) for name in ("pndm", "euler", "heun", "dpmpp_2m", "euler_a")),
    *(Cell(name, 199) for name in ("dpmpp_2m", "unipc")),
)
"""Many steps by others, for the first few prompts. Of n steps with the leading spacing, diffusers' DPM-Solver++ and
UniPC begin at timestep 1000 // (n + 1) * n + 1: 996 of 1000 for 199 steps, and 801 for 200, which has to be far away,
as ``euler_a`` has to be, which adds noise."""

_SPREAD = ("dpmpp_2m_karras", "dpmpp_2m_exponential", "dpmpp_2m_beta", "unipc_karras")
CELLS = (
    *(Cell(name, steps) for name in SAMPLERS for steps in STEPS),
    *(Cell(name, steps) for name in _SPREAD for steps in STEPS if steps <= FEW),
    *(
        Cell(name, steps, quality)
        for quality in ("balanced", "fast")
        for name in ("pndm", "unipc_karras")
        for steps in STEPS[2:]  # fewer leave nothing to skip
    ),
)


@dataclass(frozen=True)
class Judged:
    """The verdict on one picture.

    Attributes:
        cell: the way it was drawn.
        seed: its seed.
        concept: whether it shows the concept asked for.
        color: whether its ground has the colour asked for.
        correlation: of the picture with the best template, -1..1: how clean the drawing is.
        image_psnr_db: distance from the reference of the same prompt and seed, as the next two.
        image_ssim: structural similarity.
        latent_psnr_db: of the final latents.
    """

    cell: Cell
    seed: int
    concept: bool
    color: bool
    correlation: float
    image_psnr_db: float
    image_ssim: float
    latent_psnr_db: float


class Kept:
    """A file with one line for every picture judged so far. A sweep that is started again continues after the last.

    Args:
        folder: folder of the files.
        said: all that the verdicts depend on; another bundle or other prompts get a file of their own.
    """

    def __init__(self, folder: Path, said: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{hashlib.sha256(repr(said).encode()).hexdigest()[:16]}.jsonl"
        if self.path.is_file():
            whole = self.path.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            with self.path.open("r+b") as file:
                file.truncate(len(whole))  # a line that was cut off when a sweep was ended

    def add(self, judged: Sequence[Judged]) -> None:
        """Append the pictures of one call."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(one)) + "\n" for one in judged))

    def read(self) -> list[Judged]:
        """Return all pictures."""
        if not self.path.is_file():
            return []
        raw = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [Judged(**{**one, "cell": Cell(**one["cell"])}) for one in raw]


def arranged(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Reorder pairs so that the first few groups resemble all of them; held-out pairs come first otherwise."""
    groups = -(-len(pairs) // TOGETHER)
    return [pair for first in range(groups) for pair in pairs[first::groups]]


def decisive(pipe: Pipeline, pairs: Sequence[tuple[str, str]]) -> tuple[object, ...]:
    """Return all that pictures depend on."""
    manifest = pipe.bundle.manifest
    meant = {name: (preset.cache_interval, preset.guidance_interval) for name, preset in manifest.presets.items()}
    files = [(entry.path, entry.sha256) for entry in manifest.files]
    return files, manifest.scheduler, manifest.guidance_scale, meant, pipe.backend, list(pairs)


def sweep(pipe: Pipeline, pairs: Sequence[tuple[str, str]], scorer: Scorer, kept: Kept) -> Iterator[Cell]:
    """Draw and judge all that is not kept yet, and yield each cell. Prompts are outermost, so cells advance together.

    Args:
        pipe: of the demo's bundle.
        pairs: (concept, colour) of each picture; picture i is drawn from seed i.
        scorer: the judge.
        kept: the verdicts so far; new ones are added.
    """
    done = {(one.cell, one.seed) for one in kept.read()}
    for first in range(0, len(pairs), TOGETHER):
        group = pairs[first : first + TOGETHER]
        expected: Drawn | None = None
        for cell in cells_of(first):
            if (cell, first) not in done:
                expected = _draw(pipe, REFERENCE, group, first, scorer) if expected is None else expected
                drawn = _draw(pipe, cell, group, first, scorer)
                kept.add([_judge(cell, first + i, pair, (drawn, expected), scorer) for i, pair in enumerate(group)])
            yield cell


def cells_of(first: int) -> list[Cell]:
    """Return the cells of the group that begins with this seed."""
    group = first // TOGETHER
    cells = [cell for cell in CELLS if cell.steps <= FEW or group < _GROUPS_OF_MANY]
    return [*cells, *(CONTROLS if group < _GROUPS_OF_CONTROLS else ())]


def _draw(pipe: Pipeline, cell: Cell, group: Sequence[tuple[str, str]], first: int, scorer: Scorer) -> Drawn:
    prompts = [scorer.knowledge.prompt(concept, color) for concept, color in group]
    events = pipe.stream(
        prompts,
        num_inference_steps=cell.steps,
        scheduler=cell.scheduler,
        quality=cell.quality,
        seed=first,
        output_type="np",
    )
    return drawn_by(events)


def _judge(cell: Cell, seed: int, asked: tuple[str, str], both: tuple[Drawn, Drawn], scorer: Scorer) -> Judged:
    """Judge one picture of a group, and compare it with the reference's."""
    place = seed % TOGETHER
    (image, expected), (latents, final) = (
        [getattr(one, name)[place] for one in both] for name in ("images", "latents")
    )
    verdict = scorer.judge(to_uint8(np.asarray(image)))
    return Judged(
        cell=cell,
        seed=seed,
        concept=verdict.concept == asked[0],
        color=verdict.color == asked[1],
        correlation=round(verdict.correlation, 5),
        image_psnr_db=round(psnr_db(image, expected, 1.0), 3),
        image_ssim=round(ssim(image, expected, 1.0), 5),
        latent_psnr_db=round(psnr_db(latents, final, float(final.max() - final.min())), 3),
    )
