"""What each part of quantizing brings, on each checkpoint: ranges, scales and the fitted plan; and NNCF beside it.

    python -m bench.quantizers CHECKPOINT... [--only "by error" NNCF]

Every checkpoint is drawn, traced and calibrated once; then its graphs are quantized in each way, and judged by pictures
of prompts that calibrated none. NNCF quantizes the UNet alone, with SmoothQuant and without, on OpenVINO: its rows
have no figures of other networks and of pictures. Decibels are against the checkpoint's own fp32, the least of all
calls; milliseconds are the median of a UNet call at batch 2, one thread per core; seconds are those of choosing,
writing and measuring, without calibration.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx_ir as ir

from nano_export import exporting, quantizing
from nano_export.bundle.writer import BundleWriter, onnx_path
from nano_export.graph.to_openvino import read_ir
from nano_export.judge.fidelity import judge, judge_components
from nano_export.judge.original import Reference
from nano_export.judge.sensitivity import Sensitivity
from nano_export.options import Options
from nano_export.progress import Progress, progress
from nano_export.quantize import PLANS, Recorder, Seen, draw, quantize_with_nncf, recipe, scales
from nano_export.quantize.grids import Range
from nano_runtime.arrays import F32, Arrays
from nano_runtime.bundle.manifest import Backend
from nano_runtime.bundle.wiring import UNET, UNET_PROMPT, UNET_TIME
from nano_runtime.engines import Batch
from nano_runtime.engines.loaded_graphs import LoadedGraphs
from nano_runtime.options import DrawOptions

NETWORKS = ("unet", "text_encoder", "vae_decoder", "vae_encoder")
RUNS, WARM_UP = 14, 4
STEPS = 4  # of a calibration picture, as the exporter takes
OUTER_PERCENT = 0.1  # of the values, cut off at each end

DONE = progress("quantize", "every way was measured", 1.0)
_quantizing: Any = quantizing  # its names are replaced here by others


def percentile(seen: Seen, scale: F32 | None) -> Range:
    """Return the range without its outermost values."""
    rows = seen.rows if scale is None else seen.rows / scale
    low, high = np.percentile(rows, (OUTER_PERCENT, 100 - OUTER_PERCENT))
    return Range(float(low), float(high))


RANGES: dict[str, dict[str, Any]] = {
    "minimum and maximum": {"_SHARES": ()},
    "percentile": {"_SHARES": (), "_full_range": percentile},
    "by error": {},
}
NNCF = "NNCF"


def way(ranges: str, *, scaled: bool, fitted: bool) -> AbstractContextManager[Any]:
    """Return a context in which the exporter quantizes that way."""
    stack = ExitStack()
    if RANGES[ranges]:
        stack.enter_context(patch.multiple(scales, **RANGES[ranges]))
    if not scaled:
        stack.enter_context(patch.object(recipe, "choose", _choose_no_scale))
    if not fitted:
        stack.enter_context(patch.object(_quantizing, "candidates", lambda *_: []))
    return stack


def _choose_no_scale(seen: Seen, layers: Sequence[Any], **options: Any) -> scales.Choice:  # noqa: ANN401
    return scales.choose(seen, layers, **{**options, "scaled": False, "shifted": 0.0})


class Ways:
    """Takes the place of ``quantize_graphs`` in an export: quantizes in every way, and prints a row for each.

    Args:
        name: of the checkpoint.
        only: the ways: names of ``RANGES``, and ``NNCF``.
    """

    def __init__(self, name: str, only: Sequence[str]) -> None:
        self._name = name
        self._only = only
        self._watch, self._calibrate = _quantizing._watch, _quantizing.calibrate  # noqa: SLF001 (it runs once here)
        self._watched: dict[str, list[str]] = {}
        self._seen: Mapping[str, Mapping[str, Seen]] = {}

    def __call__(  # noqa: PLR0917 (as ``quantize_graphs``)
        self,
        floats: BundleWriter,
        bundle: BundleWriter,
        calls: Sequence[DrawOptions],
        references: Sequence[Reference],
        sensitivities: Mapping[str, Sensitivity],
        options: Options,
    ) -> Iterator[Progress]:
        """Quantize in every way; the export is to be closed after that."""
        if NNCF in self._only:
            yield from self._with_nncf(floats, bundle, calls, references, options)
        if ours := [ranges for ranges in RANGES if ranges in self._only]:
            yield from self._with_ours(ours, floats, bundle, calls, references, sensitivities, options)
        yield DONE

    def _with_ours(  # noqa: PLR0917 (as ``quantize_graphs``)
        self,
        all_ranges: Sequence[str],
        floats: BundleWriter,
        bundle: BundleWriter,
        calls: Sequence[DrawOptions],
        references: Sequence[Reference],
        sensitivities: Mapping[str, Sensitivity],
        options: Options,
    ) -> Iterator[Progress]:
        """Quantize with ranges of each kind, with scales and without, with the fitted plan and without."""
        plan = PLANS[options.plan]
        self._watched = self._watch(floats, {name: plan[name] for name in floats.components})
        for done, seen in self._calibrate(floats.folder, self._watched, calls, STEPS):
            yield progress("calibrate", "calibrating", done)
            self._seen = seen
        once: dict[str, Any] = {"_watch": lambda *_: self._watched, "calibrate": lambda *_: iter([(1.0, self._seen)])}
        for ranges, scaled, fitted in product(all_ranges, (False, True), (False, True)):
            texts = (ranges, "scaled" if scaled else "", "fitted" if fitted else "")
            with _target(bundle) as target, way(ranges, scaled=scaled, fitted=fitted):
                begun = perf_counter()
                with patch.multiple(_quantizing, **once):
                    yield from quantizing.quantize_graphs(floats, target, calls, references, sensitivities, options)
                seconds = perf_counter() - begun
                if ranges == "by error" and scaled and fitted:  # what the exporter does: on OpenVINO, too
                    self._row(target.for_engines(("openvino",)), references, texts, seconds)
                exporting._finish_onnx(target, options)  # noqa: SLF001 (onnxruntime runs its graphs so)
                self._row(target.for_engines(("onnxruntime",)), references, texts, seconds)

    def _with_nncf(
        self,
        floats: BundleWriter,
        bundle: BundleWriter,
        calls: Sequence[DrawOptions],
        references: Sequence[Reference],
        options: Options,
    ) -> Iterator[Progress]:
        """Quantize the UNet with NNCF, with SmoothQuant and without; the other graphs stay float."""
        described = floats.write({})
        recorder = Recorder({name: component.inputs for name, component in described.components.items()})
        for done in draw(floats.folder, calls, STEPS, recorder.recording):
            yield progress("calibrate", "recording", done)
        for text in (NNCF, f"{NNCF}, SmoothQuant"):
            with _target(bundle) as target, _plain_nncf() if text == NNCF else nullcontext():
                begun = perf_counter()
                for name in floats.components:
                    path = onnx_path(floats.folder, name)
                    whole = name in {UNET, UNET_PROMPT, UNET_TIME}
                    rules = PLANS[options.plan][name]
                    made = quantize_with_nncf(path, rules, recorder.kept[name]) if whole else read_ir(path)
                    quantizing._add_ir(target, name, made, ir.load(path))  # noqa: SLF001
                    yield progress("quantize", f"quantizing {name} with nncf")
                seconds = perf_counter() - begun
                unet_only = [
                    replace(one, probes=[probe for probe in one.probes if probe.component == UNET])
                    for one in references
                ]
                self._row(target.for_engines(("openvino",)), unet_only, (text, "", ""), seconds)

    def _row(
        self, bundle: BundleWriter, references: Sequence[Reference], texts: tuple[str, str, str], seconds: float
    ) -> None:
        """Judge a bundle on the one engine that its manifest names, and print what was found."""
        (backend,) = bundle.write({}).backends
        if texts[0].startswith(NNCF):
            found, pictures = judge_components(bundle.folder, backend, references), None
        else:
            scores = judge(bundle.folder, backend, references)
            found, pictures = scores.component_psnr_db, scores.image_psnr_db
        figures = [found.get(name) for name in NETWORKS] + [pictures]
        cells = ["" if figure is None else f"{figure:.1f}" for figure in figures]
        took = milliseconds(bundle.folder, backend, references[0])
        print(f"| {' | '.join([self._name, *texts, backend, *cells, f'{took:.0f}', f'{seconds:.0f}'])} |", flush=True)


def milliseconds(folder: Path, backend: Backend, reference: Reference) -> float:
    """Return the median time of a UNet call at batch 2."""
    taken: list[float] = []
    run = LoadedGraphs.run

    def timed(graphs: LoadedGraphs, component: str, feeds: Arrays, *, batch: Batch) -> dict[str, F32]:
        for _ in range(RUNS if component == UNET else 0):
            begun = perf_counter()
            run(graphs, component, feeds, batch=batch)
            taken.append((perf_counter() - begun) * 1e3)
        return run(graphs, component, feeds, batch=batch)

    with patch.object(LoadedGraphs, "run", timed):
        probes = [probe for probe in reference.probes if probe.component == UNET]
        judge_components(folder, backend, [replace(reference, probes=probes[:1])])
    return median(taken[WARM_UP:])


@contextmanager
def _target(bundle: BundleWriter) -> Iterator[BundleWriter]:
    """Make a writer of a bundle with the same small files, in a folder of its own, which goes away."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("work"))
        made = bundle.for_engines(("onnxruntime",))
        made.folder = Path(folder)
        yield made
        gc.collect()  # graphs map their files


