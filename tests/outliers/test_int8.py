"""INT8 of checkpoints with outlier channels: as near to their own fp32 as the plain demo is to its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.outliers.folded import Folding, copied, fold
from tests.outliers.measure import fidelity
from tests.outliers.shaped import shape
from tests.outliers.writing import DEMO, write

from nano_export import export
from nano_export.options import Options
from nano_export.source.checkpoint import open_checkpoint
from nano_runtime.bundle.folder import Bundle
from nano_runtime.engines import BACKENDS

pytestmark = pytest.mark.slow

MOST_LOST_DB = {"text_encoder": 1.5, "unet": 1.5, "vae_decoder": 1.5, "vae_encoder": 1.5, "pictures": 2.0}


@pytest.fixture(scope="module")
def demo():
    return open_checkpoint(str(DEMO), None)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def plain(backend) -> dict[str, float]:
    """The demo's own distances."""
    return fidelity(DEMO, backend)


@pytest.mark.parametrize(
    "folding",
    [Folding(share=0.02, scale=40.0, seed=1), Folding(share=0.05, scale=100.0, spread=0.4, seed=2)],
    ids=["2 % by 40", "5 % by 100, all spread"],
)
def test_a_folded_checkpoint_quantizes_as_the_demo_does(demo, plain, backend, folding, tmp_path):
    write(fold(demo, folding)[0], tmp_path)
    found = fidelity(tmp_path, backend)
    lost = {name: plain[name] - found[name] for name in MOST_LOST_DB}
    assert {name: dB for name, dB in lost.items() if dB > MOST_LOST_DB[name]} == {}


@pytest.mark.parametrize("kind", ["tables", "sums", "means"])
def test_constants_that_the_next_layers_do_not_see_cost_nothing(demo, plain, backend, kind, tmp_path):
    write(shape(demo, kind, seed=4)[0], tmp_path)
    found = fidelity(tmp_path, backend)
    lost = {name: plain[name] - found[name] for name in MOST_LOST_DB}
    assert {name: dB for name, dB in lost.items() if dB > MOST_LOST_DB[name]} == {}


def test_a_layer_that_cannot_be_quantized_stays_float_and_is_named(demo, tmp_path):
    spoilt = copied(demo)
    feed_forward = spoilt.unet.down_blocks[0].attentions[0].transformer_blocks[0].ff.net
    with torch.no_grad():  # products of large values and large gates: few tokens have nearly all of the range
        feed_forward[0].proj.weight *= 12
        feed_forward[2].weight *= 3
    write(spoilt, tmp_path / "checkpoint")
    output: Path = tmp_path / "bundle"
    options = Options(model=str(tmp_path / "checkpoint"), output=output, precision="int8", backends=("onnxruntime",))
    for _ in export(options):
        pass
    quantization = Bundle.open(output).manifest.quantization
    assert quantization is not None
    moved = {change.layer: change for change in quantization.changes if change.scheme == "float"}
    layer = moved["down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2/MatMul"]
    assert "of the network's error" in layer.reason
    assert 0 < layer.share < 0.02
