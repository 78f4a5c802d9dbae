"""From decoded arrays to PNG files that remember how they were drawn, and sheets of many pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from nano_runtime.arrays import F32, U8
from nano_runtime.errors import NoParametersError
from nano_runtime.errors.escaping import CONTROLS
from nano_runtime.system.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

__all__ = ["Parameters", "contact_sheet", "read_parameters", "save_png", "to_pil", "to_uint8", "to_unit_range"]

_A1111_SAMPLERS = {
    "pndm": "PLMS",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_3m": "DPM++ 3M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "unipc": "UniPC",
    "lcm": "LCM",
    "tcd": "TCD",
}
_A1111_SPREADS = {"_karras": " Karras", "_exponential": " Exponential", "_beta": " Beta"}


@dataclass(frozen=True)
class Parameters:
    """All it takes to draw one picture again.

    Attributes:
        prompt: the text.
        negative_prompt: the text to move away from; empty for none.
        seed: of this picture, 0 to 2**64 - 1.
        steps: number of inference steps.
        scheduler: name of the sampler.
        guidance_scale: classifier-free guidance; up to 1 means none.
        height: of the picture in pixels.
        width: of the picture in pixels.
        bundle: name of the bundle.
        bundle_digest: hex sha256 of the bundle's manifest.
        backend: the engine.
        precision: arithmetic of the layers that are not quantized.
        version: of nano-runtime.
        edited: hex sha256 of the picture, in the bundle's size, that drawing started from, and of its mask.
        strength: share of the steps that were run on it.
        masked: whether there was a mask.
        variation_seed: towards whose noise the seed's was turned.
        variation_strength: how far, 0 to 1.
        interrupted_after: UNet calls of a drawing that was stopped early, which cannot be repeated.
        prompt_weighting: whether the texts were read with A1111's syntax.
        long_prompts: whether they could be longer than one chunk.
        cache_interval: every how many UNet calls all of it ran; 1 means always.
        guidance_interval: between which shares of the UNet calls guidance was used; (0, 1) means always.
    """

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    scheduler: str
    guidance_scale: float
    height: int
    width: int
    bundle: str
    bundle_digest: str
    backend: str
    precision: str
    version: str
    edited: str | None = None
    strength: float | None = None
    masked: bool = False
    variation_seed: int | None = None
    variation_strength: float | None = None
    interrupted_after: int | None = None
    prompt_weighting: bool = False
    long_prompts: bool = False
    cache_interval: int = 1
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def as_text(self) -> str:
        """Return the ``parameters`` text in the layout that AUTOMATIC1111's web UI made common, which viewers show."""
        negative = f"Negative prompt: {_printable(self.negative_prompt)}\n" if self.negative_prompt else ""
        return (
            f"{_printable(self.prompt)}\n{negative}"
            f"Steps: {self.steps}, Sampler: {_a1111_sampler(self.scheduler)}, "
            f"CFG scale: {self.guidance_scale:g}, Seed: {self.seed}, Size: {self.width}x{self.height}, "
            f"{self._extras()}Model hash: {self.bundle_digest[:10]}, Model: {_printable(self.bundle)}, "
            f"Version: nano-runtime {self.version}"
        )

    def _extras(self) -> str:
        """Return what not every picture has, each item with the comma after it."""
        denoising = "" if self.strength is None else f"Denoising strength: {self.strength:g}, "
        if self.variation_strength is None:
            return denoising
        strength = f"Variation seed strength: {self.variation_strength:g}, "
        return f"{denoising}Variation seed: {self.variation_seed}, {strength}"


def to_unit_range(decoded: F32) -> F32:
    """Map the decoder's output to intensities, as diffusers' ``VaeImageProcessor.denormalize`` and ``pt_to_numpy`` do.

    Args:
        decoded: float32 [n, 3, height, width], nominally in [-1, 1].

    Returns:
        float32 [n, height, width, 3] in [0, 1].
    """
    unit: F32 = np.clip(decoded * np.float32(0.5) + np.float32(0.5), 0, 1).transpose(0, 2, 3, 1)
    return unit


def to_uint8(unit: F32) -> U8:
    """Round intensities in [0, 1] to 0..255, halves to even, as diffusers' ``numpy_to_pil`` does; any shape."""
    return (unit * np.float32(255)).round().astype(np.uint8)


def to_pil(pixels: U8) -> Image:
    """Wrap uint8 [height, width, 3] in a Pillow image."""
    from PIL import Image  # noqa: PLC0415 - callers that ask for arrays need no Pillow

    return Image.fromarray(pixels)


def contact_sheet(images: Sequence[Image], columns: int) -> Image:
    """Put pictures of one size side by side, in rows of ``columns``; what is left of the last row stays black."""
    from PIL import Image  # noqa: PLC0415 - see to_pil

    width, height = images[0].size
    sheet = Image.new("RGB", (min(columns, len(images)) * width, -(-len(images) // columns) * height))
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def save_png(image: Image, path: Path, parameters: Parameters | None) -> None:
    """Write a PNG under its name only when it is complete, replacing a file of that name.

    Args:
        image: the picture.
        path: where to.
        parameters: written into the file as the text chunks ``parameters`` (for people) and ``nano`` (JSON, for
            ``read_parameters``); None writes neither.

    Raises:
        OutputError: the folder is missing, full, or not writable.
    """
    chunks = None if parameters is None else _chunks(parameters)
    write_whole(path, lambda file: image.save(file, format="PNG", pnginfo=chunks))


def read_parameters(path: str | Path) -> Parameters:
    """Read back what ``save_png`` wrote.

    Raises:
        NoParametersError: the file cannot be read, is not a PNG, or carries no parameters of ours.
    """
    from PIL import Image  # noqa: PLC0415 - see to_pil

    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()  # text chunks may come after the pixels
            text = image.info.get("nano")
    except (OSError, SyntaxError, ValueError) as error:
        raise NoParametersError(Path(path), str(error)) from error
    if text is None:
        raise NoParametersError(Path(path), "there is no text chunk named 'nano'")
    try:
        return msgspec.json.decode(text.encode(), type=Parameters)
    except msgspec.DecodeError as error:
        raise NoParametersError(Path(path), str(error)) from error


def _a1111_sampler(scheduler: str) -> str:
    """Return a sampler's name as it stands in AUTOMATIC1111's files, or ours if it has none there."""
    suffix = next((suffix for suffix in _A1111_SPREADS if scheduler.endswith(suffix)), "")
    base = scheduler.removesuffix(suffix)
    return _A1111_SAMPLERS.get(base, base) + _A1111_SPREADS.get(suffix, "")


def _chunks(parameters: Parameters) -> PngInfo:
    """Return both text chunks, as iTXt because that is the UTF-8 one."""
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - see to_pil

    chunks = PngInfo()
    chunks.add_itxt("parameters", parameters.as_text())
    chunks.add_itxt("nano", msgspec.json.encode(parameters).decode())
    return chunks


def _printable(text: str) -> str:
    """Replace control characters by spaces: the text is shown by viewers and terminals."""
    return text.translate(dict.fromkeys(CONTROLS, " "))
