"""A1111's API: what its clients send is drawn, and its routes answer in the forms that they read."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.serve.conftest import base64_of, picture_of, until

API = "/sdapi/v1"
SILLY_TAVERN = {  # as its server sends them: 1.19.0, src/endpoints/stable-diffusion.js
    "url": "http://localhost:7860",
    "auth": "",
    "prompt": "a red fox",
    "negative_prompt": "blurry",
    "sampler_name": "DDIM",
    "scheduler": "normal",
    "steps": 4,
    "cfg_scale": 3,
    "width": 32,
    "height": 32,
    "seed": 7,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": ""},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
    "alwayson_scripts": {},
}


def test_a_prompt_is_drawn_as_in_python(served):
    answer = served.post(f"{API}/txt2img", SILLY_TAVERN)
    options: dict[str, Any] = {"negative_prompt": "blurry", "scheduler": "ddim", "num_inference_steps": 4}
    wanted = served.pipe("a red fox", seed=7, guidance_scale=3, **options).images[0]
    assert picture_of(answer["images"][0]).tobytes() == wanted.tobytes()
    info = json.loads(answer["info"])
    assert (info["seed"], info["all_seeds"], info["sampler_name"], info["width"]) == (7, [7], "ddim", 32)
    assert info["infotexts"][0].startswith("a red fox\nNegative prompt: blurry\nSteps: 4")
    assert info["extra_generation_params"] == {}
    assert answer["parameters"]["prompt"] == "a red fox"


def test_what_is_left_out_or_null_is_the_bundles(served):
    """Bots send nulls and floats; A1111's own 50 steps and scale 7 are not taken."""
    nulls = dict.fromkeys(("sampler_name", "sampler_index", "scheduler", "denoising_strength", "styles", "width"))
    body = {"prompt": "owl", "seed": 5.0, "steps": None, "batch_size": 2.0, "n_iter": "1", **nulls}
    answer = served.post(f"{API}/txt2img", {**body, "hr_second_pass_steps": 7.5, "styles": [None]})
    wanted = served.pipe("owl", seed=5, num_images_per_prompt=2).images
    assert [picture_of(one).tobytes() for one in answer["images"]] == [one.tobytes() for one in wanted]
    info = json.loads(served.post(f"{API}/txt2img", {})["info"])
    assert (info["steps"], info["cfg_scale"]) == (4, 3.0)


@pytest.mark.parametrize(
    ("names", "ours", "noted"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "dpmpp_2m_karras", False),
        ({"sampler_index": "DPM++ 2M", "scheduler": "Karras"}, "dpmpp_2m_karras", False),
        ({"sampler_name": "Euler a", "scheduler": "automatic"}, "euler_a", False),
        ({"sampler_name": "euler", "scheduler": "discrete"}, "euler", False),
        ({"sampler_name": "DDIM", "scheduler": "karras"}, "ddim", True),
        ({"sampler_name": "Restart"}, "ddim", True),
    ],
)
def test_samplers_have_a1111s_names_and_what_is_unknown_is_told(served, names, ours, noted):
    info = json.loads(served.post(f"{API}/txt2img", {"prompt": "owl", **names})["info"])
    assert info["sampler_name"] == ours
    assert ("Note" in info["extra_generation_params"]) == noted


