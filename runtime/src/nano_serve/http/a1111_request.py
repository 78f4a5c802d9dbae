"""From a request of A1111's API to options: its names, its sentinels, and its ways of bringing a picture to a size.

Field names and defaults are those of Forge's ``modules/api/models.py`` (dfdcbab), which are A1111's. What a request
leaves out takes the bundle's measured default. What cannot be done here is noted, and the answer's ``info`` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nano_runtime import DrawOptions, UsageError
from nano_runtime.pictures.source import opaque
from nano_serve.errors import BadRequestError, UnknownScriptError
from nano_serve.fit import Fit, Size, covered, is_cropped, size_for, stretched
from nano_serve.http.a1111_fields import OPTIONS
from nano_serve.http.a1111_shapes import DrawRequest
from nano_serve.http.a1111_unheeded import eta_unheeded, setting_unheeded, without_networks
from nano_serve.http.bodies import picture_of
from nano_serve.http.reading import parameters_of
from nano_serve.notes import MOST_SHOWN
from nano_serve.shapes import MOST_PROMPT_CHARACTERS
from nano_serve.shelf import Shelf, Shelved, ambiguous
from nano_serve.studio import Studio

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Asked", "Chosen", "understood"]

_LEFT_OPEN: Final = frozenset({"", "automatic", "none", "default"})
_PLAIN: Final = _LEFT_OPEN | {"normal", "simple", "uniform", "discrete"}
_SEEDS: Final = 1 << 64
_STRETCH, _CROP, _FILL = 0, 1, 2  # resize modes
_STRENGTH, _HR_SCALE, _MASK_BLUR, _SIDE = 0.75, 2.0, 4.0, 512  # A1111's defaults
_HALF: Final = 128
_OPAQUE: Final = 255
_STEPS: Final = 20  # of a sampler that the bundle has no default for
_MOST_BLUR: Final = 256.0
_MOST_TEXT: Final = 3 * MOST_PROMPT_CHARACTERS
_MOST_SETTINGS: Final = 100  # that are remembered
_SEEDS_IN_TEXT: Final = frozenset({"seed", "variation_seed"})
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


@dataclass(frozen=True)
class Chosen:
    """What was set for all requests (``POST options``).

    Attributes:
        checkpoint: title of a bundle; None for none.
        settings: those that have no meaning here.
    """

    checkpoint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, checkpoint: str | None, settings: Mapping[str, Any]) -> Chosen:
        """Return this with other settings; None leaves the checkpoint."""
        known = {**self.settings, **{name[:MOST_SHOWN]: str(one)[:MOST_SHOWN] for name, one in settings.items()}}
        kept = [name for name, value in known.items() if setting_unheeded(name, value) is not None]
        return Chosen(checkpoint or self.checkpoint, {name: known[name] for name in kept[-_MOST_SETTINGS:]})


def understood(body: DrawRequest, noted: Sequence[str], chosen: Chosen, studio: Studio, fit: Fit) -> Asked:
    """Return what a request asks for.

    Args:
        body: the request.
        noted: of its fields.
        chosen: for all requests.
        studio: that draws.
        fit: the size policy.

    Raises:
        UsageError: it cannot be drawn.
        UnknownScriptError: it wants an extension.
    """
    for name in [*(body.alwayson_scripts or {}), *([body.script_name] if body.script_name else [])]:
        raise UnknownScriptError(name)
    if max(len(body.prompt or ""), len(body.negative_prompt or "")) > MOST_PROMPT_CHARACTERS:
        raise BadRequestError("the prompt is too long", f"{MOST_PROMPT_CHARACTERS} characters are the most.")
    notes = list(noted)
    if body.infotext is not None:
        _fill(body, body.infotext, notes)
    wanted = _size(body)
    shelved = _bundle(body, studio.shelf, chosen.checkpoint, wanted, notes)
    height, width = shelved.bundle.manifest.image_size
    size = size_for(_enlarged(body, wanted, (width, height), notes), (width, height), fit)
    scheduler = _scheduler(body, notes)
    steps = None if body.steps is None else _whole("steps", body.steps, 0)
    start, shown, picture = _edit(body, (width, height), size, notes)
    if start is None and is_cropped((width, height), size):
        notes.append(f"{width}x{height} was drawn, and cropped to the shape of {size[0]}x{size[1]}")
    settings = {**chosen.settings, **(body.override_settings or {})}
    notes += [note for name, value in settings.items() if (note := setting_unheeded(name, value)) is not None]
    if (note := eta_unheeded(body.eta, shelved.scheduler if scheduler is None else scheduler)) is not None:
        notes.append(note)
    if shelved.bundle.manifest.task == "instruct-pix2pix":  # clients send both to every model
        picture.pop("strength", None)
        picture["image_guidance_scale"] = body.image_cfg_scale
    elif "strength" in picture:
        least = (1 + 1e-9) / max(1, _steps(steps, scheduler, shelved))  # A1111 runs at least one step, too
        picture["strength"] = min(1.0, max(least, picture["strength"]))
    options = DrawOptions(
        prompt=without_networks(body.prompt or "", notes),
        negative_prompt=without_networks(body.negative_prompt or "", notes),
        seed=_seed("seed", body.seed),
        num_images_per_prompt=studio.counted(
            _whole("batch_size", body.batch_size, 1) * _whole("n_iter", body.n_iter, 1)
        ),
        num_inference_steps=steps,
        guidance_scale=body.cfg_scale,
        scheduler=scheduler,
        prompt_weighting=True,
        long_prompts=shelved.takes_long_prompts,
        **_variation(body, notes),
        **picture,
    )
    return Asked(
        shelved, options, size, body.sampler_name or body.sampler_index, start, shown, tuple(dict.fromkeys(notes))
    )


def _fill(body: DrawRequest, text: str, notes: list[str]) -> None:
    """Take what a request leaves out from a parameters text, as A1111 does."""
    found = parameters_of(text[:_MOST_TEXT])
    if found is None:
        notes.append("infotext could not be read")
        return
    notes += [f"{item[:MOST_SHOWN]} of the infotext is not done here" for item in found.left_out]
    if found.edited and not body.init_images:
        notes.append("infotext is of a picture that was drawn from another")
    body.model = found.bundle if body.model is None else body.model
    for name, key in OPTIONS.items():
        if getattr(body, name) is None and found.options.get(key) is not None:
            setattr(body, name, int(found.options[key]) if key in _SEEDS_IN_TEXT else found.options[key])
    size = _SIZE_IN_TEXT.search(text)
    if body.width is None and body.height is None and size is not None:
        body.width, body.height = int(size[1]), int(size[2])


def _size(body: DrawRequest) -> Size | None:
    """Return the size that is asked for; None if it is left to the bundle."""
    if body.width is None and body.height is None:
        return None
    return _whole("width", body.width, _SIDE), _whole("height", body.height, _SIDE)


def _enlarged(body: DrawRequest, asked: Size | None, drawn: Size, notes: list[str]) -> Size | None:
    """Return the size of the answer, which ``enable_hr`` makes larger, as A1111 works it out; None for the bundle's."""
    if not body.enable_hr or body.init_images:
        return asked
    notes.append("enable_hr: the picture is enlarged, not drawn again")
    width, height = drawn if asked is None else asked
    wide, high = _whole("hr_resize_x", body.hr_resize_x, 0), _whole("hr_resize_y", body.hr_resize_y, 0)
    if not wide and not high:
        factor = _number("hr_scale", body.hr_scale, _HR_SCALE)
        return round(width * factor), round(height * factor)
    return wide or high * width // max(1, height), high or wide * height // max(1, width)


