"""Draws a contact sheet with a bundle of the demo model: `python -m models.demo.draw build/demo -o build/demo.png`."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import get_args

from PIL import Image

from nano_runtime.bundle.manifest import Quality
from nano_runtime.pictures.png import save_png
from nano_runtime.pictures.sheet import contact_sheet
from nano_runtime.pipeline import Pipeline

PROMPTS = (
    "an otter on a teal background",
    "an apple on a white background",
    "a cactus on a yellow background",
    "a car on a purple background",
    "an owl on a blue background",
    "a pizza on a green background",
    "a rocket on a black background",
    "a penguin on an orange background",
    "a strawberry on a gray background",
    "a guitar on a pink background",
    "a whale on a white background",
    "a cupcake on a teal background",
)
COLUMNS = 4


def main() -> None:
    """Draw every prompt from its own seed, save the sheet, and say where it is and what a picture took.

    Sampler and steps are the bundle's own. Several qualities make one row each, for comparing.
    """
    parser = argparse.ArgumentParser(prog="python -m models.demo.draw", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle that `nano-export demo` wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo.png"), help="the sheet to write")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), help="the engine")
    parser.add_argument("--quality", action="append", choices=get_args(Quality), help="repeatable (default: exact)")
    options = parser.parse_args()
    qualities: list[Quality] = ["exact"] if options.quality is None else options.quality
    pipe = Pipeline.from_pretrained(options.bundle, options.backend)
    pipe(PROMPTS[0], seed=0)  # loads the graphs
    images: list[Image.Image] = []
    for quality in qualities:
        milliseconds = []
        for seed, prompt in enumerate(PROMPTS):
            result = pipe(prompt, seed=seed, quality=quality)
            images.extend(result.images)
            milliseconds.append(result.timings.total_ms)
        print(f"{quality}: {len(PROMPTS)} pictures, {median(milliseconds):.0f} ms each on {pipe.backend}")
    save_png(contact_sheet(images, COLUMNS if len(qualities) == 1 else len(PROMPTS)), options.output, None)


if __name__ == "__main__":
    main()
