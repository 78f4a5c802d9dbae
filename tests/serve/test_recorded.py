"""What real programs send, in their order, as their sources have it; each gets what it reads.

Open WebUI 0.12.4 (``routers/images.py``), LibreChat (``StableDiffusion.js``, ``OpenAIImageTools.js``), SillyTavern
1.19.0 (``endpoints/stable-diffusion.js``), KoboldAI Lite 27eb1dc (``index.html``), aiyabot eb8ff68 (``settings.py``).
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.serve.conftest import BASE, Served

from nano_runtime import open_picture
from nano_serve.http.guard import Access

API = "/sdapi/v1"


def test_open_webui_with_the_automatic1111_engine(served: Served):
    empty = {"authorization": ""}  # as it is sent without a password
    assert served.ask("GET", f"{API}/options", headers=empty).status_code == 200
    models = served.get(f"{API}/sd-models", headers=empty)
    assert {"title", "model_name"} <= set(models[1])
    settings = served.get(f"{API}/options", headers=empty)
    served.post(f"{API}/options", {**settings, "sd_model_checkpoint": models[1]["title"]}, headers=empty)
    assert served.get(f"{API}/options")["sd_model_checkpoint"] == models[1]["title"]
    body = {"prompt": "owl", "batch_size": 2, "width": 512, "height": 512, "steps": 50, "negative_prompt": None}
    answer = served.post(f"{API}/txt2img", body, headers=empty)
    assert [_size(one) for one in answer["images"]] == [(512, 512)] * 2
    assert "info" in answer


def test_open_webui_with_the_openai_engine(served: Served):
    key = {"authorization": "Bearer "}
    body = {"model": "dall-e-2", "prompt": "owl", "n": 1, "size": "512x512", "response_format": "b64_json"}
    answer = served.post("/v1/images/generations", body, headers=key)
    assert _size(answer["data"][0]["b64_json"]) == (512, 512)
    assert "url" not in answer["data"][0]  # which it would fetch, and refuse for its address
    form = {"model": "gpt-image-1", "prompt": "owl", "n": "1", "size": "512x512", "background": "auto"}
    files = {"image": ("a.png", base64.b64decode(answer["data"][0]["b64_json"]), "image/png")}
    edited = served.ask("POST", "/v1/images/edits", data=form, files=files, headers=key).json()
    assert _size(edited["data"][0]["b64_json"]) == (512, 512)


def test_librechat(served: Served):
    body = {"prompt": "owl", "negative_prompt": "blurry", "cfg_scale": 4.5, "steps": 22, "width": 1024, "height": 1024}
    answer = served.post(f"{API}/txt2img", body)
    info = json.loads(answer["info"])
    assert (info["width"], info["height"], isinstance(info["seed"], int)) == (1024, 1024, True)
    assert info["infotexts"][0]
    body = {"model": "gpt-image-1", "prompt": "owl", "n": 1, "background": "auto", "output_format": "png"}
    answer = served.post("/v1/images/generations", {**body, "quality": "auto", "size": "auto"})
    assert _size(answer["data"][0]["b64_json"]) == (32, 32)


def test_silly_tavern_with_the_automatic1111_source(served: Served):
    headers = {"authorization": "Basic Og=="}  # of an empty name and password
    assert served.ask("GET", f"{API}/options?x=1", headers=headers).status_code == 200
    for name in ("samplers", "schedulers", "sd-vae", "sd-modules", "sd-models", "upscalers", "latent-upscale-modes"):
        assert isinstance(served.get(f"{API}/{name}", headers=headers), list)
    assert "forge_preset" not in served.get(f"{API}/options")  # which would mark a Forge
    title = served.get(f"{API}/sd-models")[0]["title"]
    served.post(f"{API}/options", {"sd_model_checkpoint": title}, headers=headers)
    idle = served.get(f"{API}/progress", headers=headers)
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    assert served.ask("POST", f"{API}/interrupt", headers=headers).status_code == 200  # without a body or a type


def test_an_address_that_was_typed_with_a_slash_behind(served: Served):
    """Programs join ``http://localhost:7860/`` and ``/sdapi/v1/options`` as they are."""
    for path in (f"{API}/options", "/v1/models/"):
        assert served.ask("GET", f"{BASE}/{path}").status_code == 200


def test_silly_tavern_with_the_sd_cpp_source(served: Served):
    assert served.ask("OPTIONS", "/v1/images/generations").is_success
    model = served.get("/v1/models")["data"][0]["id"]
    for sampler, scheduler in (("euler_a", "discrete"), ("dpm++2m", "karras"), ("ddim_trailing", "sgm_uniform")):
        body = {"model": model, "prompt": "owl", "sampler_name": sampler, "scheduler": scheduler, "steps": 4}
        answer = served.post(f"{API}/txt2img", {**body, "cfg_scale": 3, "width": 64, "height": 64, "seed": 3})
        assert _size(answer["images"][0]) == (64, 64)


def test_koboldai_lite_from_its_own_page(serving):
    page = "https://lite.koboldai.net"
    served = serving(Access(origins=[page]))
    headers = {"origin": page, "sec-fetch-site": "cross-site"}
    assert served.ask("OPTIONS", f"{API}/txt2img", headers=headers).headers["access-control-allow-origin"] == page
    assert served.get(f"{API}/sd-models", headers=headers)
    settings = served.get(f"{API}/options", headers=headers)
    assert settings["samples_format"] is not None
    override = {"sd_model_checkpoint": settings["sd_model_checkpoint"]}
    body = {"prompt": "owl", "override_settings": override, "sampler_name": "Euler a", "width": 512, "height": 512}
    answer = served.ask("POST", f"{API}/txt2img", json={**body, "steps": 5, "cfg_scale": 7}, headers=headers)
    assert answer.headers["access-control-allow-origin"] == page
    assert _size(answer.json()["images"][0]) == (512, 512)


def test_aiyabot_begins(served: Served):
    """One answer that is no list, or no JSON, ends the bot."""
    assert served.ask("HEAD", "/").status_code == 200
    lists = ("samplers", "prompt-styles", "face-restorers", "hypernetworks", "upscalers", "sd-models", "loras")
    read: dict[str, Any] = {name: served.get(f"{API}/{name}") for name in lists}
    assert all(isinstance(found, list) for found in read.values())
    assert {"filename", "hash", "title", "model_name"} <= set(read["sd-models"][0])
    assert set(served.get(f"{API}/embeddings")) == {"loaded", "skipped"}
    assert isinstance(served.get("/config"), dict)
    assert isinstance(served.get(f"{API}/cmd-flags"), dict)
    body = {"prompt": "owl", "styles": [None], "sampler_index": "Euler a", "denoising_strength": None, "seed": 3}
    answer = served.post(f"{API}/txt2img", {**body, "steps": 4, "hr_second_pass_steps": 2.0, "enable_hr": False})
    assert "Steps: 4" in served.post(f"{API}/png-info", {"image": answer["images"][0]})["info"]


def _size(text: str) -> tuple[int, int]:
    return open_picture(base64.b64decode(text)).size
