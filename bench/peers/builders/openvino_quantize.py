"""Quantize an export with optimum-intel: ``openvino_quantize.py EXPORT FOLDER int8|hybrid``.

Runs in the environment "optimum". ``int8`` is what ``optimum-cli export openvino --weight-format int8`` does: 8-bit
weights everywhere. ``hybrid`` is what optimum-intel's documents advise for a diffusion pipeline: in the UNet 8-bit
weights in MatMul, weights and activations in the rest, calibrated by drawing; elsewhere as ``int8``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from optimum.intel import OVStableDiffusionPipeline, OVWeightQuantizationConfig

_PROMPTS = [
    "a photo of a red fox sitting in fresh snow, morning light",
    "portrait of an old fisherman with a grey beard, oil painting",
]
_CONFIGS = {
    "int8": OVWeightQuantizationConfig(bits=8),
    # 8 calls of the UNet: the weights are random, and more of them change no timing.
    "hybrid": OVWeightQuantizationConfig(bits=8, quant_method="hybrid", dataset=_PROMPTS, num_samples=8),
}

if __name__ == "__main__":
    source, folder, kind = sys.argv[1:]
    pipe = OVStableDiffusionPipeline.from_pretrained(source, quantization_config=_CONFIGS[kind], compile=False)
    pipe.save_pretrained(folder)
    for graph in Path(source, "tokenizer").glob("openvino_*"):  # openvino-genai's tokenizer, which is not saved
        shutil.copy(graph, Path(folder, "tokenizer"))
