"""``--from PNG``: the options that draw a picture again, whether it can be, and why it would not be the same."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nano_runtime.errors import NoOriginalError, OtherBundleError

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.options import DrawOptions
    from nano_runtime.pictures.parameters import Parameters

__all__ = ["check_origin", "without_strangers"]


def without_strangers(path: Path, options: DrawOptions, given: argparse.Namespace, bundle: Bundle) -> DrawOptions:
    """Return the options without those of the picture that the bundle does not have, and say so on stderr.

    Args:
        path: of the picture.
        options: of the picture, and of the command line.
        given: the command line; what stands there stays, and is refused later.
        bundle: with which it is drawn now.
    """
    strangers = {
        "strength": bundle.manifest.task == "instruct-pix2pix",
        "image_guidance_scale": bundle.manifest.task != "instruct-pix2pix",
    }
    for name, strange in strangers.items():
        if strange and getattr(options, name) is not None and name not in given:
            _warn(f"{path} was drawn with {name}, which means nothing to a bundle for {bundle.manifest.task}")
            unset: dict[str, Any] = {name: None}
            options = replace(options, **unset)
    return options


def check_origin(path: Path, origin: Parameters, options: DrawOptions, bundle: Bundle, *, chosen: bool) -> None:
    """Refuse to repeat a picture that cannot be, and say on stderr why another will not be the same.

    Args:
        path: of the picture.
        origin: its parameters.
        options: with which it is drawn now.
        bundle: with which it is drawn now.
        chosen: whether that bundle was named, rather than taken for want of a name.

    Raises:
        OtherBundleError: another bundle drew it, and this one was not named.
        NoOriginalError: it was drawn from a picture, and none was given.
    """
    from nano_runtime.pictures.source import edit_of

    if origin.bundle_digest != bundle.digest:
        error = OtherBundleError(path, origin.bundle, origin.bundle_digest, bundle.path)
        if not chosen:
            raise error
        _warn(f"{error.what}; the picture will be another")
    if origin.interrupted_after is not None:
        _warn(f"{path} was interrupted after {origin.interrupted_after} UNet calls; it is drawn to the end now")
    if origin.edited is not None:
        if options.image is None:
            raise NoOriginalError(path)
        shapes = bundle.manifest.image_size, bundle.manifest.latent_shape
        edit = edit_of(options.image, options.mask_image, options.strength, *shapes, task=bundle.manifest.task)
        if edit is not None and edit.digest != origin.edited:
            _warn(f"{path} was drawn from another picture or mask; the picture will be another")


def _warn(line: str) -> None:
    print(f"nano-generate: warning: {line}", file=sys.stderr)
