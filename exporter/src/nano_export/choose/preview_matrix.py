"""Fits the matrix that turns latents into colours, for previews while a picture is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nano_export.judge.original import Reference

__all__ = ["fit_preview"]

_DIGITS = 6  # far finer than one of the 255 steps of a colour


def fit_preview(references: Sequence[Reference]) -> list[tuple[float, float, float]]:
    """Fit colours to latents by least squares, over every latent of every picture of the original.

    An autoencoder's latents are close to a small, oddly coloured copy of the picture, so a linear map comes close.

    Args:
        references: pictures of the original, with their latents.

    Returns:
        A row of red, green and blue for each channel of the latents, and a last row that is added. Colours are in
        [0, 1]: the mean of the pixels that a latent covers.
    """
    rows, colours = [], []
    for reference in references:
        _, channels, height, width = reference.latents.shape
        tall, wide = reference.image.shape[0] // height, reference.image.shape[1] // width
        rows.append(reference.latents[0].reshape(channels, -1).T)
        colours.append(reference.image.reshape(height, tall, width, wide, 3).mean(axis=(1, 3)).reshape(-1, 3))
    latents = np.concatenate(rows)
    features = np.hstack([latents, np.ones((len(latents), 1), latents.dtype)])
    weights, *_ = np.linalg.lstsq(features, np.concatenate(colours), rcond=None)
    return [(red, green, blue) for red, green, blue in np.round(weights.astype(np.float64), _DIGITS).tolist()]