def test_another_size_is_made_of_what_was_drawn(served):
    answer = served.post(f"{API}/txt2img", {"prompt": "owl", "seed": 3, "width": 64, "height": 64})
    drawn = served.pipe("owl", seed=3).images[0]
    assert (
        picture_of(answer["images"][0]).tobytes() == ImageOps.fit(drawn, (64, 64), Image.Resampling.LANCZOS).tobytes()
    )
    twice = served.post(f"{API}/txt2img", {"prompt": "owl", "width": 32, "height": 32, "enable_hr": True})
    assert picture_of(twice["images"][0]).size == (64, 64)
    assert "enable_hr" in json.loads(twice["info"])["extra_generation_params"]["Note"]


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        ({"tiling": True, "restore_faces": False, "s_noise": 1.0}, "tiling=True is not done here"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, "CLIP_stop_at_last_layers=2 is not done here"),
        ({"override_settings": {"sd_model_checkpoint": "deliberate"}}, "checkpoint 'deliberate' is not here"),
        ({"model": "sd_xl"}, "checkpoint 'sd_xl' is not here"),
        ({"styles": ["Cinematic"]}, "styles=['Cinematic'] is not done here"),
        ({"sampler_name": "DDIM", "eta": 1.0}, "eta=1.0 is not done here"),
        ({"prompt": "owl <lora:ink:0.8>"}, "lora 'ink' is not here"),
        (
            {"styles": [None, "None"], "eta": 1.0, "sampler_name": "Euler a", "s_churn": 0, "refiner_checkpoint": ""},
            None,
        ),
        ({"override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1}, "eta": None}, None),
    ],
)
def test_what_is_asked_for_and_not_done_is_told(served, asked, noted):
    info = json.loads(served.post(f"{API}/txt2img", {"prompt": "owl", **asked})["info"])
    assert info["extra_generation_params"].get("Note") == noted
    assert info["prompt"].strip() == "owl"


def test_one_side_of_a_size_takes_a1111s_for_the_other(served):
    assert picture_of(served.post(f"{API}/txt2img", {"prompt": "owl", "width": 64})["images"][0]).size == (64, 512)


def test_memory_is_given_back_when_a_client_asks_for_it(served):
    """As A1111's clients do that share a machine; jobs that wait are drawn first."""
    served.gate.open = False
    answers = []
    thread = threading.Thread(target=lambda: answers.append(served.post(f"{API}/txt2img", {"prompt": "owl"})))
    thread.start()
    until(lambda: served.get(f"{API}/progress")["state"]["job_count"] == 1)
    assert served.post(f"{API}/unload-checkpoint", None) == {}
    served.gate.open = True
    thread.join(20)
    until(lambda: served.studio.shelf.loaded is None)
    assert len(answers[0]["images"]) == 1
    assert len(served.post(f"{API}/txt2img", {"prompt": "owl"})["images"]) == 1  # it loads again by itself


def test_siblings_of_a_seed(served):
    answer = served.post(f"{API}/txt2img", {"prompt": "owl", "seed": 3, "subseed": 9, "subseed_strength": 0.2})
    wanted = served.pipe("owl", seed=3, variation_seed=9, variation_strength=0.2).images[0]
    assert picture_of(answer["images"][0]).tobytes() == wanted.tobytes()


def test_a_picture_is_drawn_anew_where_the_mask_is_white(served):
    """The picture is stretched to the bundle's size and back; what the mask does not show stays, pixel by pixel."""
    image = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 50).convert("RGB")
    mask = Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 24, 48))
    body = {"prompt": "owl", "seed": 7, "init_images": [base64_of(image)], "mask": base64_of(mask), "mask_blur": 0}
    body |= {"denoising_strength": 0.75, "width": 64, "height": 48, "inpaint_full_res": False}
    answer = served.post(f"{API}/img2img", {**body, "image_cfg_scale": 1.5})  # as webuiapi sends to every model
    found = np.asarray(picture_of(answer["images"][0]))
    assert np.array_equal(found[:, 24:], np.asarray(image)[:, 24:])
    small, white = image.resize((32, 32), 1), mask.resize((32, 32), 1)
    drawn = served.pipe("owl", seed=7, image=small, mask_image=white, strength=0.75).images[0].resize((64, 48), 1)
    assert np.array_equal(found[:, :24], np.asarray(drawn)[:, :24])
    assert answer["parameters"]["init_images"] is None
    inverted = np.asarray(picture_of(served.post(f"{API}/img2img", {**body, "inpainting_mask_invert": 1})["images"][0]))
    assert np.array_equal(inverted[:, :24], np.asarray(image)[:, :24])


