"""``--from PNG``: the options that draw a picture again, whether it can be, and why it would not be the same."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nano_runtime.errors import NoOriginalError, NoParametersError, OtherBundleError
from nano_runtime.errors.escaping import escaped, shortened

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.options import DrawOptions
    from nano_runtime.pictures.foreign import Foreign
    from nano_runtime.pictures.parameters import Parameters

__all__ = ["check_origin", "read_origin", "without_strangers"]

_MOST_LETTERS = 400  # of a warning that quotes a file


def read_origin(path: Path) -> Parameters | Foreign:
    """Read how this program drew a picture, or how another one did.

    Raises:
        NoParametersError: it does not say.
    """
    from nano_runtime.pictures.png import read_foreign, read_parameters

    try:
        return read_parameters(path)
    except NoParametersError as ours:
        try:
            return read_foreign(path)
        except NoParametersError as foreign:
            raise foreign from ours


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


def check_origin(
    path: Path, origin: Parameters | Foreign, options: DrawOptions, bundle: Bundle, *, chosen: bool
) -> None:
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
    from nano_runtime.pictures.foreign import Foreign
    from nano_runtime.pictures.source import edit_of

    if isinstance(origin, Foreign):
        _check_foreign(path, origin, options, bundle)
        return
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


def _check_foreign(path: Path, origin: Foreign, options: DrawOptions, bundle: Bundle) -> None:
    """Say what of another program's picture is not repeated.

    Raises:
        NoOriginalError: it was drawn from a picture, and none was given.
    """
    if origin.edited and options.image is None:
        raise NoOriginalError(path)
    model = "" if origin.model is None else f" with {origin.model}"
    line = f"{path} was drawn by {origin.program}{model}; {bundle.manifest.name} draws another picture"
    if origin.left_out:
        line += f"; left out: {', '.join(origin.left_out)}"
    _warn(shortened(line, _MOST_LETTERS))


def _warn(line: str) -> None:
    print(escaped(f"nano-generate: warning: {line}"), file=sys.stderr)
