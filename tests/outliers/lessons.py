"""What the demo's networks learn from: prompts, its own latents with noise, and the answers of the untouched demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from models.demo.knowledge import load_knowledge
from tests.outliers.folded import copied
from tests.outliers.learned import Lesson, Watched, learn, psnr
from tests.outliers.paths import COMPONENTS
from tests.outliers.ratios import ratios
from tests.outliers.writing import DEMO, write
from torch import Tensor, nn

from nano_export.judge.original import diffusers_pipeline
from nano_export.source.checkpoint import Checkpoint, open_checkpoint

__all__ = ["teach"]

_SHARES = {"unet": 0.75, "text_encoder": 0.1, "vae": 0.15}  # of the time
_PICTURES = 48
_BATCH = 4
_REPORT = 50  # steps


def teach(output: Path, *, ratio: float, minutes: float, seed: int, watched: Watched) -> Iterator[str]:
    """Write a diffusers folder with outliers that were learned.

    Args:
        output: the folder. States of the training lie beside it: a call that was ended goes on from them, and one with
            more minutes continues.
        ratio: that is aimed at; see ``learn``.
        minutes: of computing time, all networks together.
        seed: of the channels and the batches.
        watched: what is pushed up.

    Yields:
        Lines that say how far it is.
    """
    teacher = open_checkpoint(str(DEMO), None)
    student = copied(teacher)
    states = output.with_name(f"{output.name}.states")
    states.mkdir(parents=True, exist_ok=True)
    prompts = load_knowledge(DEMO.parent / "concepts.json")
    texts = [prompts.prompt(concept, colour) for concept, colour in prompts.pairs]
    lessons = _lessons(teacher, student, texts, states / "latents.pt")
    for name, share in _SHARES.items():
        training = learn(
            lessons[name],
            ratio=ratio,
            seconds=60 * minutes * share,
            state=states / f"{name}.pt",
            seed=seed,
            watched=watched,
        )
        for one in training:
            if one.step % _REPORT == 0:
                yield (
                    f"{name} {one.done:.0%}: step {one.step}, ratio {one.ratio:.1f} of {one.target:.1f} asked, "
                    f"error {one.error:.4f}"
                )
        yield f"{name}: {psnr(lessons[name]):.1f} dB from itself"
    write(student, output)
    for name, found in (("demo", teacher), (output.name, student)):
        quantiles = ratios(found).quantile(torch.tensor([0.1, 0.5, 0.9]))
        yield f"{name}: largest over median channel, at 10, 50, 90 % of the layers: " + " ".join(
            f"{one:.1f}" for one in quantiles
        )


def _lessons(teacher: Checkpoint, student: Checkpoint, texts: list[str], pool: Path) -> dict[str, Lesson]:
    """Return the lesson of each network; the decoder's student is the whole autoencoder."""
    tokenizer: Any = teacher.tokenizer
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = teacher.text_encoder(ids)[0]
    latents = _latents(teacher, texts, pool)
    alphas = diffusers_pipeline(teacher).scheduler.alphas_cumprod

    def encode(network: Any, random: torch.Generator) -> Tensor:
        answer: Tensor = network(ids[torch.randint(len(ids), (_BATCH,), generator=random)])[0]
        return answer

    def predict(network: Any, random: torch.Generator) -> Tensor:
        times = ((torch.arange(_BATCH) + torch.rand(_BATCH, generator=random)) / _BATCH * len(alphas)).long()
        clean = latents[torch.randint(len(latents), (_BATCH,), generator=random)]
        alpha = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=random)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        answer: Tensor = network(noisy, times, hidden[torch.randint(len(hidden), (_BATCH,), generator=random)]).sample
        return answer

    def decode(network: Any, random: torch.Generator) -> Tensor:
        clean = latents[torch.randint(len(latents), (_BATCH // 2,), generator=random)]
        answer: Tensor = network.decode(clean + 0.1 * torch.randn(clean.shape, generator=random)).sample
        return answer

    runs = {"unet": predict, "text_encoder": encode, "vae": decode}
    students: dict[str, nn.Module] = {name: getattr(student, name) for name in COMPONENTS}
    return {name: Lesson(students[name], getattr(teacher, name), run) for name, run in runs.items()}


def _latents(teacher: Checkpoint, texts: list[str], pool: Path) -> Tensor:
    """Draw pictures with the teacher, or read them; return their latents, divided by the scaling factor."""
    if not pool.exists():
        pipeline = diffusers_pipeline(teacher)
        drawn = pipeline(
            texts[:: len(texts) // _PICTURES][:_PICTURES],
            num_inference_steps=8,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images
        torch.save(drawn, pool)
    latents: Tensor = torch.load(pool, weights_only=True)
    return latents / teacher.vae.config.scaling_factor
