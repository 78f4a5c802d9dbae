"""How well bundles of the demo model draw what was asked, and how far they are from the original: accuracy, PSNR, SSIM.

    python -m bench.quality build/demo build/demo-fp32 --count 400
    python -m bench.quality build/demo --quality exact --quality balanced --quality fast
    python -m bench.quality build/demo --default

Every prompt is drawn from the same seed by the checkpoint in fp32 torch, with diffusers' own pipeline, and by each
bundle on each engine. The pictures are judged by `models/demo/score.py`; the last column, pictures judged by the next
one's prompt, is the negative control: chance is 1 % for concepts and 8 % for colours. The original's pictures are kept
in build/quality.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from models.demo.knowledge import Knowledge
from models.demo.score import Scorer, load_scorer, measure
from tqdm import tqdm

from nano_export.judge.metrics import psnr_db, relative_rmse, ssim
from nano_export.judge.original import diffusers_pipeline
from nano_export.source.card import parameter
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.arrays import F32
from nano_runtime.bundle.folder import Bundle
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.manifest import Quality as Preset
from nano_runtime.engines.base import PRECISIONS, Precision
from nano_runtime.pictures.pixels import to_uint8
from nano_runtime.pipeline import Pipeline, Progress, Result

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "models/demo"
TOGETHER = 8
"""Pictures the original draws in one call."""


@dataclass(frozen=True)
class Task:
    """What everybody draws: picture i is prompt i from seed i.

    Attributes:
        pairs: (concept, colour) of each picture.
        steps: PNDM steps of the original.
        default: whether bundles draw with their own default sampler and steps, instead of those.
        guidance: scale of classifier-free guidance.
        precision: in which bundles compute what is not quantized.
    """

    pairs: list[tuple[str, str]]
    steps: int
    default: bool
    guidance: float
    precision: Precision = "f32"

    def prompts(self, knowledge: Knowledge) -> list[str]:
        """The sentences."""
        return [knowledge.prompt(concept, color) for concept, color in self.pairs]


@dataclass(frozen=True)
class Drawn:
    """Pictures, float32 [n, 128, 128, 3] in 0..1, and their final latents, float32 [n, 4, 16, 16]."""

    images: F32
    latents: F32


@dataclass(frozen=True)
class Quality:
    """One row of the table: shares in 0..1, and mean distances from the original, absent for the original itself."""

    name: str
    concept: float
    color: float
    trained_both: float
    held_out_both: float
    correlation: float
    shuffled_concept: float
    shuffled_color: float
    image_psnr_db: float | None
    image_ssim: float | None
    latent_psnr_db: float | None
    latent_relative_rmse: float | None


def original(task: Task, knowledge: Knowledge, folder: Path) -> Drawn:
    """Draw with diffusers in fp32 torch, or read what was drawn before with the same checkpoint and settings."""
    digest = hashlib.sha256(repr((task.pairs, task.steps, task.guidance)).encode())
    for path in sorted((DEMO / "checkpoint").rglob("*.safetensors")):
        digest.update(path.read_bytes())
    kept = folder / f"{digest.hexdigest()[:16]}.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            return Drawn(arrays["images"], arrays["latents"])
    model = open_checkpoint("demo", None)
    pipeline = diffusers_pipeline(model)
    prompts = task.prompts(knowledge)
    images, latents = [], []
    with torch.inference_mode():
        for first in tqdm(range(0, len(prompts), TOGETHER), desc="original", unit_scale=TOGETHER, unit="picture"):
            seeds = range(first, min(first + TOGETHER, len(prompts)))
            final = pipeline(
                prompts[first : first + TOGETHER],
                height=128,
                width=128,
                num_inference_steps=task.steps,
                guidance_scale=task.guidance,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="latent",
            ).images
            decoded = model.vae.decode(final / model.vae.config.scaling_factor).sample
            images.append((decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
            latents.append(final.numpy())
    drawn = Drawn(np.concatenate(images), np.concatenate(latents))
    folder.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npz")
    np.savez(partial, images=drawn.images, latents=drawn.latents)
    partial.replace(kept)
    return drawn


def draw(bundle: Path, backend: Backend, quality: Preset, task: Task, knowledge: Knowledge) -> Drawn:
    """Draw with a bundle, one picture at a time, as a user would."""
    pipe = Pipeline.from_pretrained(bundle, backend, precision=task.precision)
    drawn = []
    title = f"{bundle.name} {backend} {quality}"
    for seed, prompt in enumerate(tqdm(task.prompts(knowledge), desc=title, unit="picture")):
        events = pipe.stream(
            prompt,
            num_inference_steps=None if task.default else task.steps,
            scheduler=None if task.default else "pndm",
            guidance_scale=task.guidance,
            quality=quality,
            seed=seed,
            output_type="np",
        )
        drawn.append(drawn_by(events))
    pipe.close()
    return Drawn(np.concatenate([one.images for one in drawn]), np.concatenate([one.latents for one in drawn]))


def drawn_by(events: Iterator[Progress | Result]) -> Drawn:
    """Run a stream of pictures that share their UNet calls, at most four, with ``output_type="np"``."""
    final: F32 | None = None
    for event in events:
        if isinstance(event, Result):
            return Drawn(np.asarray(event.images, np.float32), np.asarray(final))
        final = event.latents.copy()
    raise AssertionError("a stream ends with its result")


def judge(name: str, drawn: Drawn, expected: Drawn | None, task: Task, scorer: Scorer) -> Quality:
    """Score pictures, and compare them with the original's."""
    pixels = [to_uint8(image) for image in drawn.images]
    held = [pair in scorer.knowledge.held_out for pair in task.pairs]
    everything, verdicts = measure(scorer, pixels, task.pairs)
    hits = np.array(
        [(v.concept, v.color) == pair for v, pair in zip(verdicts, task.pairs, strict=True)],
        np.float64,
    )
    shuffled = [
        (v.concept == concept, v.color == color)
        for v, (concept, color) in zip(verdicts, [*task.pairs[1:], task.pairs[0]], strict=True)
    ]
    return Quality(
        name=name,
        concept=everything.concept,
        color=everything.color,
        trained_both=float(hits[~np.array(held)].mean()),
        held_out_both=float(hits[held].mean()),
        correlation=float(np.mean([verdict.correlation for verdict in verdicts])),
        shuffled_concept=float(np.mean([concept for concept, _ in shuffled])),
        shuffled_color=float(np.mean([color for _, color in shuffled])),
        **_distances(drawn, expected),
    )