def test_the_least_strength_is_one_step(served):
    image = base64_of(Image.new("RGB", (32, 32), "teal"))
    for strength, mode in ((0, 0), (1, 1), (None, 2)):
        body = {"init_images": [f"data:image/png;base64,{image}"], "denoising_strength": strength, "resize_mode": mode}
        assert len(served.post(f"{API}/img2img", {**body, "width": 40, "height": 32})["images"]) == 1


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("txt2img", {"prompt": 7}, 400),
        ("txt2img", {"steps": 7.5}, 400),
        ("txt2img", {"steps": "nan"}, 400),
        ("txt2img", {"width": 1e300, "height": 32}, 400),
        ("txt2img", {"batch_size": -1}, 400),
        ("txt2img", {"batch_size": 1000}, 400),
        ("txt2img", {"cfg_scale": -1}, 400),
        ("txt2img", {"alwayson_scripts": {"ADetailer": {"args": []}}}, 422),
        ("txt2img", {"script_name": "Loopback"}, 422),
        ("img2img", {}, 404),
        ("img2img", {"init_images": ["http://127.0.0.1/x.png"]}, 400),
        ("img2img", {"init_images": ["file:///etc/passwd"]}, 400),
        ("options", {"sd_model_checkpoint": "nothing"}, 404),
        ("extra-single-image", {"image": "", "upscaler_1": "ESRGAN_4x"}, 400),
        ("interrogate", {"image": ""}, 404),
        ("server-kill", {}, 404),
    ],
)
def test_errors_have_a1111s_keys(served, route, body, status):
    answer = served.ask("POST", f"{API}/{route}", json=body)
    assert answer.status_code == status, answer.text
    assert {"error", "detail", "body", "errors"} == set(answer.json())


def test_the_document_has_a1111s_form_of_errors(served):
    paths = served.get("/openapi.json")["paths"]
    forms = {path: str(paths[path]["post"]["responses"]["default"]) for path in (f"{API}/txt2img", "/api/v1/jobs")}
    assert ["FlatErrorShape" in form for form in forms.values()] == [True, False]


def test_lists_have_what_clients_read(served):
    models = served.get(f"{API}/sd-models")
    assert [set(one) for one in models] == [{"title", "model_name", "hash", "sha256", "filename", "config"}] * 2
    assert "/" not in models[0]["filename"]
    names = {one["name"] for one in served.get(f"{API}/samplers")}
    assert {"Euler", "Euler a", "DDIM", "DPM++ 2M Karras"} <= names
    assert {"automatic", "karras"} <= {one["name"] for one in served.get(f"{API}/schedulers")}
    assert served.get(f"{API}/embeddings") == {"loaded": {}, "skipped": {}}
    assert served.get(f"{API}/memory")["ram"]["total"] > 0
    empty = "loras sd-vae sd-modules hypernetworks face-restorers realesrgan-models prompt-styles script-info"
    for name in [*empty.split(), "latent-upscale-modes", "extensions"]:
        assert served.get(f"{API}/{name}") == []
    for path in (f"{API}/scripts", f"{API}/cmd-flags", f"{API}/upscalers", "/config", "/internal/ping"):
        served.get(path)
    for name in ("refresh-checkpoints", "unload-checkpoint", "reload-checkpoint"):
        assert served.ask("POST", f"{API}/{name}").json() == (None if name.startswith("refresh") else {})


def test_the_bundle_is_switched_by_settings_or_for_one_request(served):
    one, two = (model["title"] for model in served.get(f"{API}/sd-models"))
    settings = served.get(f"{API}/options")
    assert (settings["sd_model_checkpoint"], settings["samples_format"]) == (one, "png")
    drawn = served.post(f"{API}/txt2img", {"override_settings": {"sd_model_checkpoint": two}})
    assert json.loads(drawn["info"])["sd_model_name"] == "two"
    served.post(f"{API}/options/", {**settings, "sd_model_checkpoint": two})  # Open WebUI sends the whole object back
    assert served.get(f"{API}/options")["sd_model_checkpoint"] == two
    assert json.loads(served.post(f"{API}/txt2img", {})["info"])["sd_model_name"] == "two"


