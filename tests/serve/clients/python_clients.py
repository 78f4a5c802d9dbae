"""What programs do with openai-python and webuiapi, against a running server: ``python python_clients.py URL``."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import webuiapi
from PIL import Image

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "serve.md"
ADDRESS = "http://localhost:7860"
PROMPT = "an otter on a teal background"
CHECKS: list[Callable[[str], object]] = []


def check(one: Callable[[str], object]) -> Callable[[str], object]:
    """Add a check."""
    CHECKS.append(one)
    return one


def client(url: str) -> Any:
    """Return OpenAI's client."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def web(url: str) -> Any:
    """Return A1111's client."""
    where = urlsplit(url)
    return webuiapi.WebUIApi(host=where.hostname, port=where.port)


def opened(text: str) -> Image.Image:
    """Return a picture of an answer."""
    return Image.open(BytesIO(base64.b64decode(text)))


def png(size: tuple[int, int] = (64, 64), alpha: int = 255) -> bytes:
    """Return a picture to start from, or a mask."""
    file = BytesIO()
    Image.new("RGBA", size, (0, 128, 128, alpha)).save(file, "PNG")
    return file.getvalue()


@check
def the_how_to(url: str) -> None:
    """The block of the how-to, with the server's address."""
    text = HOW_TO.read_text(encoding="utf-8").partition("```py\n")[2].partition("```")[0]
    assert ADDRESS in text
    names: dict[str, Any] = {}
    exec(text.replace(ADDRESS, url), names)  # noqa: S102 - that is the check
    assert opened(names["answer"].data[0].b64_json).size == (512, 512)


@check
def openai_generates(url: str) -> None:
    """In the size that is asked for, the same picture for the same seed."""
    api = client(url)
    answers = [
        api.images.generate(
            model="gpt-image-1", prompt=PROMPT, size="512x512", quality="low", background="auto", extra_body={"seed": 7}
        )
        for _ in range(2)
    ]
    assert answers[0].data[0].b64_json == answers[1].data[0].b64_json
    assert opened(answers[0].data[0].b64_json).size == (512, 512)
    two = api.images.generate(model="dall-e-2", prompt=PROMPT, n=2, response_format="b64_json", size="256x256")
    assert len(two.data) == 2


@check
def openai_streams(url: str) -> None:
    """Partial pictures come before the whole one."""
    stream = client(url).images.generate(model="demo", prompt=PROMPT, stream=True, partial_images=2)
    kinds = [event.type for event in stream]
    assert kinds[-1] == "image_generation.completed"
    assert 1 <= kinds.count("image_generation.partial_image") <= 2


@check
def openai_edits(url: str) -> None:
    """One picture, with a mask and without, whole and streamed."""
    api = client(url)
    for more in ({}, {"mask": ("mask.png", png(alpha=0))}, {"stream": True}):
        answer = api.images.edit(model="demo", image=("a.png", png()), prompt=PROMPT, size="256x256", **more)
        if "stream" in more:
            assert [event.type for event in answer][-1] == "image_edit.completed"
        else:
            assert opened(answer.data[0].b64_json).size == (256, 256)


@check
def openai_lists_models(url: str) -> None:
    """And finds one by its name."""
    assert client(url).models.list().data[0].id.startswith("demo")
    assert client(url).models.retrieve("demo").object == "model"


@check
def openai_shows_our_errors(url: str) -> None:
    """With our words, and without a second try."""
    began = time.monotonic()
    try:
        openai.OpenAI(base_url=f"{url}/v1", api_key="none").images.generate(model="demo", prompt=PROMPT, size="9x")
    except openai.BadRequestError as error:
        assert "512x512" in str(error)
        assert time.monotonic() - began < 1
    else:
        raise AssertionError("no error")


@check
def openai_stops_at_once(url: str) -> None:
    """A stream that is closed cancels its job."""
    stream = client(url).images.generate(
        model="demo", prompt=PROMPT, n=4, stream=True, partial_images=3, extra_body={"steps": 40}
    )
    next(iter(stream))
    stream.close()
    import httpx2  # noqa: PLC0415 - openai's own

    for _ in range(100):
        jobs = httpx2.get(f"{url}/api/v1/jobs").json()["jobs"]
        if jobs[0]["status"] == "cancelled":
            return
        time.sleep(0.05)
    raise AssertionError(jobs[0]["status"])


@check
def webuiapi_draws(url: str) -> None:
    """With its 47 fields."""
    api = web(url)
    answer = api.txt2img(prompt=PROMPT, seed=7, steps=5)
    assert answer.image.size == (512, 512)
    assert answer.info["seed"] == 7
    again = api.img2img(images=[answer.image], prompt=PROMPT, denoising_strength=0.5, steps=5)
    assert again.image.size == (512, 512)
    mask = Image.new("L", answer.image.size, 255)
    assert api.img2img(images=[answer.image], mask_image=mask, prompt=PROMPT, steps=5).image.size == (512, 512)
    assert PROMPT in api.png_info(answer.image).info


@check
def webuiapi_asks(url: str) -> None:
    """Settings, lists, progress, and waiting until the server is idle."""
    api = web(url)
    assert api.get_options()["sd_model_checkpoint"].startswith("demo")
    api.util_set_model("demo")
    api.set_options({"sd_model_checkpoint": api.util_get_model_names()[0]})
    assert api.get_progress()["progress"] == 0
    api.util_wait_for_ready()
    for ask in ("samplers", "cmd_flags", "sd_models", "hypernetworks", "face_restorers", "prompt_styles", "embeddings"):
        assert getattr(api, f"get_{ask}")() is not None
    assert api.get_memory()["ram"]["total"] > 0
    api.interrupt()
    api.skip()
    small = Image.new("RGB", (16, 16))
    assert api.extra_single_image(small, upscaler_1="Lanczos", upscaling_resize=2).image.size == (32, 32)


@check
def webuiapi_shows_our_errors(url: str) -> None:
    """In full."""
    try:
        web(url).txt2img(prompt=PROMPT, steps=100_000)
    except RuntimeError as error:
        assert "100000" in str(error)
    else:
        raise AssertionError("no error")


if __name__ == "__main__":
    failed = 0
    for one in CHECKS:
        began = time.monotonic()
        try:
            one(sys.argv[1])
        except Exception as error:  # noqa: BLE001 - each is told
            failed = 1
            print(f"FAILED {one.__name__}: {type(error).__name__}: {error}")
        else:
            print(f"ok {one.__name__} ({time.monotonic() - began:.1f} s)")
    raise SystemExit(failed)
