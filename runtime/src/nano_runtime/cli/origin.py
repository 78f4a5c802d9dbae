"""``--from PNG``: whether a picture can be drawn again, and why it would not be the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nano_runtime.errors import NoOriginalError, OtherBundleError

if TYPE_CHECKING:
    from nano_runtime.bundle.folder import Bundle
    from nano_runtime.options import DrawOptions
    from nano_runtime.pictures.parameters import Parameters

__all__ = ["check_origin"]


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
        edit = edit_of(options.image, options.mask_image, options.strength, *shapes)
        if edit is not None and edit.digest != origin.edited:
            _warn(f"{path} was drawn from another picture or mask; the picture will be another")


def _warn(line: str) -> None:
    print(f"nano-generate: warning: {line}", file=sys.stderr)
