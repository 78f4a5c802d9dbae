"""The options of a picture: one record behind Python calls, the command line, sheets and the text in PNG files.

A new option is a field of ``DrawOptions``, a line of ``DrawKeywords`` and one of ``_CHECKS`` here, a line of
``drawing.plan`` that checks its range and fills it in, and a flag in ``cli.picture_flags``. PNG files and ``--from``
have it if its field says how it is ``Stored``; sheets have it if its flag says ``on_sheets``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, get_args

from nano_runtime.bundle.manifest import Quality
from nano_runtime.errors import OptionError, UnknownOptionError
from nano_runtime.errors.habits import IN_CALLS
from nano_runtime.sampling.sampler_names import full_name
from nano_runtime.values import number, one_of, one_or_more, picture, positive, prompts, switch, text, whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

    from nano_runtime.arrays import F32

__all__ = [
    "MOST_PICTURES",
    "REQUIRED",
    "DrawKeywords",
    "DrawOptions",
    "OutputType",
    "Stored",
    "checked_option",
    "stored_options",
]

OutputType: TypeAlias = Literal["pil", "np", "latent"]

_STORED: Final = "stored"
MOST_PICTURES: Final = 100_000
_MOST_BLUR: Final = 256  # pixels
"""Of a call, which lists its pictures before it draws."""

REQUIRED: Final = object()
"""The default of a stored option that every file must have."""


@dataclass(frozen=True)
class Stored:
    """The form in which a PNG file holds an option.

    Attributes:
        kind: type of the value, as msgspec reads it.
        default: value in files written before the option existed; ``REQUIRED`` where all files have it.
        name: key in the file; None means the option's own name.
    """

    kind: Any
    default: Any = REQUIRED
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """A picture to draw; names and meanings are those of diffusers' ``StableDiffusionPipeline``.

    A value becomes one of its option's type: ``20.0`` and ``numpy.int64(20)`` are 20. Ranges, which depend on the
    bundle, are checked by ``Pipeline.plan``.

    Attributes:
        prompt: text to draw, or a list of texts. A text longer than the text encoder takes is cut, with a warning in
            the log, unless ``long_prompts`` is set.
        negative_prompt: text to move away from, or a list with one for each prompt; None means the empty text.
        num_inference_steps: 1 to the length of the training schedule. PNDM makes one UNet call more, Heun one less than
            twice as many. None takes the bundle's default, or 20 if another sampler is asked for.
        guidance_scale: from 0 to 1000; up to 1 turns guidance off, and each UNet call does half the work. None takes
            the bundle's own, 7.5 for most.
        seed: 0 to 2**64 - 1; picture i is drawn from seed + i. Or a list with one for each picture, where diffusers has
            a list of generators. None takes a random one. The noise is that of
            ``torch.Generator("cpu").manual_seed(seed)``, so diffusers draws the same picture.
        num_images_per_prompt: at least 1, and at most 100,000 pictures to a call, those of the first prompt first. Up
            to 4 share a UNet call, whatever their prompts and seeds; each is the picture that it is alone.
        scheduler: name of a sampler, as ``--scheduler`` takes it: one of ours ("dpmpp_2m_karras"), or what A1111,
            diffusers, ComfyUI or InvokeAI call it ("DPM++ 2M Karras", "DPMSolverMultistepScheduler"). None takes the
            bundle's default, which was measured at export (``nano-bundle info``). ``pipe.own_scheduler`` is the one
            that the checkpoint was published with and that diffusers draws with.
        latents: float32 [pictures, *latent_shape], unit-variance noise to start from instead of the seeds'.
        output_type: form of ``Result.images``: ``"pil"``, ``"np"`` or ``"latent"``.
        height: of the picture in pixels; must be None or the bundle's own. Another size needs another bundle.
        width: as height.
        prompt_weighting: True reads both prompts with A1111's syntax, ``(word:1.3)``, ``[word]``, ``BREAK``; see
            ``networks.weighting``. False takes them as they stand, brackets included, as diffusers does.
        long_prompts: True lets a prompt fill up to 16 chunks of the text encoder's length, each encoded by itself;
            every UNet call then takes a little longer. Needs a bundle of format 2 or later.
        image: Pillow image to start from (``open_picture`` reads one from a file), scaled to cover the bundle's size
            and cropped around its centre. Bundles for inpainting and for instruct-pix2pix need one.
        mask_image: Pillow image of the same size: white is painted anew, black stays. Bundles for inpainting need one.
        keep_unmasked: True puts the image's own pixels back where the mask is black, as A1111 does. False leaves all
            pixels to the autoencoder, as diffusers does: those outside the mask change a little.
        mask_blur: 0 to 256 pixels of the picture: how softly the kept pixels meet the drawn ones, the radius of a
            Gaussian blur. Needs ``keep_unmasked``.
        strength: share of the steps that is run on the image, in (0, 1]. None means diffusers' 0.8, with a mask 1,
            which then starts at pure noise. Bundles for instruct-pix2pix have no such choice.
        image_guidance_scale: nearness to the image, for bundles for instruct-pix2pix only; from 0 to 1000, and below 1
            it turns all guidance off, as in diffusers. None means diffusers' 1.5.
        variation_seed: 0 to 2**64 - 1; picture i turns from the noise of ``seed`` towards that of variation_seed + i.
            None takes a random one, if there is a strength.
        variation_strength: 0 to 1; None and 0 do not vary, 0.1 to 0.3 give siblings of the seed's picture.
        quality: ``"exact"`` (None means that), ``"balanced"`` or ``"fast"``. The last two leave out work. How much was
            measured for this bundle when it was exported, and stands in its manifest.
        cache_interval: the whole UNet runs in one of this many calls, 1 to 1000; in the others only its outermost
            layers run, on a forecast of the rest. None takes the preset's; 1 is exact.
        guidance_interval: two shares of the calls, 0 <= low <= high <= 1; between them guidance is used. None takes the
            preset's; (0, 1) is exact.
    """

    prompt: str | Sequence[str] = field(default="", metadata={_STORED: Stored(str)})
    negative_prompt: str | Sequence[str] | None = field(default=None, metadata={_STORED: Stored(str)})
    num_inference_steps: int | None = field(default=None, metadata={_STORED: Stored(int, name="steps")})
    guidance_scale: float | None = field(default=None, metadata={_STORED: Stored(float)})
    seed: int | Sequence[int] | None = field(default=None, metadata={_STORED: Stored(int)})
    num_images_per_prompt: int = 1
    scheduler: str | None = field(default=None, metadata={_STORED: Stored(str)})
    latents: F32 | None = None
    output_type: OutputType = "pil"
    height: int | None = field(default=None, metadata={_STORED: Stored(int)})
    width: int | None = field(default=None, metadata={_STORED: Stored(int)})
    prompt_weighting: bool = field(default=False, metadata={_STORED: Stored(bool, default=False)})
    long_prompts: bool = field(default=False, metadata={_STORED: Stored(bool, default=False)})
    image: Image | None = None
    mask_image: Image | None = None
    keep_unmasked: bool = field(default=False, metadata={_STORED: Stored(bool, default=False)})
    mask_blur: float = field(default=0.0, metadata={_STORED: Stored(float, 0.0)})
    strength: float | None = field(default=None, metadata={_STORED: Stored(float | None, None)})
    image_guidance_scale: float | None = field(default=None, metadata={_STORED: Stored(float | None, None)})
    variation_seed: int | None = field(default=None, metadata={_STORED: Stored(int | None, None)})
    variation_strength: float | None = field(default=None, metadata={_STORED: Stored(float | None, None)})
    quality: Quality | None = None
    cache_interval: int | None = field(default=None, metadata={_STORED: Stored(int, 1)})
    guidance_interval: Sequence[float] | None = field(
        default=None, metadata={_STORED: Stored(tuple[float, float], (0.0, 1.0))}
    )

    def __post_init__(self) -> None:
        """Check the type of every value.

        Raises:
            UsageError: a value is not one of its option's; ``PromptError``, ``ImageError`` or ``OptionError``.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if value is not None or option.default is not None:
                object.__setattr__(self, option.name, _CHECKS[option.name](option.name, value))

    @classmethod
    def of(cls, prompt: str | Sequence[str] | DrawOptions, **changes: Unpack[DrawKeywords]) -> DrawOptions:
        """Return the options of a call: a prompt and keywords, or a record in which keywords replace fields.

        Raises:
            UnknownOptionError: there is no option of such a name.
            UsageError: a value is not one of its option's.
        """
        known = [option.name for option in fields(cls)]
        for name in changes:
            if name in IN_CALLS:
                raise UnknownOptionError(name, None, IN_CALLS[name])
            if name not in known:
                raise UnknownOptionError(name, _nearest(name, known))
        return replace(prompt, **changes) if isinstance(prompt, DrawOptions) else cls(prompt=prompt, **changes)


