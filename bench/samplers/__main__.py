"""Quality against cost: every sampler from 4 to 50 steps, and the presets, on the demo's prompts.

    python -m bench.samplers
    python -m bench.samplers build/demo --count 20

Each prompt is drawn in every way from the same seed; the judge of `models/demo` says whether it shows what was asked,
and each picture is compared with one of 200 steps. Cost is counted in multiply-accumulates of the UNet, from the
manifest. What was drawn is kept in build/samplers, and a sweep that was ended goes on there. Writes samplers.md,
samplers.json and samplers.png; an hour for 60 prompts on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.quality import DEMO, ROOT
from bench.samplers.report import write_report
from bench.samplers.sweep import TOGETHER, Kept, arranged, cells_of, decisive, sweep
from models.demo.score import load_scorer
from tqdm import tqdm

from nano_runtime.bundle.folder import DEMO as BUNDLE
from nano_runtime.pipeline import Pipeline


def main() -> None:
    """Draw what is missing, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.samplers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=BUNDLE, help="of the demo (default: the one inside)")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), default="openvino")
    parser.add_argument("--threads", type=int, help="default: one per performance core")
    parser.add_argument("--count", type=int, default=60, help="prompts, a quarter of them held out")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results", help="folder of the report")
    parser.add_argument("--report-only", action="store_true", help="draw nothing; report on what is kept")
    options = parser.parse_args()

    scorer = load_scorer(DEMO)
    pairs = arranged(scorer.knowledge.sample(options.count))
    pipe = Pipeline.from_pretrained(options.bundle, options.backend, options.threads)
    kept = Kept(ROOT / "build/samplers", decisive(pipe, pairs))
    if not options.report_only:
        total = sum(len(cells_of(first)) for first in range(0, len(pairs), TOGETHER))
        with tqdm(total=total, unit="cell") as bar:
            for cell in sweep(pipe, pairs, scorer, kept):
                bar.set_postfix_str(f"{cell.scheduler} {cell.steps} {cell.quality}")
                bar.update()
    write_report(pipe, kept.read(), options.output)


if __name__ == "__main__":
    main()
