"""A picture that is to be drawn, and its key: a digest of everything that decides it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from nano_runtime import DrawOptions
from nano_runtime.system.files import plain_content

__all__ = ["Source", "Wanted", "changed_options", "digest_of_file", "key_of", "readable"]

_NOT_STORED: Final = frozenset({"latents", "output_type", "image", "mask_image", "num_images_per_prompt"})
_DEFAULTS: Final[Mapping[str, Any]] = {
    option.name: option.default for option in fields(DrawOptions) if option.name not in _NOT_STORED
}
_KEY_DIGITS: Final = 32
_FORM_OF_KEY: Final = 1
_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


@dataclass(frozen=True)
class Source:
    """A file with a picture to start from, or a mask.

    Attributes:
        path: absolute.
        digest: BLAKE3 of its content, in hexadecimal digits.
    """

    path: str
    digest: str


@dataclass(frozen=True)
class Wanted:
    """One picture to draw.

    Attributes:
        key: 32 hexadecimal digits; pictures with one key are one picture. See ``key_of``.
        given: its complete options, as ``Plan.options_of`` returns them, but for those that are ``DrawOptions``' own
            defaults: one prompt, one seed, no pictures. See ``changed_options``.
        files: names that the picture is written under, relative to the job's folder, with slashes.
        image: to start from; None for none.
        mask_image: of the image; None for none.
    """

    key: str
    given: Mapping[str, Any]
    files: tuple[str, ...]
    image: Source | None = None
    mask_image: Source | None = None

    @property
    def options(self) -> DrawOptions:
        """The complete options, without pictures."""
        return DrawOptions(**self.given)

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold, for other processes."""
        return {
            "key": self.key,
            "options": dict(self.given),
            "files": list(self.files),
            "image": None if self.image is None else [self.image.path, self.image.digest],
            "mask_image": None if self.mask_image is None else [self.mask_image.path, self.mask_image.digest],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wanted:
        """Return what ``as_dict`` described."""
        image, mask = values.get("image"), values.get("mask_image")
        return cls(
            str(values["key"]),
            dict(values["options"]),
            tuple(map(str, values["files"])),
            None if image is None else Source(*image),
            None if mask is None else Source(*mask),
        )


def changed_options(options: DrawOptions) -> dict[str, Any]:
    """Return the options that are not what ``DrawOptions`` has by default, without pictures, as JSON has them.

    An option that a later release adds is not among them for pictures that do not use it, so their keys stay.
    """
    given = {name: getattr(options, name) for name in _DEFAULTS}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value != _DEFAULTS[name]
    }


def key_of(given: Mapping[str, Any], bundle: str, image: str | None = None, mask: str | None = None) -> str:
    """Return the key of a picture: BLAKE3 of canonical JSON, 32 hexadecimal digits.

    Engine, its version and the processor are no part of it: their pictures are alike, though not in every bit.

    Args:
        given: its complete options, as ``Wanted.given`` has them.
        bundle: digest of the bundle.
        image: digest of the file to start from; None for none.
        mask: digest of the mask's file; None for none.
    """
    decisive = {"form": _FORM_OF_KEY, "bundle": bundle, "options": given, "image": image, "mask_image": mask}
    return blake3(_canonical(decisive).encode()).hexdigest()[:_KEY_DIGITS]


def readable(path: str | Path) -> str:
    """Return a path as text that JSON can hold: bytes of a name that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def digest_of_file(path: Path) -> str:
    """Return the BLAKE3 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    return blake3(plain_content(path)).hexdigest()