class DrawKeywords(TypedDict, total=False):
    """The fields of ``DrawOptions`` but for the prompt, as keywords; see there."""

    negative_prompt: str | Sequence[str] | None
    num_inference_steps: int | None
    guidance_scale: float | None
    seed: int | Sequence[int] | None
    num_images_per_prompt: int
    scheduler: str | None
    latents: F32 | None
    output_type: OutputType
    height: int | None
    width: int | None
    prompt_weighting: bool
    long_prompts: bool
    image: Image | None
    mask_image: Image | None
    keep_unmasked: bool
    mask_blur: float
    strength: float | None
    image_guidance_scale: float | None
    variation_seed: int | None
    variation_strength: float | None
    quality: Quality | None
    cache_interval: int | None
    guidance_interval: Sequence[float] | None


def _as_it_is(_name: str, value: Any) -> Any:  # noqa: ANN401 - of libraries that this file does not import
    """Leave a value to the room that knows its type."""
    return value


def _picture(name: str, value: Any) -> Any:  # noqa: ANN401 - it is checked here
    """Return a Pillow image, or raise ``ImageError``."""
    picture(name, value)
    return value


def _blur(name: str, value: Any) -> float:  # noqa: ANN401 - it is checked here
    """Return a radius in pixels."""
    radius: float = number(name, value)
    if not 0 <= radius <= _MOST_BLUR:
        raise OptionError(name, value, f"a number of pixels from 0 to {_MOST_BLUR}")
    return radius


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "prompt": lambda _name, value: prompts(value),
    "negative_prompt": lambda _name, value: prompts(value, "negative prompt"),
    "num_inference_steps": whole,
    "guidance_scale": number,
    "seed": lambda name, value: one_or_more(name, value, whole, MOST_PICTURES),
    "num_images_per_prompt": partial(positive, most=MOST_PICTURES),
    "scheduler": lambda name, value: full_name(text(name, value)),
    "latents": _as_it_is,  # by ``drawing.arguments``
    "output_type": partial(one_of, known=get_args(OutputType)),
    "height": whole,
    "width": whole,
    "prompt_weighting": switch,
    "long_prompts": switch,
    "image": _picture,
    "mask_image": _picture,
    "keep_unmasked": switch,
    "mask_blur": _blur,
    "strength": number,
    "image_guidance_scale": number,
    "variation_seed": whole,
    "variation_strength": number,
    "quality": partial(one_of, known=get_args(Quality)),
    "cache_interval": partial(positive, most=1000),  # calls: as many as a training schedule has steps
    "guidance_interval": _as_it_is,  # by ``drawing.arguments``
}
"""For each option: takes its name and a value, and returns the value in the option's type, or raises ``UsageError``."""

_ELSEWHERE: Final = {  # what other programs call an option
    "steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "sampling_method": "scheduler",
    "generator": "seed",
    "batch_size": "num_images_per_prompt",
    "count": "num_images_per_prompt",
    "init_image": "image",
    "mask": "mask_image",
    "denoising_strength": "strength",
}


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the option that somebody meant, or None."""
    close = get_close_matches(name, [*known, *_ELSEWHERE], 1)
    return _ELSEWHERE.get(close[0], close[0]) if close else None


def checked_option(name: str, value: Any) -> Any:  # noqa: ANN401 - an option's
    """Return a value in the type of one option, as ``DrawOptions`` has it.

    Raises:
        UsageError: it is not one of the option's.
    """
    return _CHECKS[name](name, value)


def stored_options() -> Mapping[str, Stored]:
    """Return the options that a PNG file holds, by field name, in the order of the record."""
    return {option.name: option.metadata[_STORED] for option in fields(DrawOptions) if _STORED in option.metadata}