def _plain_nncf() -> AbstractContextManager[Any]:
    """Return a context in which NNCF smooths nothing."""
    import nncf  # noqa: PLC0415
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters  # noqa: PLC0415

    def quantize(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        none = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        options["advanced_parameters"].smooth_quant_alphas = none
        return kept(*arguments, **options)

    kept = nncf.quantize
    return patch.object(nncf, "quantize", quantize)


def main() -> None:
    """Export every checkpoint up to its quantization, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.quantizers", description=__doc__)
    parser.add_argument(
        "checkpoints", nargs="+", metavar="CHECKPOINT", help="as nano-export takes them: demo, a folder"
    )
    parser.add_argument(
        "--only", nargs="+", choices=(*RANGES, NNCF), default=tuple(RANGES), help="kinds of ranges; all but NNCF"
    )
    options = parser.parse_args()
    print(f"| checkpoint | ranges | scales | plan | engine | {' | '.join(NETWORKS)} | pictures | ms a call | s |")
    print("|---" * (len(NETWORKS) + 8) + "|")
    for name in options.checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            asked = Options(model=name, output=Path(folder) / "bundle", precision="int8", backends=("onnxruntime",))
            ways = Ways(Path(name).name, options.only)
            export: Any = exporting.export(asked)
            with patch.object(exporting, "quantize_graphs", ways), closing(export):
                next(event for event in export if event is DONE)


if __name__ == "__main__":
    main()
