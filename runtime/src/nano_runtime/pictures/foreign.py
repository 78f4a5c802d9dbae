"""Pictures of other programs: how they were drawn, as far as it can be repeated here.

- AUTOMATIC1111's web UI and Forge write a text ``parameters``: the prompt, "Negative prompt: ...", and a line of items.
  So do stable-diffusion.cpp and the nodes that save ComfyUI's pictures for Civitai, with sampler names of their own.
- InvokeAI writes JSON: ``invokeai_metadata`` since 3.0, ``sd-metadata`` before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from nano_runtime.errors import UnknownSchedulerError
from nano_runtime.options import DrawOptions
from nano_runtime.sampling.sampler_names import SPREADS, full_name

__all__ = ["Foreign", "foreign_of"]

_ITEM: Final = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as the web UI reads them
_LEAST_ITEMS: Final = 3  # in the line that ends the text, as the web UI counts
_NEGATIVE: Final = "Negative prompt:"
_WEIGHTS: Final = re.compile(r"[()\[\]\\]|\bBREAK\b")
_COMPEL: Final = re.compile(r"\w[+-]+(?=\W|$)|\)[\d+-]")  # InvokeAI's weights: word++, (some words)1.3
_BRACKETS: Final = re.compile(r"\[([^\[\]]*)\]")  # older InvokeAI's negative prompts
_PLAIN: Final = re.compile(r"[ _](?:normal|simple|discrete|default|automatic|uniform)$", re.IGNORECASE)
_USED: Final = frozenset(
    {"Steps", "Sampler", "Schedule type", "Scheduler", "CFG scale", "CFG Scale", "Seed", "Denoising strength"}
    | {"Image CFG scale", "Variation seed", "Variation seed strength"}
)
_NO_MATTER: Final = frozenset(  # what names files, or the size, which is the bundle's here
    {"Size", "Model", "Model hash", "Model Hash", "Version", "Hashes", "RNG", "VAE", "VAE hash", "Lora hashes"}
    | {"TI hashes", "Unet", "TE", "Guidance", "Civitai metadata", "Orientation"}
)


@dataclass(frozen=True)
class Foreign:
    """How another program drew a picture.

    Attributes:
        options: what can be repeated.
        program: its name, as it says it.
        model: name of the checkpoint; None if it does not say.
        left_out: what it says beside that, as "name: value".
        edited: whether it was drawn from a picture.
        masked: False: what is known of a mask is in ``left_out``.
    """

    options: DrawOptions
    program: str
    model: str | None
    left_out: tuple[str, ...]
    edited: bool
    masked: bool = False

    def repeated(self) -> DrawOptions:
        """Return the options that draw it as nearly as they can."""
        return self.options


def foreign_of(texts: Mapping[str, str]) -> Foreign | None:
    """Read the texts of a picture; None if they are of no program that is known here.

    Args:
        texts: by their names.

    Raises:
        ValueError: the text is damaged, or a value is not one of its option's.
    """
    if (content := texts.get("invokeai_metadata")) is not None:
        return _of_invoke(_object(content))
    if (content := texts.get("sd-metadata")) is not None:
        return _of_old_invoke(_object(content))
    return None if (content := texts.get("parameters")) is None else _of_text(content)


def _of_text(text: str) -> Foreign | None:
    """Read A1111's layout."""
    *lines, last = text.strip().split("\n")
    found = _ITEM.findall(last.partition(", Civitai resources:")[0])
    if len(found) < _LEAST_ITEMS:
        return None
    items = {key: _unquoted(value) for key, value in found}
    starts = [number for number, line in enumerate(lines) if line.startswith(_NEGATIVE)]
    prompt = "\n".join(lines[: starts[0]] if starts else lines).strip()
    negative = "\n".join(lines[starts[0] :]).removeprefix(_NEGATIVE).strip() if starts else ""
    left_out = [f"{key}: {value}" for key, value in items.items() if key not in _USED | _NO_MATTER]
    scheduler = _scheduler(items.get("Sampler", ""), items.get("Schedule type", items.get("Scheduler", "")), left_out)
    if scheduler == "ddim" and "Eta DDIM: 1" in left_out:  # as web UI and we write ancestral DDIM
        left_out.remove("Eta DDIM: 1")
        scheduler = "ddim_a"
    left_out = [item for item in left_out if not re.fullmatch(r"Eta: 0(\.0*)?", item)]  # of sd.cpp
    enlarged = any(key.startswith("Hires") for key in items)
    strength = None if enlarged else _number(items, "Denoising strength")
    options = DrawOptions(
        prompt=prompt,
        negative_prompt=negative,
        num_inference_steps=_whole(items, "Steps"),
        guidance_scale=_number(items, "CFG scale", "CFG Scale"),
        seed=_whole(items, "Seed"),
        scheduler=scheduler,
        prompt_weighting=bool(_WEIGHTS.search(prompt + negative)),
        long_prompts=True,
        strength=strength,
        image_guidance_scale=_number(items, "Image CFG scale"),
        variation_seed=_whole(items, "Variation seed"),
        variation_strength=_number(items, "Variation seed strength"),
    )
    program = items.get("Version", "another program")
    if re.match(r"v?\d|f\d", program):  # the web UI and Forge give a number
        program = f"AUTOMATIC1111's web UI {program}"
    return Foreign(options, program, items.get("Model"), tuple(left_out), strength is not None)


