"""OpenAI's images API: what its clients send is drawn, in the size that they ask for."""

from __future__ import annotations

import base64
import json
import shutil
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import make_bundle
from tests.serve.conftest import until

from nano_runtime import open_picture
from nano_serve.gallery import Gallery
from nano_serve.http.openai_shapes import ImagesShape
from nano_serve.shapes import ErrorShape

URL = "/v1/images/generations"


def test_a_prompt_is_drawn_as_in_python(served):
    answer = served.ask("POST", URL, json={"prompt": "a red fox", "n": 2, "seed": 7, "model": "gpt-image-1"})
    assert (answer.status_code, answer.headers["x-nano-drawn"]) == (200, "32x32")
    shape = msgspec.convert(answer.json(), ImagesShape)
    assert "url" not in answer.json()["data"][0]
    wanted = served.pipe("a red fox", seed=7, num_images_per_prompt=2)
    for one, image in zip(shape.data, wanted.images, strict=True):
        assert open_picture(base64.b64decode(one.b64_json)).tobytes() == image.tobytes()
    assert [one.seed for one in shape.data] == [7, 8]
    assert "Steps: 4" in shape.data[0].parameters


def test_a_prompt_may_be_long_and_what_does_not_fit_is_told(served):
    """Programs that let a language model write prompts send hundreds of words."""
    long = "a red fox on the grass near a river"
    answer = served.post(URL, {"prompt": long, "seed": 7})
    wanted = served.pipe(long, seed=7, long_prompts=True).images[0]
    assert open_picture(base64.b64decode(answer["data"][0]["b64_json"])).tobytes() == wanted.tobytes()
    assert answer["notes"] == []
    assert "Shorten it" in served.ask("POST", URL, json={"prompt": "fox " * 1000}).json()["error"]["message"]
    (note,) = served.post(URL, {"prompt": "a {red|blue} fox"})["notes"]
    assert note.startswith("{red|blue} in the prompt is read as words")
    info = json.loads(served.post("/sdapi/v1/txt2img", {"prompt": "a {red|blue} fox"})["info"])
    assert info["extra_generation_params"] == {"Note": note}


def test_what_clients_send_beside_is_ignored(served):
    """Open WebUI, LibreChat, LobeChat, OpenVINO Model Server's users."""
    body: dict[str, Any] = {
        "prompt": "owl",
        "size": "auto",
        "response_format": "b64_json",
        "background": "auto",
        "moderation": "low",
    }
    body |= {"quality": "low", "user": "me", "style": None, "input_fidelity": "high", "output_format": None, "n": "1"}
    body |= {"rng_seed": 5, "num_inference_steps": 3.0, "guidance_scale": "2", "negative_prompt": None}
    assert served.post(URL, body)["data"][0]["seed"] == 5
    assert 0 <= served.post(URL, {"prompt": "owl", "seed": -1})["data"][0]["seed"] < 2**32
    for alias in ("/v3/images/generations", "/api/v1/images/generations", URL + "/"):
        assert served.post(alias, {"prompt": "owl", "seed": 5})["size"] == "32x32"


def test_options_may_have_the_names_that_they_have_elsewhere_and_what_changes_nothing_is_told(served):
    names = {"prompt": "owl", "seed": 3, "guidance": 9, "sampler": "euler", "Negative Prompt": "snow"}
    answer = served.post(URL, {**names, "stepz": 2, "user": "me"})
    wanted = served.pipe("owl", seed=3, guidance_scale=9, scheduler="euler", negative_prompt="snow").images[0]
    other = served.pipe("owl", seed=3).images[0]
    found = open_picture(base64.b64decode(answer["data"][0]["b64_json"]))
    assert found.tobytes() == wanted.tobytes() != other.tobytes()
    assert answer["notes"] == ["stepz=2 changes nothing here"]
    assert served.post(URL, {"prompt": "owl", "guidance": 9, "guidance_scale": 2})["notes"] == [
        "guidance=9 changes nothing here"
    ]
    wrong = served.ask("POST", URL, json={"prompt": "owl", "cfg": "much"})
    assert (wrong.status_code, "guidance_scale" in wrong.text) == (400, True)