def test_infotext_fills_in_what_a_request_leaves_out(served):
    drawn = served.post(f"{API}/txt2img", {"prompt": "a red fox", "negative_prompt": "snow", "seed": 7, "steps": 6})
    text = json.loads(drawn["info"])["infotexts"][0]
    again = served.post(f"{API}/txt2img", {"infotext": text})
    assert again["images"] == drawn["images"]
    other = json.loads(served.post(f"{API}/txt2img", {"infotext": text, "seed": 8})["info"])
    assert (other["prompt"], other["seed"], other["steps"]) == ("a red fox", 8, 6)
    nothing = json.loads(served.post(f"{API}/txt2img", {"prompt": "owl", "infotext": "\ud800 no"[1:]})["info"])
    assert nothing["extra_generation_params"]["Note"] == "infotext could not be read"


def test_what_a_picture_says_and_larger_pictures(served):
    drawn = served.post(f"{API}/txt2img", {"prompt": "a red fox", "seed": 7})
    said = served.post(f"{API}/png-info", {"image": drawn["images"][0]})
    assert said["info"] == json.loads(drawn["info"])["infotexts"][0]
    assert said["parameters"]["Prompt"] == "a red fox"
    plain = base64_of(Image.new("RGB", (4, 3)))
    assert served.post(f"{API}/png-info", {"image": plain}) == {"info": "", "items": {}, "parameters": {}}


def test_a_mask_that_paints_nothing_is_told(served):
    image, black = base64_of(Image.new("RGB", (32, 32), "teal")), base64_of(Image.new("L", (32, 32)))
    answer = served.post(
        f"{API}/img2img", {"prompt": "owl", "init_images": [image], "mask": black, "inpaint_full_res": 0}
    )
    assert "the mask has no white" in json.loads(answer["info"])["extra_generation_params"]["Note"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
def test_pictures_of_every_kind_are_enlarged(served, mode):
    image = base64_of(Image.new(mode, (4, 3)))
    found = served.post(f"{API}/extra-single-image", {"image": image, "upscaler_1": "Lanczos"})["image"]
    assert (picture_of(found).size, picture_of(found).mode) == ((8, 6), "RGBA" if mode in {"LA", "RGBA"} else "RGB")


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (4, 3)),  # without a method A1111 changes nothing
        ({"upscaler_1": "Nearest"}, (8, 6)),
        ({"upscaler_1": "Nearest", "upscaling_resize": 3.0, "upscaler_2": "Lanczos"}, (12, 9)),
        ({"upscaler_1": "Lanczos", "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5}, (8, 6)),
        ({"upscaler_1": "Lanczos", "resize_mode": 1}, (512, 512)),
        ({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 8, "upscaling_resize_h": 8}, (8, 8)),
        (
            {
                "upscaler_1": "Lanczos",
                "resize_mode": 1,
                "upscaling_resize_w": 8,
                "upscaling_resize_h": 9,
                "upscaling_crop": False,
            },
            (12, 9),
        ),
    ],
)
def test_pictures_are_enlarged_as_a1111_does(served, asked, size):
    image = Image.effect_mandelbrot((4, 3), (-2, -1, 1, 1), 50).convert("RGB")
    found = picture_of(served.post(f"{API}/extra-single-image", {"image": base64_of(image), **asked})["image"])
    assert found.size == size
    if asked.get("upscaler_1") == "Nearest":
        assert found.resize((4, 3), 0).tobytes() == image.tobytes()


def test_what_is_not_done_to_a_picture_that_is_enlarged_is_told(served):
    body = {"image": base64_of(Image.new("RGB", (4, 3))), "upscaler_1": "Lanczos", "show_extras_results": True}
    body |= {"gfpgan_visibility": 0, "codeformer_visibility": 0.5, "codeformer_weight": 0.5, "upscale_by": "<4>"}
    told = served.post(f"{API}/extra-single-image", body)["html_info"]
    assert told == "codeformer_visibility=0.5 is not done here; upscale_by=&lt;4&gt; is not done here"
    for wrong in ({"resize_mode": 2}, {"image": 7}, {"upscaling_resize": "much"}):
        assert served.ask("POST", f"{API}/extra-single-image", json={**body, **wrong}).status_code == 400
