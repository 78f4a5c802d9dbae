"""How far the pictures of one bundle and seed are apart on different processors, and which operators are the cause.

    apt-get install qemu-user-static
    python -m bench.processors build/demo

Draws with ONNX Runtime here and under qemu, on a processor with SSE4.2 and on aarch64. Compares final latents, each
graph on equal inputs, and each operator of the UNet on equal inputs. A picture takes half a minute there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import numpy as np
from bench.processors.emulated import Processor, processors
from bench.processors.operators import compare, take_apart
from bench.processors.worker import PROMPTS, Arguments, calls_of

from nano_export.judge.metrics import psnr_db
from nano_runtime.system.machine import describe_machine

EQUAL_DB = 200.0


def main() -> int:
    """Draw, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=6, help=f"pictures, at most {len(PROMPTS)}")
    parser.add_argument("--emulators", type=Path, default=Path("build/processors"), help="folder for aarch64's Python")
    options = parser.parse_args()
    here, *others = processors(options.emulators)
    if not others:
        print("No emulator was found. Install qemu-user-static.", file=sys.stderr)
        return 4
    print(f"here: {describe_machine().isa}")
    with TemporaryDirectory() as folder:
        report(options.bundle.resolve(), options.count, here, others, Path(folder))
    return 0


def report(bundle: Path, count: int, here: Processor, others: list[Processor], folder: Path) -> None:
    """Print the tables; ``folder`` is for what they are made of."""
    drawn = folder / "here.npz"
    here.run("draw", bundle, str(count), drawn)
    kept = _arrays(drawn)
    feeds = calls_of({key: values for key, values in kept.items() if key.count("|") > 1}, "in")
    unet = [call for (_, component), call in feeds.items() if component == "unet"]
    graph, inputs = folder / "apart.onnx", folder / "apart.npz"
    take_apart(bundle / "unet" / "model.onnx", unet[len(unet) // 2], graph, inputs)
    here.run("apart", graph, inputs, folder / "here.apart.npz")
    expected = _arrays(folder / "here.apart.npz")

    for other in others:
        paths = {task: folder / f"{other.name}.{task}.npz" for task in ("draw", "graphs", "apart")}
        other.run("draw", bundle, str(count), paths["draw"])
        other.run("graphs", bundle, drawn, paths["graphs"])
        other.run("apart", graph, inputs, paths["apart"])
        scores = _latents(kept, _arrays(paths["draw"]))
        print(f"\n## {other.name}\n\nLatents of {count} pictures: ", end="")
        print(f"mean {mean(scores):.1f}, median {median(scores):.1f}, least {min(scores):.1f} dB\n")
        print("| graph | least of a call and output |\n|---|---|")
        for component, score in _graphs(kept, _arrays(paths["graphs"])).items():
            print(f"| {component} | {'equal' if score >= EQUAL_DB else f'{score:.1f} dB'} |")
        print("\n| operator of the UNet | nodes | differ | relative error |\n|---|---|---|---|")
        for name, difference in sorted(compare(graph, expected, _arrays(paths["apart"])).items()):
            error = f"{difference.relative:.1e}" if difference.differing else ""
            print(f"| {name} | {difference.nodes} | {difference.differing} | {error} |")


def _arrays(path: Path) -> Arguments:
    with np.load(path) as kept:
        return {name: kept[name] for name in kept.files}


def _latents(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> list[float]:
    names = [name for name in here if name.startswith("latents|")]
    return [_psnr(there[name], here[name]) for name in names]


def _graphs(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the least PSNR of every component, over its calls and outputs."""
    scores: dict[str, float] = {}
    for name, values in there.items():
        component = name.split("|")[1]
        scores[component] = min(scores.get(component, EQUAL_DB), _psnr(values, here[name]))
    return scores


def _psnr(actual: np.ndarray, expected: np.ndarray) -> float:
    return psnr_db(actual, expected, float(expected.max() - expected.min()))


if __name__ == "__main__":
    sys.exit(main())
