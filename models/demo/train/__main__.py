"""The training from the command line: `python -m models.demo.train text`, then `vae`, `unet`, `evaluate`, `save`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from models.demo.knowledge import Knowledge, load_knowledge
from models.demo.score import load_scorer, measure
from models.demo.train import autoencoder, checkpoint, data, evaluate, text, unet
from models.demo.train.common import State, load_state, new_state, save_state
from numpy.typing import NDArray
from PIL import Image, ImageFont
from tqdm import tqdm

from nano_runtime.pictures.pixels import to_pil
from nano_runtime.pictures.sheet import contact_sheet

HOME = Path(__file__).parents[1]
REPORT = 25
"""Steps between two lines of the log, and between two saved states every fourth time."""


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(prog="python -m models.demo.train", description=__doc__)
    parser.add_argument("stage", choices=["templates", "text", "vae", "unet", "evaluate", "save", "restore"])
    parser.add_argument("--work", type=Path, default=Path("build/demo-training"), help="states, logs and sheets")
    parser.add_argument("--font", type=Path, default=Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
    parser.add_argument("--steps", type=int, help="train up to this step; a larger number than before goes on")
    parser.add_argument("--batch", type=int, help="pictures per step")
    parser.add_argument("--window", type=int, default=128, help="vae: pixels of the pictures seen, 64 at first")
    parser.add_argument("--floor", type=float, default=1.0, help="unet: boost of high noise, 0.05 at first, 1 at last")
    parser.add_argument("--lowest", type=int, default=0, help="unet: first timestep trained, 300 at first, 0 at last")
    parser.add_argument("--compile", action="store_true", help="unet: a third faster after five minutes of compiling")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="one is better when others use the machine")
    parser.add_argument("--count", type=int, default=400, help="evaluate: number of prompts")
    parser.add_argument("--guidance", type=float, default=2.0, help="evaluate: guidance scale")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    knowledge = load_knowledge(HOME / "concepts.json")
    if options.stage == "templates":
        _templates(knowledge, options.font)
    elif options.stage == "text":
        _text(knowledge, options)
    elif options.stage == "vae":
        _vae(knowledge, options)
    elif options.stage == "unet":
        _unet(knowledge, options)
    elif options.stage == "evaluate":
        _evaluate(knowledge, options)
    elif options.stage == "restore":
        _restore(knowledge, options.work)
    else:
        checkpoint.save_checkpoint(HOME / "checkpoint", options.work)


def _templates(knowledge: Knowledge, font_path: Path) -> None:
    """Draw the sheet that the judge compares with: 64-pixel glyphs, ten in a row."""
    font = ImageFont.truetype(str(font_path), data.STRIKE)
    sheet = Image.new("RGBA", (640, 64 * -(-len(knowledge.names) // 10)))
    for index, character in enumerate(knowledge.characters):
        sheet.paste(data.render_glyph(character, font, 64), (index % 10 * 64, index // 10 * 64))
    sheet.save(HOME / "templates.png", optimize=True)


def _text(knowledge: Knowledge, options: argparse.Namespace) -> None:
    """Make the tokenizer, train the text encoder, and keep what it says to every prompt for the UNet."""
    steps = 400 if options.steps is None else options.steps
    tokenizer = text.build_tokenizer(knowledge, options.work / "tokenizer")
    encoder = text.build_text_encoder(tokenizer)
    width = encoder.config.hidden_size
    state = text.TextState(
        encoder, torch.nn.Linear(width, len(knowledge.names)), torch.nn.Linear(width, len(knowledge.colors))
    )
    training = text.train_text_encoder(state, tokenizer, knowledge, steps=steps, batch=32, peak=2e-3, seed=options.seed)
    for losses in (bar := tqdm(training, total=steps)):
        bar.set_postfix(losses)
    encoder.save_pretrained(options.work / "text_encoder")
    prompts = [knowledge.prompt(concept, color) for concept, color in knowledge.pairs]
    torch.save(text.encode(tokenizer, encoder.eval(), [*prompts, ""]), options.work / "context.pt")


def _restore(knowledge: Knowledge, work: Path) -> None:
    """Fill an empty working folder from the saved checkpoint, to go on training its weights from step 0."""
    parts = checkpoint.restore_parts(HOME / "checkpoint", work)
    prompts = [knowledge.prompt(concept, color) for concept, color in knowledge.pairs]
    torch.save(text.encode(parts.tokenizer, parts.text_encoder, [*prompts, ""]), work / "context.pt")
    save_state(work / "vae.pt", new_state(parts.autoencoder, average=0.99, decay=1e-4))
    save_state(work / "unet.pt", new_state(parts.unet, average=0.998, decay=1e-3))


def _vae(knowledge: Knowledge, options: argparse.Namespace) -> None:
    """Train the autoencoder."""
    steps = 3000 if options.steps is None else options.steps
    glyphs = data.render_glyphs(knowledge, options.font, data.SIDES, data.MARGIN, data.STRIDE)
    state = load_state(options.work / "vae.pt", new_state(autoencoder.build_autoencoder(), average=0.99, decay=1e-4))
    training = autoencoder.train_autoencoder(
        state,
        knowledge,
        glyphs,
        steps=steps,
        batch=4 if options.batch is None else options.batch,
        size=options.window,
        peak=6e-4 if options.rate is None else options.rate,
        noise=0.2,
        seed=options.seed,
    )
    _follow(training, state.step, steps, options.work / "vae")


def _unet(knowledge: Knowledge, options: argparse.Namespace) -> None:
    """Train the UNet on the thumbnails of all pictures."""
    steps = 3000 if options.steps is None else options.steps
    glyphs = data.render_glyphs(knowledge, options.font, data.SIDES, data.MARGIN, data.STRIDE)
    examples = unet.Examples(
        latents=autoencoder.all_thumbnails(knowledge, glyphs),
        context=torch.load(options.work / "context.pt", weights_only=True),
        trained=np.array([i for i, pair in enumerate(knowledge.pairs) if pair not in knowledge.held_out]),
    )
    model = unet.build_unet(examples.context.shape[-1])
    state = load_state(options.work / "unet.pt", new_state(model, average=0.998, decay=1e-3))
    training = unet.train_unet(
        state,
        examples,
        steps=steps,
        batch=16 if options.batch is None else options.batch,
        peak=7e-4 if options.rate is None else options.rate,
        floor=options.floor,
        lowest=options.lowest,
        compiled=options.compile,
        seed=options.seed,
    )
    _follow(training, state.step, steps, options.work / "unet")


def _follow(training: Iterator[tuple[State, dict[str, float]]], first: int, steps: int, stem: Path) -> None:
    """Run a training to its end: progress on the terminal, means of the losses to a log and curves, states to disk."""
    log_path = stem.with_suffix(".jsonl")
    sums: list[dict[str, float]] = []
    for state, losses in (bar := tqdm(training, initial=first, total=steps, mininterval=10)):
        sums.append(losses)
        if state.step % REPORT == 0 or state.step == steps:
            means = {name: float(np.mean([entry[name] for entry in sums])) for name in losses}
            sums.clear()
            bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
            with log_path.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": state.step, **means}) + "\n")
        if state.step % (4 * REPORT) == 0 or state.step == steps:
            save_state(stem.with_suffix(".pt"), state)
            entries = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
            evaluate.loss_curves(entries, stem.with_suffix(".png"))


def _evaluate(knowledge: Knowledge, options: argparse.Namespace) -> None:
    """Draw prompts, held-out pairs among them, score the pictures, and save the first sixty as a sheet."""
    pairs = knowledge.sample(options.count)
    pictures: list[NDArray[np.uint8]] = []
    parts = checkpoint.load_parts(options.work)
    indices = [knowledge.pairs.index(pair) for pair in pairs]
    for start in (bar := tqdm(range(0, len(pairs), 20))):
        chosen = parts.context[indices[start : start + 20]]
        drawn = evaluate.draw(
            parts.unet,
            parts.autoencoder,
            chosen,
            parts.context[-1:],
            seed=options.seed + start,
            steps=20,
            guidance=options.guidance,
        )
        pictures.extend(drawn)
        bar.set_postfix(pictures=len(pictures))
    scorer = load_scorer(HOME)
    held = [pair in knowledge.held_out for pair in pairs]
    for name, wanted in (("trained", False), ("held out", True)):
        chosen_pairs = [pair for pair, flag in zip(pairs, held, strict=True) if flag == wanted]
        chosen_pictures = [picture for picture, flag in zip(pictures, held, strict=True) if flag == wanted]
        if chosen_pairs:
            print(name, measure(scorer, chosen_pictures, chosen_pairs)[0])
    contact_sheet([to_pil(picture) for picture in pictures[:60]], 10).save(options.work / "sheet.png")


if __name__ == "__main__":
    main()
