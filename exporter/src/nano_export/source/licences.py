"""Finds the licence of a checkpoint's weights, which every copy must carry: its identifier and its text.

The CreativeML Open RAIL-M licences (Stable Diffusion 1 and Nano; "++" for Stable Diffusion 2) demand that every copy of
the weights, converted or not, is passed on with their text and its restrictions (paragraph 4). Most checkpoints on the
Hub only name them in the model card, so both texts are kept here, byte for byte as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nano_export.source.card import front_matter
from nano_export.source.readable import is_passed_on

__all__ = ["LicenceText", "licence_of"]

_SHIPPED = ("creativeml-openrail-m", "openrail++")
_LONGEST_NAME = 200  # letters, in the manifest
# Models whose licence is known without their card: the last part of the Hub id.
_KNOWN_MODELS = {"stable-diffusion-nano-2-1": "creativeml-openrail-m"}


@dataclass(frozen=True)
class LicenceText:
    """A licence.

    Attributes:
        id: as the Hub spells it ("creativeml-openrail-m"), or SPDX ("Apache-2.0") for random weights; "other" for a
            licence file without a name; "unknown" if nothing names a licence.
        text: to pass on with the weights: the licence itself, or sentences that say where it is.
    """

    id: str
    text: str


def licence_of(folder: Path | None, card: str | None, model: str) -> LicenceText:
    """Find the licence of a checkpoint's weights.

    A licence file in the checkpoint is taken word for word. Without one, it is the licence that the card names, with
    its published text if that is kept here.

    Args:
        folder: the diffusers folder; None for random weights.
        card: text of README.md, with its YAML front matter; None without one.
        model: Hub id or folder name, for the text and for models whose licence is known without their card.
    """
    if folder is None:
        return LicenceText(
            "Apache-2.0", f"The weights of {model!r} are seeded random numbers, free under Apache-2.0.\n"
        )
    meta = front_matter(card)
    name = _name(meta)
    if name is None:
        name = _KNOWN_MODELS.get(model.rpartition("/")[2])
    own = sorted(path for path in folder.glob("LICENSE*") if is_passed_on(path, folder))
    if own:
        return LicenceText("other" if name is None else name, _read(own[0]))
    if name is None:
        return LicenceText(
            "unknown",
            f"The checkpoint {model} came without a licence file, and its card names no licence.\n"
            "Ask whoever published it before you hand the weights on.\n",
        )
    if name in _SHIPPED:
        return LicenceText(name, (files("nano_export.source") / "licence_texts" / f"{name}.txt").read_bytes().decode())
    link = meta.get("license_link")
    place = "where the model was published" if link is None else f"at {link}"
    return LicenceText(
        name,
        f"The card of {model} names the licence {name!r}; its text did not come with the checkpoint.\n"
        f"Read it {place} before you hand the weights on.\n",
    )


def _name(meta: dict[str, Any]) -> str | None:
    """Return the licence's identifier; the Hub has "other" with a ``license_name``, and lists of several."""
    name = meta.get("license")
    if name == "other":
        name = meta.get("license_name", name)
    if isinstance(name, list):
        name = " and ".join(map(str, name))
    return " ".join(str(name).lower().split())[:_LONGEST_NAME] or None if name else None


def _read(path: Path) -> str:
    """Read a text, and keep its line ends."""
    return path.read_bytes().decode("utf-8", errors="replace")
