"""From a request of A1111's API to options: its names, its sentinels, and its ways of bringing a picture to a size.

Field names and defaults are those of Forge's ``modules/api/models.py`` (dfdcbab), which are A1111's. What a request
leaves out takes the bundle's measured default. What cannot be done here is noted, and the answer's ``info`` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nano_runtime import DrawOptions, UsageError
from nano_serve.errors import BadRequestError, UnknownScriptError
from nano_serve.fit import Fit, Size, covered, size_for, stretched
from nano_serve.http.a1111_shapes import DrawRequest
from nano_serve.http.a1111_unheeded import unheeded, without_networks
from nano_serve.http.bodies import picture_of
from nano_serve.http.reading import parameters_of
from nano_serve.shapes import MOST_PROMPT_CHARACTERS
from nano_serve.shelf import Shelf, Shelved

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Asked", "understood"]

_PLAIN: Final = frozenset({"", "automatic", "normal", "simple", "uniform", "discrete", "none", "default"})
_SEEDS: Final = 1 << 64
_CROP, _FILL = 1, 2  # resize modes; all others stretch
_STRENGTH, _HR_SCALE, _MASK_BLUR, _SIDE = 0.75, 2.0, 4.0, 512  # A1111's defaults
_HALF: Final = 128
_STEPS: Final = 20  # of a sampler that the bundle has no default for
_MOST_BLUR: Final = 256.0
_MOST_TEXT: Final = 3 * MOST_PROMPT_CHARACTERS
_SEEDS_IN_TEXT: Final = frozenset({"seed", "variation_seed"})
_IN_TEXT: Final = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "sampler_name": "scheduler",
    "seed": "seed",
    "subseed": "variation_seed",
    "subseed_strength": "variation_strength",
    "denoising_strength": "strength",
}
_SIZE_IN_TEXT: Final = re.compile(r"(?:^|, )Size: (\d{1,5})x(\d{1,5})", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """A request, understood.

    Attributes:
        shelved: the bundle that draws.
        options: of the job.
        size: of the answer.
        sampler: name that was asked for; None for none.
        start: the picture to start from, in the size of the answer; None for none.
        shown: mask "L" of that size, white where the drawn picture is shown; None shows it everywhere.
        notes: what was done otherwise than asked.
    """

    shelved: Shelved
    options: DrawOptions
    size: Size
    sampler: str | None
    start: Image | None
    shown: Image | None
    notes: tuple[str, ...]

    def finished(self, drawn: Image) -> Image:
        """Return a drawn picture in the size of the answer, with the pixels that stay."""
        image = covered(drawn, self.size) if self.start is None else stretched(drawn, self.size)
        if self.start is None or self.shown is None:
            return image
        from PIL import Image as Pillow  # noqa: PLC0415 - see fit

        return Pillow.composite(image, self.start, self.shown)


def understood(body: DrawRequest, shelf: Shelf, checkpoint: str | None, fit: Fit) -> Asked:
    """Return what a request asks for.

    Args:
        body: the request.
        shelf: of the bundles.
        checkpoint: title that was chosen by ``POST options``; None for none.
        fit: the size policy.

    Raises:
        UsageError: it cannot be drawn.
        UnknownScriptError: it wants an extension.
    """
    for name in [*(body.alwayson_scripts or {}), *([body.script_name] if body.script_name else [])]:
        raise UnknownScriptError(name)
    if max(len(body.prompt or ""), len(body.negative_prompt or "")) > MOST_PROMPT_CHARACTERS:
        raise BadRequestError("the prompt is too long", f"{MOST_PROMPT_CHARACTERS} characters are the most.")
    notes: list[str] = []
    if body.infotext is not None:
        _fill(body, body.infotext, notes)
    wanted = _size(body, notes)
    shelved = _bundle(body, shelf, checkpoint, wanted, notes)
    height, width = shelved.bundle.manifest.image_size
    size = size_for(wanted, (width, height), fit)
    scheduler = _scheduler(body, notes)
    steps = None if body.steps is None else _whole("steps", body.steps, 0)
    start, shown, picture = _edit(body, (width, height), size, notes)
    notes += unheeded(body, shelved.scheduler if scheduler is None else scheduler)
    if shelved.bundle.manifest.task == "instruct-pix2pix":  # clients send both to every model
        picture.pop("strength", None)
        picture["image_guidance_scale"] = body.image_cfg_scale
    elif "strength" in picture:
        least = (1 + 1e-9) / max(1, _steps(steps, scheduler, shelved))  # A1111 runs at least one step, too
        picture["strength"] = min(1.0, max(least, picture["strength"]))
    strength = _number("subseed_strength", body.subseed_strength, 0.0)
    options = DrawOptions(
        prompt=without_networks(body.prompt or "", notes),
        negative_prompt=without_networks(body.negative_prompt or "", notes),
        seed=_seed("seed", body.seed),
        num_images_per_prompt=_whole("batch_size", body.batch_size, 1) * _whole("n_iter", body.n_iter, 1),
        num_inference_steps=steps,
        guidance_scale=body.cfg_scale,
        scheduler=scheduler,
        prompt_weighting=True,
        long_prompts=shelved.takes_long_prompts,
        variation_seed=_seed("subseed", body.subseed) if strength > 0 else None,
        variation_strength=strength if strength > 0 else None,
        **picture,
    )
    return Asked(shelved, options, size, body.sampler_name or body.sampler_index, start, shown, tuple(notes))


def _fill(body: DrawRequest, text: str, notes: list[str]) -> None:
    """Take what a request leaves out from a parameters text, as A1111 does."""
    found = parameters_of(text[:_MOST_TEXT])
    if not found:
        notes.append("infotext could not be read")
    for name, key in _IN_TEXT.items():
        if getattr(body, name) is None and found.get(key) is not None:
            setattr(body, name, int(found[key]) if key in _SEEDS_IN_TEXT else found[key])
    size = _SIZE_IN_TEXT.search(text)
    if body.width is None and body.height is None and size is not None:
        body.width, body.height = int(size[1]), int(size[2])


def _size(body: DrawRequest, notes: list[str]) -> Size | None:
    """Return the size that is asked for; None if it is left to the bundle."""
    if body.width is None and body.height is None:
        return None
    width, height = _whole("width", body.width, _SIDE), _whole("height", body.height, _SIDE)
    if body.enable_hr:
        notes.append("enable_hr: the picture is enlarged, not drawn again")
        wide, high = _whole("hr_resize_x", body.hr_resize_x, 0), _whole("hr_resize_y", body.hr_resize_y, 0)
        if wide and high:
            return wide, high
        factor = _number("hr_scale", body.hr_scale, _HR_SCALE)
        return round(width * factor), round(height * factor)
    return width, height


def _bundle(body: DrawRequest, shelf: Shelf, checkpoint: str | None, size: Size | None, notes: list[str]) -> Shelved:
    """Return the bundle: of this request, of the settings, of the size, or the first."""
    settings = body.override_settings or {}
    for name in (settings.get("sd_model_checkpoint"), body.model, checkpoint):
        if isinstance(name, str) and name:
            if (found := shelf.named(name)) is not None:
                return found
            notes.append(f"checkpoint {name[:60]!r} is not here")
    return shelf.at(shelf.default) if size is None else shelf.of_size(*size)


def _scheduler(body: DrawRequest, notes: list[str]) -> str | None:
    """Return the name of the sampler and how its levels are spread; None for the bundle's default.

    A1111 takes its first sampler for a name that it does not know; here it is the default, and the answer says so.
    """
    name, spread = body.sampler_name or body.sampler_index, (body.scheduler or "").strip()
    if not name:
        return None
    combined = [] if spread.lower() in _PLAIN else [f"{name} {spread}"]
    for candidate in (*combined, name):
        try:
            found = DrawOptions(scheduler=candidate).scheduler
        except UsageError:
            continue
        if combined and candidate == name:
            notes.append(f"scheduler {spread[:40]!r} is not known for this sampler")
        return found
    notes.append(f"sampler {name[:40]!r} is not known; the bundle's default drew")
    return None


def _steps(asked: int | None, scheduler: str | None, shelved: Shelved) -> int:
    """Return the number of steps that a call makes."""
    default = shelved.bundle.manifest.default
    if asked is not None:
        return asked
    return _STEPS if default is None or scheduler not in {None, default.scheduler} else default.steps


def _edit(
    body: DrawRequest, drawn: Size, size: Size, notes: list[str]
) -> tuple[Image | None, Image | None, dict[str, Any]]:
    """Return the start picture and the shown part in the answer's size, and the options of the call."""
    if not body.init_images:
        return None, None, {}
    from PIL import ImageFilter, ImageOps  # noqa: PLC0415 - see fit

    mode = _whole("resize_mode", body.resize_mode, 0)
    whole = picture_of(body.init_images[0], "init_images")
    if len(body.init_images) > 1:
        notes.append("init_images: the first was used")
    start = _brought(whole.convert("RGB"), size, mode)
    strength = _number("denoising_strength", body.denoising_strength, _STRENGTH)
    options: dict[str, Any] = {"image": stretched(start, drawn), "strength": strength}
    if body.mask is None:
        return start, None, options
    mask = _brought(picture_of(body.mask, "mask").convert("L"), size, mode)
    if body.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    if body.inpaint_full_res:
        notes.append("inpaint_full_res: the whole picture was drawn, not only the masked part")
    white = mask.point(lambda value: 255 if value >= _HALF else 0)
    blur = min(_MOST_BLUR, max(0.0, _number("mask_blur", body.mask_blur, _MASK_BLUR)))
    options["mask_image"] = stretched(white, drawn)
    return start, white.filter(ImageFilter.GaussianBlur(blur)), options