def test_a_model_is_named_by_its_folder_too_and_a_name_of_none_is_told(serving, bundles, tmp_path):
    folder = tmp_path / "Third"
    shutil.copytree(bundles[1], folder)
    served = serving(bundles=[bundles[0], folder])
    assert served.post(URL, {"prompt": "owl", "model": "third"})["model"].startswith("two")
    answer = served.post(URL, {"prompt": "owl", "model": "gpt-image-1"})
    assert answer["notes"] == [f"no bundle is named 'gpt-image-1'; {answer['model']} drew"]
    alone = serving(bundles=[folder]).post(URL, {"prompt": "owl", "model": "gpt-image-1"})
    assert alone["notes"] == []


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"steps": 2, "num_inference_steps": 3}, "num_inference_steps=3 changes nothing here"),
        ({"seed": 2, "rng_seed": 3}, "rng_seed=3 changes nothing here"),
        ({"steps": 2, "num_inference_steps": "2", "seed": None, "rng_seed": 3, "guidance_scale": None, "cfg": 2}, None),
        ({"quality": "ultra"}, "quality=ultra is not known; exact drew"),
        ({"quality": "hd", "response_format": "b64_json", "background": "opaque"}, None),
        ({"response_format": "url"}, "response_format=url: pictures come as b64_json"),
        ({"background": "blue"}, "background=blue changes nothing here"),
        ({"output_compression": 50}, "output_compression changes nothing in a PNG"),
        ({"output_compression": 50, "output_format": "webp"}, None),
        ({"partial_images": 2}, "partial_images changes nothing without stream"),
        ({"image": "iVBORw0KGgo="}, "image=iVBORw0KGgo= changes nothing here"),
        ({"mask": "iVBORw0KGgo="}, "mask=iVBORw0KGgo= changes nothing here"),
    ],
)
def test_what_changes_nothing_is_told(served, asked, note):
    assert served.post(URL, {"prompt": "owl", **asked})["notes"] == ([] if note is None else [note])


def test_a_quality_is_taken_by_either_name_and_one_that_the_bundle_has_not_is_told(serving, tmp_path):
    """OpenAI's low and medium, and our own names, which were once read as exact."""
    make_bundle(tmp_path / "quick", name="quick")
    make_bundle(tmp_path / "plain", name="plain", presets={})
    served = serving(bundles=[tmp_path / "quick", tmp_path / "plain"])
    drawn = {}
    for quality in ("low", "fast", "medium", "balanced", "auto", "exact"):
        answer = served.post(URL, {"prompt": "owl", "seed": 3, "steps": 8, "quality": quality})
        assert (answer["notes"], answer["quality"]) == ([], quality)
        drawn[quality] = answer["data"][0]["b64_json"]
    assert drawn["low"] == drawn["fast"] != drawn["exact"] == drawn["auto"]
    assert drawn["medium"] == drawn["balanced"] != drawn["exact"]
    answer = served.post(URL, {"prompt": "owl", "quality": "low", "model": "plain"})
    assert answer["notes"] == [f"quality=low: {answer['model']} has no preset fast; exact drew"]


def test_a_name_that_two_bundles_have_is_told(serving, bundles, tmp_path):
    """The first draws where any name is taken; our own API, and A1111's settings, want to know which."""
    folder = tmp_path / "one"  # as the first bundle's name, and as its folder
    shutil.copytree(bundles[1], folder)
    served = serving(bundles=[bundles[0], folder])
    one, two = (found["title"] for found in served.get("/api/v1/bundles")["bundles"])
    answer = served.post(URL, {"prompt": "owl", "model": "One"})
    assert answer["notes"] == [f"2 bundles are named 'One'; {one} drew"]
    info = json.loads(served.post("/sdapi/v1/txt2img", {"override_settings": {"sd_model_checkpoint": "one"}})["info"])
    assert info["extra_generation_params"]["Note"] == f"2 bundles are named 'one'; {one} drew"
    for path, body in (("/api/v1/jobs", {"bundle": "one"}), ("/sdapi/v1/options", {"sd_model_checkpoint": "one"})):
        refused = served.ask("POST", path, json={"prompt": "owl", **body})
        assert (refused.status_code, one in refused.text, two in refused.text) == (400, True, True)
    for name in (one, two, two[-11:-1], "two", "two.safetensors"):
        answer = served.post(URL, {"prompt": "owl", "model": name})
        assert (answer["notes"], answer["model"]) == ([], one if name == one else two)