def _variation(body: DrawRequest, notes: list[str]) -> dict[str, Any]:
    """Return the options of a variation; none without a strength."""
    strength = _number("subseed_strength", body.subseed_strength, 0.0)
    if strength < 0:
        notes.append(f"subseed_strength={strength:g} is taken as 0")
    if strength <= 0:
        return {}
    return {"variation_seed": _seed("subseed", body.subseed), "variation_strength": strength}


def _bundle(body: DrawRequest, shelf: Shelf, checkpoint: str | None, size: Size | None, notes: list[str]) -> Shelved:
    """Return the bundle: of this request, of the settings, of the size, or the first."""
    settings = body.override_settings or {}
    for name in (settings.get("sd_model_checkpoint"), body.model, checkpoint):
        if name not in (None, ""):
            if found := shelf.named(str(name)):
                notes += [] if (note := ambiguous(str(name), found)) is None else [note]
                return found[0]
            notes.append(f"checkpoint {str(name)[:MOST_SHOWN]!r} is not here")
    return shelf.at(shelf.default) if size is None else shelf.of_size(*size)


def _scheduler(body: DrawRequest, notes: list[str]) -> str | None:
    """Return the name of the sampler and how its levels are spread; None for the bundle's default.

    A1111 takes its first sampler for a name that it does not know; here it is the default, and the answer says so.
    """
    name, spread = body.sampler_name or body.sampler_index, (body.scheduler or "").strip()
    if not name:
        if spread.lower() not in _LEFT_OPEN:
            notes.append(f"scheduler {spread[:40]!r} changes nothing without a sampler_name")
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

    mode = _whole("resize_mode", body.resize_mode, _STRETCH)
    if mode not in {_STRETCH, _CROP, _FILL}:
        notes.append(f"resize_mode={mode}: the picture is stretched")
    whole = picture_of(body.init_images[0], "init_images")
    if len(body.init_images) > 1:
        notes.append("init_images: the first was used")
    start = _brought(opaque("init_images", whole, "white"), size, mode)
    strength = _within("denoising_strength", body.denoising_strength, (_STRENGTH, 1.0), notes)
    options: dict[str, Any] = {"image": stretched(start, drawn), "strength": strength}
    if body.mask is None:
        return start, None, options
    mask = _brought(_mask(picture_of(body.mask, "mask")), size, mode)
    if body.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    if body.inpaint_full_res:
        notes.append("inpaint_full_res: the whole picture was drawn, not only the masked part")
    white = mask.point(lambda value: 255 if value >= _HALF else 0)
    sides = (body.mask_blur_x, body.mask_blur_y) if body.mask_blur is None else (body.mask_blur, body.mask_blur)
    blur = [_within("mask_blur", side, (_MASK_BLUR, _MOST_BLUR), notes) for side in sides]
    options["mask_image"] = stretched(white, drawn)
    return start, white.filter(ImageFilter.GaussianBlur(blur)), options


def _mask(image: Image) -> Image:
    """Return a mask "L": of a picture with transparent parts those that are not, as A1111 reads it; else the white."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (_OPAQUE, _OPAQUE):
            return alpha
    return opaque("mask", image, "black").convert("L")


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


def _within(name: str, value: float | None, of: tuple[float, float], notes: list[str]) -> float:
    """Return a number from 0 to the larger of two, for null the first; what is taken otherwise is noted."""
    asked, most = _number(name, value, of[0]), of[1]
    taken = min(most, max(0.0, asked))
    if taken != asked:
        notes.append(f"{name}={asked:g} is taken as {taken:g}")
    return taken


def _whole(name: str, value: float | None, default: int) -> int:
    """Return a whole number, which may be written as a float, or its default for null."""
    found = _number(name, value, default)
    if found != int(found) or found < 0:
        raise BadRequestError(f"{name}={value!r}", "Give a whole number of at least 0.")
    return int(found)


def _seed(name: str, value: float | None) -> int | None:
    """Return a seed; -1 and null mean a random one."""
    return None if _number(name, value, -1) < 0 else _whole(name, value, 0)