def _distances(drawn: Drawn, expected: Drawn | None) -> dict[str, float | None]:
    """Mean distances of pictures and latents from the original's."""
    if expected is None:
        return dict.fromkeys(("image_psnr_db", "image_ssim", "latent_psnr_db", "latent_relative_rmse"))
    images = list(zip(drawn.images, expected.images, strict=True))
    latents = list(zip(drawn.latents, expected.latents, strict=True))
    return {
        "image_psnr_db": float(np.mean([psnr_db(ours, theirs, 1.0) for ours, theirs in images])),
        "image_ssim": float(np.mean([ssim(ours, theirs, 1.0) for ours, theirs in images])),
        "latent_psnr_db": float(np.mean([psnr_db(a, e, float(e.max() - e.min())) for a, e in latents])),
        "latent_relative_rmse": float(np.mean([relative_rmse(a, e) for a, e in latents])),
    }


def run(options: argparse.Namespace) -> Iterator[Quality]:
    """Yield the row of the original, and then one for every bundle and engine."""
    scorer = load_scorer(DEMO)
    card = (DEMO / "checkpoint/README.md").read_text(encoding="utf-8")
    guidance = parameter(card, "guidance_scale") if options.guidance is None else options.guidance
    if guidance is None:
        raise SystemExit("the demo's card names no guidance scale")
    task = Task(scorer.knowledge.sample(options.count), options.steps, options.default, guidance, options.precision)
    expected = original(task, scorer.knowledge, ROOT / "build/quality")
    yield judge("original, fp32 torch", expected, None, task, scorer)
    for path in options.bundles:
        manifest = Bundle.open(path).manifest
        for backend, quality in product(options.backend or manifest.backends, options.quality or ["exact"]):
            drawn = draw(path, backend, quality, task, scorer.knowledge)
            name = f"{path.name}, {manifest.precision} {backend} {task.precision}, {quality}"
            yield judge(name, drawn, expected, task, scorer)


def table(rows: list[Quality]) -> str:
    """A Markdown table."""
    lines = [
        "| | concept | colour | both, trained | both, held out | PSNR dB | SSIM | latents dB | shuffled |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        far = ("", "", "")
        if row.image_psnr_db is not None:
            far = (f"{row.image_psnr_db:.1f}", f"{row.image_ssim:.3f}", f"{row.latent_psnr_db:.1f}")
        shares = (row.concept, row.color, row.trained_both, row.held_out_both)
        cells = [row.name, *(f"{share:.1%}" for share in shares), *far]
        lines.append(f"| {' | '.join(cells)} | {row.shuffled_concept:.0%}, {row.shuffled_color:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Draw, score, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="*", help="bundles of the demo; none judges the original alone")
    parser.add_argument("--backend", action="append", choices=("onnxruntime", "openvino"), help="default: all served")
    parser.add_argument("--precision", choices=PRECISIONS, default="f32", help="see nano-generate (default: f32)")
    parser.add_argument("--quality", action="append", choices=get_args(Preset), help="default: exact")
    parser.add_argument(
        "--count", type=int, default=400, help="prompts, a quarter of them held out if there are so many"
    )
    parser.add_argument("--steps", type=int, default=20, help="of PNDM, which the original draws with (default: 20)")
    parser.add_argument("--default", action="store_true", help="bundles draw with their own sampler and steps instead")
    parser.add_argument("--guidance", type=float, help="default: the model card's")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = list(run(options))
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