def _of_invoke(said: Mapping[str, Any]) -> Foreign:
    """Read InvokeAI's metadata since 3.0."""
    left_out = [
        f"{key}: {said[key]}"
        for key in ("clip_skip", "loras", "controlnets", "ipAdapters", "t2iAdapters", "hrf_enabled", "seamless_x")
        if said.get(key)
    ]
    model = said.get("model")
    name = model.get("name", model.get("model_name")) if isinstance(model, dict) else model
    edited = said.get("generation_mode") in ("img2img", "inpaint", "outpaint")
    prompts = said.get("positive_prompt", ""), said.get("negative_prompt") or ""
    strength = said.get("strength") if edited else None
    return _invoked(said, prompts, said.get("scheduler", ""), name, (left_out, edited, strength))


def _of_old_invoke(said: Mapping[str, Any]) -> Foreign:
    """Read InvokeAI's metadata before 3.0, where negative prompts stand in brackets."""
    image = said.get("image")
    if not isinstance(image, dict):
        raise ValueError("there is no image in it")  # noqa: TRY004 - of a file, not of a caller
    prompt = image.get("prompt", "")
    listed = prompt if isinstance(prompt, list) else [prompt]
    parts = [part.get("prompt", "") if isinstance(part, dict) else part for part in listed]
    whole = " ".join(map(str, parts))
    prompts = _BRACKETS.sub("", whole).strip(), " ".join(_BRACKETS.findall(whole))
    edited = image.get("type", "txt2img") != "txt2img"
    left_out = [f"{name}: {image[name]}" for name in ("hires_fix", "variations", "postprocessing") if image.get(name)]
    strength = image.get("strength") if edited else None
    return _invoked(image, prompts, image.get("sampler", ""), said.get("model_weights"), (left_out, edited, strength))


def _invoked(
    said: Mapping[str, Any],
    prompts: tuple[str, str],
    sampler: object,
    model: object,
    rest: tuple[list[str], bool, float | None],
) -> Foreign:
    """Return InvokeAI's values as ours; ``rest`` is what is left out, whether it was edited, and the strength."""
    left_out, edited, strength = rest
    if any(_COMPEL.search(str(prompt)) for prompt in prompts):
        left_out = [*left_out, "the weights in its prompt"]
    options = DrawOptions(
        prompt=prompts[0],
        negative_prompt=prompts[1],
        num_inference_steps=said.get("steps"),
        guidance_scale=said.get("cfg_scale"),
        seed=said.get("seed"),
        scheduler=_scheduler(str(sampler), "", left_out),
        long_prompts=True,
        strength=strength,
    )
    return Foreign(options, "InvokeAI", None if model is None else str(model), tuple(left_out), edited)


def _scheduler(name: str, spread: str, left_out: list[str]) -> str | None:
    """Return our name of a sampler; None, and an item more in ``left_out``, if there is none."""
    plain = _PLAIN.sub("", name.strip())
    if spread.lower() in SPREADS:
        plain = plain if plain.lower().endswith(spread.lower()) else f"{plain} {spread}"
    elif spread and not _PLAIN.fullmatch(f" {spread}"):
        left_out.append(f"Schedule type: {spread}")
    if not plain:
        return None
    try:
        return full_name(plain)
    except UnknownSchedulerError:
        left_out.append(f"Sampler: {name}")
        return None


def _object(content: str) -> Mapping[str, Any]:
    """Return the object of a JSON text.

    Raises:
        ValueError: it is none.
    """
    return msgspec.json.decode(content.encode(), type=dict[str, Any])


def _unquoted(value: str) -> str:
    """Return an item's value, which is a JSON string where it has commas or colons."""
    if not value.startswith('"'):
        return value.strip()
    try:
        return msgspec.json.decode(value.encode(), type=str)
    except ValueError:
        return value


def _number(items: Mapping[str, str], *names: str) -> float | None:
    """Return the first of some items that is there, as a number.

    Raises:
        ValueError: it is none.
    """
    for name in names:
        if name in items:
            try:
                return float(items[name])
            except ValueError as error:
                raise ValueError(f"its {name} is {items[name]!r}, which is no number") from error
    return None


def _whole(items: Mapping[str, str], name: str) -> int | None:
    """Return an item as a whole number, of any size.

    Raises:
        ValueError: it is none.
    """
    if name not in items:
        return None
    try:
        return int(items[name])
    except ValueError as error:
        raise ValueError(f"its {name} is {items[name]!r}, which is no whole number") from error
