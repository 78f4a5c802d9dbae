"""Draws a contact sheet with a bundle of the demo model: `python -m models.demo.draw build/demo -o build/demo.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nano_runtime.image import contact_sheet, save_png
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
    """Draw every prompt from its own seed, save the sheet, and say where it is and what a picture took."""
    parser = argparse.ArgumentParser(prog="python -m models.demo.draw", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle that `nano-export demo` wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo.png"), help="the sheet to write")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), help="the engine")
    options = parser.parse_args()
    pipe = Pipeline.from_pretrained(options.bundle, options.backend)
    pipe(PROMPTS[0], seed=0)  # loads the graphs
    images, milliseconds = [], []
    for seed, prompt in enumerate(PROMPTS):
        result = pipe(prompt, seed=seed)
        images.extend(result.images)
        milliseconds.append(result.timings.total_ms)
    save_png(contact_sheet(images, COLUMNS), options.output, None)
    median = sorted(milliseconds)[len(milliseconds) // 2]
    print(f"{options.output}: {len(images)} pictures, {median:.0f} ms each on {pipe.backend}")


if __name__ == "__main__":
    main()
