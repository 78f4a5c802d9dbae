"""The parameters of a picture, its options and who drew it: as text for people, as JSON for ``--from``."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, replace
from functools import cache
from typing import Any, Final, get_type_hints

import msgspec

from nano_runtime.errors.escaping import CONTROLS, escaped
from nano_runtime.options import REQUIRED, DrawOptions, stored_options
from nano_runtime.sampling.sampler_names import a1111_name

__all__ = ["Parameters"]

_NEEDS_QUOTES: Final = re.compile(r'[,:"\\\n]')
_NEGATIVE: Final = re.compile(r"\s*Negative prompt:")
_SYNTAX: Final = re.compile(r"[()\[\]\\]")  # what ``parse_prompt_attention`` of the web UI takes for itself


@dataclass(frozen=True)
class Parameters:
    """All it takes to draw one picture again.

    Attributes:
        options: the picture's own, complete; see ``DrawOptions``.
        bundle: name of the bundle.
        bundle_digest: hex sha256 of the bundle's manifest.
        backend: the engine.
        precision: arithmetic of the layers that are not quantized.
        version: of nano-runtime.
        edited: hex sha256 of the picture, in the bundle's size, that drawing started from, and of its mask.
        masked: whether there was a mask.
        interrupted_after: UNet calls of a drawing that was stopped early, which cannot be repeated.
    """

    options: DrawOptions
    bundle: str
    bundle_digest: str
    backend: str
    precision: str
    version: str
    edited: str | None = None
    masked: bool = False
    interrupted_after: int | None = None

    def repeated(self) -> DrawOptions:
        """Return the options that draw the picture again, in the size of whichever bundle draws it."""
        return replace(self.options, height=None, width=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the options that files hold and all else, by their names in the file."""
        options = {
            field if stored.name is None else stored.name: getattr(self.options, field)
            for field, stored in stored_options().items()
        }
        return {**options, **{name: getattr(self, name) for name in _drawn_by()}}

    def as_json(self) -> bytes:
        """Return ``as_dict`` as JSON."""
        return msgspec.json.encode(self.as_dict())

    @classmethod
    def from_json(cls, content: bytes) -> Parameters:
        """Read what ``as_json`` wrote, in this release or an earlier one; other keys are ignored.

        Raises:
            ValueError: it is no JSON, lacks a key, or has a value of another type.
        """
        stored = msgspec.json.decode(content, type=_file_type())
        options = {field: getattr(stored, field) for field in stored_options()}
        return cls(DrawOptions(**options), **{name: getattr(stored, name) for name in _drawn_by()})

    def as_text(self) -> str:
        """Return the ``parameters`` text in the layout that AUTOMATIC1111's web UI made common, which viewers show.

        The web UI always reads weights, so the brackets of a prompt that was drawn as it stands have a backslash.
        """
        of = self.options
        negative = f"Negative prompt: {self._written(of.negative_prompt)}\n" if of.negative_prompt else ""
        items = {
            "Steps": of.num_inference_steps,
            "Sampler": a1111_name(str(of.scheduler)),
            "CFG scale": f"{of.guidance_scale:g}",
            "Seed": of.seed,
            "Size": f"{of.width}x{of.height}",
            **self._extras(),
            "Model hash": self.bundle_digest[:10],
            "Model": escaped(self.bundle),
            "Version": f"nano-runtime {self.version}",
        }
        settings = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in items.items())
        return f"{_not_negative(self._written(of.prompt))}\n{negative}{settings}"

    def _written(self, prompt: object) -> str:
        """Return a prompt as the web UI would have to be given it."""
        text = _printable(prompt)
        return text if self.options.prompt_weighting else _SYNTAX.sub(r"\\\g<0>", text)

    def _extras(self) -> dict[str, str]:
        """Return the items that not every picture has.

        The web UI calls ancestral DDIM "DDIM" with "Eta DDIM". It has no word for shortcuts, and readers keep ours.
        """
        of = self.options
        items: dict[str, str] = {}
        if of.scheduler == "ddim_a":
            items["Eta DDIM"] = "1"
        if of.cache_interval not in (None, 1):
            items["Cache interval"] = str(of.cache_interval)
        if of.guidance_interval is not None and tuple(of.guidance_interval) != (0, 1):
            low, high = of.guidance_interval
            items["Guidance interval"] = f"{low:g}-{high:g}"
        if of.strength is not None:
            items["Denoising strength"] = f"{of.strength:g}"
        if of.keep_unmasked:
            items["Mask blur"] = f"{of.mask_blur:g}"
        if of.image_guidance_scale is not None:
            items["Image CFG scale"] = f"{of.image_guidance_scale:g}"
        if of.variation_strength is not None:
            items["Variation seed"] = str(of.variation_seed)
            items["Variation seed strength"] = f"{of.variation_strength:g}"
        return items


def _drawn_by() -> tuple[str, ...]:
    """Return the names of all fields but the options."""
    return tuple(name for name in Parameters.__dataclass_fields__ if name != "options")


@cache
def _file_type() -> type[msgspec.Struct]:
    """Return the type of the JSON in a file: the stored options, the bundle and the engine."""
    keys: list[Any] = []
    names: dict[str, str] = {}
    for field, stored in stored_options().items():
        keys.append((field, stored.kind) if stored.default is REQUIRED else (field, stored.kind, stored.default))
        if stored.name is not None:
            names[field] = stored.name
    drawn_by = get_type_hints(Parameters, localns={"DrawOptions": object})
    for name in _drawn_by():
        default = Parameters.__dataclass_fields__[name].default
        keys.append((name, drawn_by[name]) if default is MISSING else (name, drawn_by[name], default))
    return msgspec.defstruct("Parameters", keys, rename=names, kw_only=True)


def _printable(text: object) -> str:
    """Replace control characters by spaces: the text is shown by viewers and terminals."""
    return str(text).translate(dict.fromkeys(CONTROLS, " "))


def _quoted(value: str) -> str:
    """Return the value of an item as the web UI's ``quote`` writes it: what could be taken for another item as JSON."""
    return json.dumps(value, ensure_ascii=False) if _NEEDS_QUOTES.search(value) else value


def _not_negative(prompt: str) -> str:
    """Return a prompt that the web UI does not take for the negative one: with a second blank, which is read as one."""
    return prompt.replace("Negative prompt:", "Negative  prompt:", 1) if _NEGATIVE.match(prompt) else prompt