def test_one_limit_of_pictures_is_told(served):
    for number in (0, -1, 101, 1_000_000):
        message = served.ask("POST", URL, json={"prompt": "owl", "n": number}).json()["error"]["message"]
        assert message == f"{number} pictures are asked for. Ask for 1 to 100."
    answer = served.ask("POST", "/sdapi/v1/txt2img", json={"batch_size": 1000, "n_iter": 1000}).json()
    assert answer["detail"] == "1000000 pictures are asked for. Ask for 1 to 100."


@pytest.mark.parametrize(("fit", "size"), [("asked", (64, 48)), ("native", (32, 32)), ("strict", None)])
def test_another_size_than_the_bundles(serving, fit, size):
    served = serving(fit=fit)
    answer = served.ask("POST", URL, json={"prompt": "owl", "size": "64x48", "seed": 3})
    if size is None:
        assert (answer.status_code, "32x32" in answer.text) == (400, True)
        return
    found = open_picture(base64.b64decode(answer.json()["data"][0]["b64_json"]))
    assert found.size == size
    cut = ["32x32 was drawn, and cropped to the shape of 64x48"] if fit == "asked" else []
    assert answer.json()["notes"] == cut
    assert "Size: 32x32" in answer.json()["data"][0]["parameters"]
    drawn = served.pipe("owl", seed=3).images[0]
    cropped = np.asarray(drawn.crop((0, 4, 32, 28)).resize(size, Image.Resampling.LANCZOS), float)  # covers 4:3
    if fit == "asked":
        assert np.abs(np.asarray(found, float) - cropped).mean() < 2  # ImageOps resamples and crops in one step
        assert np.abs(np.asarray(found, float) - cropped[::-1]).mean() > 2  # negative control


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_format_that_was_asked_for(served, form):
    data = served.post(URL, {"prompt": "owl", "output_format": form, "output_compression": 90})["data"][0]
    assert Image.open(BytesIO(base64.b64decode(data["b64_json"]))).format == form.upper()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"prompt": None}, 400),
        ({"prompt": "owl", "n": 0}, 400),
        ({"prompt": "owl", "n": 1000}, 400),
        ({"prompt": "owl", "n": 1.5}, 400),
        ({"prompt": "owl", "size": "big"}, 400),
        ({"prompt": "owl", "size": "90000x90000"}, 400),
        ({"prompt": "owl", "size": "0x0"}, 400),
        ({"prompt": "owl", "size": "16384x9", "output_format": "webp"}, 400),
        ({"prompt": "owl", "size": "9x70000", "output_format": "jpeg"}, 400),
        ({"prompt": "owl", "output_format": "gif"}, 400),
        ({"prompt": "owl", "background": "transparent"}, 400),
        ({"prompt": "owl", "seed": 2**64}, 400),
        ({"prompt": "o" * 10_001}, 400),
        ({"prompt": "owl", "strength": 0.5}, 400),
        ({"prompt": "owl", "output_compression": 101, "output_format": "webp"}, 400),
        ({"prompt": "owl", "output_compression": -1}, 400),
        ({"prompt": "owl", "partial_images": 4, "stream": True}, 400),
    ],
)
def test_errors_have_the_four_keys_that_clients_show(served, body, status):
    answer = served.ask("POST", URL, json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    msgspec.convert(answer.json(), ErrorShape)


def test_a_fault_of_the_server_is_not_to_be_repeated(served):
    """Both clients repeat 5xx twice, unless they are told not to."""
    served.gate.full = True
    answer = served.ask("POST", URL, json={"prompt": "owl"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert "memory" in answer.json()["error"]["message"]


def test_a_full_queue_says_when_to_come_again(serving):
    served = serving(queue=1)
    served.gate.open = False
    for _ in range(2):
        served.post("/api/v1/jobs", {"prompt": "owl", "num_inference_steps": 5})
        _until_begun(served)
    answer = served.ask("POST", URL, json={"prompt": "owl"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "true")
    assert 1 <= int(answer.headers["retry-after"]) <= 120


def test_models_are_the_bundles(served):
    listed = served.get("/v1/models")
    titles = [one["id"] for one in listed["data"]]
    assert [title.partition(" ")[0] for title in titles] == ["one", "two"]
    assert listed["object"] == "list"
    assert served.get("/v1/models/two")["id"] == titles[1]
    assert served.ask("GET", "/v1/models/three").status_code == 404
    second = served.ask("POST", URL, json={"prompt": "owl", "model": titles[1]})
    assert second.headers["x-nano-bundle"] == titles[1]


def test_partial_pictures_are_streamed_before_the_whole(served):
    body = {"prompt": "owl", "seed": 7, "stream": True, "partial_images": 2, "size": "64x64"}
    answer = served.ask("POST", URL, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = _events(answer.text)
    kinds = [name for name, _ in events]
    assert kinds[-1] == "image_generation.completed"
    assert set(kinds[:-1]) <= {"image_generation.partial_image"}
    last = events[-1][1]
    assert last["type"] == "image_generation.completed"
    whole = served.post(URL, {"prompt": "owl", "seed": 7, "size": "64x64"})["data"][0]["b64_json"]
    assert last["b64_json"] == whole
    for number, (_, event) in enumerate(events[:-1]):
        assert event["partial_image_index"] == number
        assert open_picture(base64.b64decode(event["b64_json"])).size == (64, 64)


@pytest.mark.parametrize("route", ["generations", "edits"])
def test_the_document_says_that_an_answer_may_be_a_stream(served, route):
    """Clients are made from it, and a run of schemathesis holds answers to it."""
    operation = served.get("/openapi.json")["paths"][f"/v1/images/{route}"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_longest_picture_has_a_file_in_every_format(served, form):
    answer = served.post(URL, {"prompt": "owl", "size": "16383x9", "output_format": form, "steps": 1})
    assert Image.open(BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).size == (16383, 9)


def test_a_picture_that_somebody_deletes_before_it_is_sent_is_an_error_in_the_stream(served, monkeypatch):
    monkeypatch.setattr(served.studio.gallery, "content", lambda name: Gallery.content(served.studio.gallery, name[1:]))
    events = _events(served.ask("POST", URL, json={"prompt": "owl", "stream": True}).text)
    assert "there is no picture" in events[-1][1]["error"]["message"]


def test_an_error_in_a_stream_is_an_event(served):
    served.gate.full = True
    events = _events(served.ask("POST", URL, json={"prompt": "owl", "stream": True}).text)
    assert "memory" in events[-1][1]["error"]["message"]


def test_an_edit_keeps_what_the_mask_does_not_show(served):
    """OpenAI's masks are transparent where the picture is drawn anew, ours white."""
    image = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50).convert("RGB")
    left = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    left.paste((0, 0, 0, 0), (0, 0, 16, 32))
    white = Image.new("L", (32, 32))
    white.paste(255, (0, 0, 16, 32))
    wanted = served.pipe("owl", seed=7, image=image, mask_image=white, keep_unmasked=True).images[0]
    for mask in (
        left,
        white,
        white.convert("RGBA"),
        white.convert("LA"),
    ):  # a canvas sends an alpha channel in any case
        files = {"image": ("a.png", _png(image)), "mask": ("b.png", _png(mask))}
        data = served.ask("POST", "/v1/images/edits", files=files, data={"prompt": "owl", "seed": "7"}).json()["data"]
        assert open_picture(base64.b64decode(data[0]["b64_json"])).tobytes() == wanted.tobytes()
    both = Image.merge("RGBA", (*image.split(), left.getchannel("A")))  # the picture's own transparent part
    answer = served.ask("POST", "/v1/images/edits", files={"image[]": _png(both)}, data={"prompt": "owl", "seed": "7"})
    found = open_picture(base64.b64decode(answer.json()["data"][0]["b64_json"]))
    assert np.array_equal(np.asarray(found)[:, 16:], np.asarray(image)[:, 16:])
    notes = ["without a mask, only the picture's transparent parts are drawn anew"]
    assert answer.json()["notes"] == notes
    large = {"prompt": "owl", "size": "64x64"}
    answer = served.ask("POST", "/v1/images/edits", files={"image": _png(both)}, data=large)
    notes.append("32x32 was drawn: what the mask keeps is enlarged from that, too")
    assert answer.json()["notes"] == notes


def test_an_edit_without_a_mask_starts_from_the_picture(served):
    image = Image.effect_mandelbrot((48, 32), (-2, -1, 1, 1), 50).convert("RGB")
    wanted = served.pipe("owl", seed=7, image=image, strength=0.5).images[0]
    form = {"prompt": "owl", "seed": "7", "strength": "0.5", "n": "1", "size": "auto"}
    answer = served.ask("POST", "/v1/images/edits", files={"image[]": _png(image)}, data=form)
    assert open_picture(base64.b64decode(answer.json()["data"][0]["b64_json"])).tobytes() == wanted.tobytes()


def test_files_that_change_nothing_are_told(served):
    image = _png(Image.new("RGB", (32, 32), "teal"))
    files = {"image": image, "control_image": image}
    answer = served.ask("POST", "/v1/images/edits", files=files, data={"prompt": "owl", "stepz": "3"})
    assert answer.json()["notes"] == ["stepz=3 changes nothing here", "the file 'control_image' changes nothing here"]


@pytest.mark.parametrize(
    ("files", "data", "status"),
    [
        ({}, {"prompt": "owl"}, 415),
        ({"mask": b"x"}, {"prompt": "owl"}, 400),
        ({"image": b"no picture"}, {"prompt": "owl"}, 400),
        ({"image": b"no picture"}, {}, 400),
        ({"image": b"no picture"}, {"prompt": "owl", "n": "many"}, 400),
        ([("image[]", b"x"), ("image[]", b"y")], {"prompt": "owl"}, 400),
        ([("image", b"x"), ("mask", b"x"), ("mask", b"y")], {"prompt": "owl"}, 400),
        ({"image": b"x"}, {"prompt": ["owl", "fox"]}, 400),
        ([("image", b"x")] * 2000, {"prompt": "owl"}, 400),
        ({"image": b"x"}, {"prompt": "o" * 200_000}, 400),
    ],
)
def test_bad_forms(served, files, data, status):
    assert served.ask("POST", "/v1/images/edits", files=files, data=data).status_code == status


def test_a_form_that_was_cut_short_is_refused(served):
    """Its last part was once left out: with the mask, all of the picture was drawn anew."""
    image = _png(Image.new("RGB", (32, 32), "teal"))
    parts = {"image": image, "mask": image}
    heads = [f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n' for name in parts]
    prompt = b'--XX\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nowl\r\n'
    whole = prompt + b"".join(head.encode() + image + b"\r\n" for head in heads) + b"--XX--"
    for boundary in ("XX", '"XX"'):
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        answers = [
            served.ask("POST", "/v1/images/edits", content=whole[:end], headers=headers) for end in (None, -2, -20)
        ]
        assert [answer.status_code for answer in answers] == [200, 400, 400]
        assert "ends before its end" in answers[2].text


def _until_begun(served) -> None:
    until(lambda: any(job["status"] == "generating" for job in served.get("/api/v1/jobs")["jobs"]))


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _events(text: str) -> list[tuple[str, Any]]:
    found = []
    for event in text.strip().split("\n\n"):
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found
