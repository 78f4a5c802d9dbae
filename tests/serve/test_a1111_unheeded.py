"""What a request of A1111's API sets and does not get is told in ``info``; what changes no picture is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tests.serve.conftest import Served, base64_of, picture_of, servers

API = "/sdapi/v1"
WEBUIAPI: dict[str, Any] = {  # all that webuiapi 0.9.17 sends with its defaults: A1111's own
    **dict.fromkeys(("enable_hr", "restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid"), False),
    **dict.fromkeys(("firstphase_width", "firstphase_height", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y"), 0),
    **dict.fromkeys(("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "script_name"), None),
    **dict.fromkeys(("s_churn", "s_tmax", "s_tmin", "seed_resize_from_h", "seed_resize_from_w"), 0),
    "hr_scale": 2, "hr_upscaler": "Latent", "hr_prompt": "", "hr_negative_prompt": "", "denoising_strength": 0.7,
    "prompt": "owl", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0, "batch_size": 1, "n_iter": 1,
    "steps": 4, "cfg_scale": 7.0, "width": 32, "height": 32, "negative_prompt": "", "eta": 1.0, "s_noise": 1,
    "override_settings": {}, "override_settings_restore_afterwards": True, "script_args": [], "send_images": True,
    "sampler_name": "Euler a", "sampler_index": "Euler a", "scheduler": "automatic", "save_images": False,
    "alwayson_scripts": {},
}  # fmt: skip
KOBOLD: dict[str, Any] = {  # KoboldAI Lite 27eb1dc, index.html
    "prompt": "owl", "seed": 7, "sampler_name": "DDIM", "batch_size": 1, "n_iter": 1, "steps": 4, "cfg_scale": 3,
    "do_not_save_samples": True, "do_not_save_grid": True, "enable_hr": False, "eta": 0, "s_churn": 0, "s_tmax": 0,
    "s_tmin": 0, "s_noise": 1,
    "override_settings": {
        "eta_noise_seed_delta": 0.0, "CLIP_stop_at_last_layers": 1.0, "ddim_discretize": "uniform",
        "img2img_fix_steps": False, "sd_hypernetwork": "None", "inpainting_mask_weight": 1.0,
        "initial_noise_multiplier": 1.0, "comma_padding_backtrack": 20.0,
    },
}  # fmt: skip
SILLY_TAVERN: dict[str, Any] = {  # 1.19.0, public/scripts/extensions/stable-diffusion/index.js
    "url": "http://localhost:7860", "auth": "", "prompt": "owl", "sampler_name": "DDIM", "scheduler": "normal",
    "steps": 4, "cfg_scale": 3, "width": 32, "height": 32, "restore_faces": False, "enable_hr": False,
    "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": [], "denoising_strength": 0.7, "clip_skip": 1,
    "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1}, "save_images": True,
    "override_settings_restore_afterwards": True, "send_images": True, "do_not_save_grid": False,
}  # fmt: skip
FORGE: dict[str, Any] = {  # the defaults of its models of requests
    "prompt": "", "styles": None, "seed_resize_from_h": -1, "seed_resize_from_w": -1, "distilled_cfg_scale": 3.5,
    "restore_faces": None, "tiling": None, "eta": None, "s_min_uncond": None, "s_noise": None, "comments": None,
    "refiner_checkpoint": None, "refiner_switch_at": None, "disable_extra_networks": False, "firstpass_image": None,
    "mask_blur_x": 4, "mask_blur_y": 4, "mask_blur": None, "mask_round": True, "inpaint_full_res_padding": 0,
    "latent_mask": None, "force_task_id": None, "infotext": None, "hr_cfg": 1.0, "hr_distilled_cfg": 3.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def served(bundles, tmp_path_factory):
    """One server for all."""
    with servers(bundles, tmp_path_factory.mktemp("pictures")) as begin:
        yield begin()


@pytest.mark.parametrize("body", [WEBUIAPI, KOBOLD, SILLY_TAVERN, FORGE], ids=["webuiapi", "kobold", "silly", "forge"])
def test_programs_that_send_every_default_hear_nothing(served, body):
    assert _note(served, body) is None
    assert _note(served, {**body, "init_images": [base64_of(Image.new("RGB", (8, 8)))]}, "img2img") is None


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"step": 30}, "step=30 changes nothing here"),
        ({"sead": 0}, "sead=0 changes nothing here"),
        ({"hires": False, "frames": [], "extra": None}, None),
        ({"prompt_weighting": False}, "prompt_weighting=False changes nothing here"),
        ({"steps": 2, "num_inference_steps": 3}, "num_inference_steps=3 changes nothing here"),
        ({"clip_skip": 2}, "clip_skip=2 is not done here"),
        ({"s_tmin": "0.5", "s_noise": "1"}, "s_tmin=0.5 is not done here"),
        ({"firstphase_width": 16}, "firstphase_width=16 is not done here"),
        ({"distilled_cfg_scale": 2}, "distilled_cfg_scale=2 is not done here"),
        ({"styles": "Cinematic"}, "styles=Cinematic is not done here"),
        ({"restore_faces": "false"}, None),
        ({"enable_hr": False, "hr_prompt": "a cat", "hr_scale": 3, "mask_blur": 9}, None),  # A1111 does not heed them
        ({"init_images": ["iVBORw0KGgo="]}, "init_images changes nothing in txt2img"),
        ({"mask": "iVBORw0KGgo="}, "mask changes nothing in txt2img"),
        ({"scheduler": "Karras"}, "scheduler 'Karras' changes nothing without a sampler_name"),
        ({"width": 64, "height": 48}, "32x32 was drawn, and cropped to the shape of 64x48"),
        ({"width": 64, "height": 64}, None),
        ({"scheduler": "Simple"}, "scheduler 'Simple' changes nothing without a sampler_name"),
        ({"scheduler": "Automatic"}, None),
        ({"subseed_strength": -1}, "subseed_strength=-1 is taken as 0"),
        ({"override_settings": {"CLIP_stop_at_last_layer": 2}}, "CLIP_stop_at_last_layer=2 is not done here"),
        ({"override_settings": {"sd_model_checkpoint": ["one"]}}, "checkpoint \"['one']\" is not here"),
        ({"override_settings": {"enable_emphasis": False}}, "enable_emphasis=False is not done here"),
        ({"override_settings": {"save_to_dirs": True, "samples_filename_pattern": "x", "grid_save": 1}}, None),
    ],
)
def test_what_changes_nothing_is_told(served, asked, note):
    assert _note(served, {"prompt": "owl", **asked}) == note


def test_options_may_have_the_names_that_they_have_elsewhere(served):
    names = {"num_inference_steps": 3, "guidance": 9, "Sampler": "euler", "negative": "snow", "count": 2}
    answer = served.post(f"{API}/txt2img", {"prompt": "owl", "seed": 3, **names})
    info = json.loads(answer["info"])
    assert (info["steps"], info["cfg_scale"], info["sampler_name"], len(answer["images"])) == (3, 9.0, "euler", 2)
    assert (info["negative_prompt"], info["extra_generation_params"]) == ("snow", {})


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"denoising_strength": 1.5}, "denoising_strength=1.5 is taken as 1"),
        ({"denoising_strength": -1}, "denoising_strength=-1 is taken as 0"),
        ({"resize_mode": 3}, "resize_mode=3: the picture is stretched"),
        ({"enable_hr": True}, "enable_hr changes nothing in img2img"),
        ({"mask": True, "mask_blur": 1000}, "mask_blur=1000 is taken as 256"),
        ({"mask": True, "mask_round": False}, "mask_round=False is not done here"),
        ({"mask_round": False, "inpainting_fill": 2, "latent_mask": "x"}, None),  # without a mask
        ({"mask": True, "mask_blur_x": 2, "inpainting_fill": "1"}, None),
    ],
)
def test_what_changes_nothing_in_an_edit_is_told(served, asked, note):
    white = base64_of(Image.new("L", (32, 32), 255))
    body = {"prompt": "owl", "init_images": [base64_of(Image.new("RGB", (32, 32), "teal"))], "inpaint_full_res": False}
    body |= {name: white if name == "mask" else value for name, value in asked.items()}
    assert _note(served, body, "img2img") == note


def test_settings_that_have_no_meaning_here_are_told_with_every_laterpicture_of(bundles, tmp_path):
    """There they change all pictures from then on; another value takes the note back."""
    with servers(bundles, tmp_path) as begin:
        served = begin()
        assert served.post(f"{API}/options", {"CLIP_stop_at_last_layers": 2, "samples_format": "png"}) is None
        for _ in range(2):
            assert _note(served, {"prompt": "owl"}) == "CLIP_stop_at_last_layers=2 is not done here"
        assert _note(served, {"prompt": "owl", "override_settings": {"CLIP_stop_at_last_layers": 1}}) is None
        served.post(f"{API}/options", served.get(f"{API}/options"))
        assert _note(served, {"prompt": "owl"}) is None
        served.post(f"{API}/options", {f"x{number}": 1 for number in range(1000)})
        assert _note(served, {"prompt": "owl"}).count("is not done here") == 100
        assert served.ask("POST", f"{API}/options", json={"sd_model_checkpoint": 7}).status_code == 404


def test_what_an_infotext_says_and_is_not_done_is_told(served):
    text = "owl\nSteps: 4, Sampler: Euler, CFG scale: 3, Seed: 7, Size: 32x32, Model: deliberate, Clip skip: 2"
    note = "Clip skip: 2 of the infotext is not done here; checkpoint 'deliberate' is not here"
    assert _note(served, {"infotext": text}) == note
    of_two = json.loads(served.post(f"{API}/txt2img", {"infotext": text.replace("deliberate", "two")})["info"])
    assert of_two["sd_model_name"] == "two"
    edited = text.replace("Model: deliberate, Clip skip: 2", "Denoising strength: 0.5")
    assert _note(served, {"infotext": edited}) == "infotext is of a picture that was drawn from another"


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (64, 64)),
        ({"hr_scale": 1.5}, (48, 48)),
        ({"width": 40, "height": 20, "hr_resize_x": 80}, (80, 40)),
        ({"width": 40, "height": 20, "hr_resize_y": 80}, (160, 80)),
        ({"hr_resize_x": 50, "hr_resize_y": 60}, (50, 60)),
    ],
)
def test_a_picture_is_enlarged_as_a1111_works_out_its_size(served, asked, size):
    answer = served.post(f"{API}/txt2img", {"prompt": "owl", "enable_hr": True, **asked})
    assert picture_of(answer["images"][0]).size == size


def test_a_picture_is_read_as_a1111_reads_it(served):
    """Transparent parts are white; of a mask with transparent parts those that are not are drawn anew."""
    image = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50)
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    clear = image.convert("RGBA")
    clear.paste((200, 0, 0, 0), (0, 0, 16, 32))
    flat = Image.new("RGB", (32, 32), "white")
    flat.paste(image.convert("RGB").crop((16, 0, 32, 32)), (16, 0))
    left = Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    body = {"prompt": "owl", "seed": 7, "inpaint_full_res": False, "mask_blur": 0}

    def drawn(start: Image.Image, **more: Image.Image) -> bytes:
        pictures = {"init_images": [base64_of(start)], **{name: base64_of(one) for name, one in more.items()}}
        return picture_of(served.post(f"{API}/img2img", {**body, **pictures})["images"][0]).tobytes()

    assert drawn(clear) == drawn(flat) != drawn(clear.convert("RGB"))
    assert drawn(deep) == drawn(image)
    strokes = Image.merge("RGBA", (*Image.new("RGB", (32, 32), "red").split(), left))
    black = Image.merge("LA", (Image.new("L", (32, 32)), left))
    sixteen = Image.fromarray(np.asarray(left).astype(np.uint16) * 128 + 300)  # gray and nearly black
    masked = drawn(image, mask=left)
    assert [drawn(image, mask=one) for one in (strokes, black, left.convert("RGBA"))] == [masked] * 3
    assert drawn(image, mask=sixteen) == drawn(image, mask=sixteen.point(lambda value: value / 256).convert("L"))


def test_a_mask_may_be_blurred_otherwise_across_than_down(served):
    left, image = Image.new("L", (32, 32)), Image.new("RGB", (32, 32), "teal")
    left.paste(255, (0, 0, 16, 32))
    body = {
        "prompt": "owl",
        "seed": 7,
        "init_images": [base64_of(image)],
        "mask": base64_of(left),
        "inpaint_full_res": 0,
    }
    found = picture_of(served.post(f"{API}/img2img", {**body, "mask_blur_x": 0, "mask_blur_y": 9})["images"][0])
    whole = picture_of(served.post(f"{API}/img2img", {**body, "mask_blur": 0})["images"][0])
    assert found.tobytes() == Image.composite(whole, image, left.filter(ImageFilter.GaussianBlur((0, 9)))).tobytes()
    assert found.tobytes() != picture_of(served.post(f"{API}/img2img", body)["images"][0]).tobytes()


@pytest.mark.parametrize("asked", [{"seed": 1.5}, {"subseed": 1.5, "subseed_strength": 0.5}, {"batch_size": 0}])
def test_numbers_that_are_none_are_refused(served, asked):
    assert served.ask("POST", f"{API}/txt2img", json=asked).status_code == 400


def _note(served: Served, body: dict[str, Any], route: str = "txt2img") -> Any:
    """Return what is told of a request; None for nothing."""
    return json.loads(served.post(f"{API}/{route}", body)["info"])["extra_generation_params"].get("Note")