def _brought(image: Image, size: Size, mode: int) -> Image:
    """Return a picture in a size, as A1111's resize modes do it."""
    from PIL import Image as Pillow  # noqa: PLC0415 - see fit
    from PIL import ImageOps  # noqa: PLC0415

    if mode == _CROP:
        return covered(image, size)
    if mode == _FILL and image.size != size:
        inner = ImageOps.contain(image, size, Pillow.Resampling.LANCZOS)
        back = image.resize(size, Pillow.Resampling.LANCZOS)
        back.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
        return back
    return stretched(image, size)


def _number(name: str, value: float | None, default: float) -> float:
    """Return a number, or its default for null."""
    if value is None:
        return default
    if not abs(value) < float(_SEEDS):  # also for what is no number
        raise BadRequestError(f"{name}={value!r}", "Give a number.")
    return value


def _whole(name: str, value: float | None, default: int) -> int:
    """Return a whole number, which may be written as a float, or its default for null."""
    found = _number(name, value, default)
    if found != int(found) or found < 0:
        raise BadRequestError(f"{name}={value!r}", "Give a whole number of at least 0.")
    return int(found)


def _seed(name: str, value: float | None) -> int | None:
    """Return a seed; -1 and null mean a random one."""
    found = _number(name, value, -1)
    return None if found < 0 else int(found)
