"""Numbers that JSON has not: kept in the manifest's free parts, refused in all others."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from nano_runtime.bundle.manifest import MANIFEST_NAME
from nano_runtime.bundle.reading import read_manifest, write_manifest
from nano_runtime.errors import ManifestError
from nano_runtime.sampling.samplers import own_sampler
from nano_runtime.sampling.schedule import Schedule

DPM = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -math.inf, "use_karras_sigmas": True}


def test_infinities_come_back_from_a_manifest(folder):
    manifest = read_manifest(folder)
    said = {**DPM, "trained": [math.inf, {"deep": math.nan}, (1.5, -math.inf)]}
    write_manifest(folder, msgspec.structs.replace(manifest, scheduler=said, options={"scale": math.inf}))
    found = read_manifest(folder)
    assert found.scheduler["lambda_min_clipped"] == "-Infinity"
    assert found.scheduler["trained"] == ["Infinity", {"deep": "NaN"}, [1.5, "-Infinity"]]
    assert found.options == {"scale": "Infinity"}
    assert own_sampler(found.scheduler) == "dpmpp_2m_karras"
    assert Schedule.from_config(found.scheduler).own.lambda_min_clipped == -math.inf


def test_a_manifest_that_lost_its_infinity_is_still_drawn(folder):
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    document["scheduler"] = {**DPM, "lambda_min_clipped": None}  # as exporters of format 4 wrote it
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    assert own_sampler(read_manifest(folder).scheduler) == "dpmpp_2m_karras"


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", ["fidelity", "scaling_factor", "components"])
def test_no_other_number_is_lost_silently(folder, place, number):
    manifest = read_manifest(folder)
    before = (folder / MANIFEST_NAME).read_bytes()
    name, component = next(iter(manifest.components.items()))
    broken = msgspec.structs.replace(component, fidelity={"onnxruntime.psnr_db": number})
    change = {
        "fidelity": {"fidelity": {"onnxruntime.latent_rmse": number}},
        "scaling_factor": {"scaling_factor": number},
        "components": {"components": {**manifest.components, name: broken}},
    }[place]
    with pytest.raises(ManifestError, match=f"{place}.*is not finite"):
        write_manifest(folder, msgspec.structs.replace(manifest, **change))
    assert (folder / MANIFEST_NAME).read_bytes() == before
