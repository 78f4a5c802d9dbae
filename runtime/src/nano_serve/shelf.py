"""The bundles that this server draws with: all are open, the graphs of one at a time are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from nano_runtime import Bundle, Pipeline
from nano_serve.errors import BadRequestError, NotFoundError

__all__ = ["Open", "Shelf", "Shelved", "ambiguous"]

_LEAST_DIGITS: Final = 10  # as many as a title has

Open: TypeAlias = Callable[[Path], Pipeline]
"""Opens a bundle; where a pipeline computes, in this process or another, is its own matter."""


@dataclass(eq=False)
class Shelved:
    """A bundle and its pipeline.

    Attributes:
        pipeline: open; it loads graphs when it draws.
        state: of the graphs.
    """

    pipeline: Pipeline
    state: Literal["idle", "loading", "loaded"] = "idle"

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self.pipeline.bundle

    @property
    def title(self) -> str:
        """Name and beginning of the digest, as A1111 writes it: two bundles of one name differ."""
        return f"{self.bundle.manifest.name} [{self.bundle.digest[:10]}]"

    @property
    def scheduler(self) -> str:
        """Our name of the sampler that draws if none is asked for."""
        default = self.bundle.manifest.default
        return self.pipeline.own_scheduler if default is None else default.scheduler

    @property
    def takes_long_prompts(self) -> bool:
        """Whether a prompt may fill several chunks; bundles of the first format take one."""
        return any("tokens" in spec.shape for spec in self.bundle.component("unet").inputs)

    @property
    def is_demo(self) -> bool:
        """Whether it is the built-in model, which was taught a list of words."""
        return self.bundle.manifest.source.model == "demo"


class Shelf:
    """All bundles; the first is the default.

    Attributes:
        copies: folders of bundles that another folder before them holds, too; they are offered once.

    Args:
        folders: of the bundles.
        opened: opens one.

    Raises:
        NanoError: a bundle cannot be opened.
    """

    def __init__(self, folders: Sequence[Path], opened: Open) -> None:
        self._all: dict[str, Shelved] = {}
        self.copies: list[Path] = []
        for folder in folders:
            pipeline = opened(folder)
            if self._all.setdefault(pipeline.bundle.digest, Shelved(pipeline)).pipeline is not pipeline:
                pipeline.close()
                self.copies.append(folder)
        self.default = next(iter(self._all))

    def __iter__(self) -> Iterator[Shelved]:
        """Yield the bundles, the default first."""
        return iter(sorted(self._all.values(), key=lambda one: one.bundle.digest != self.default))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def at(self, digest: str) -> Shelved:
        """Return the bundle of a digest."""
        return self._all[digest]

    def named(self, name: str) -> list[Shelved]:
        """Return the bundles that a client may mean by a name, a title, a folder, or the beginning of a digest.

        Several may have one name; a title or a digest is of one alone.
        """
        wanted = name.strip().lower()
        titled = [one for one in self if wanted == one.title.lower() or _begins(one.bundle.digest, wanted)]
        bare = wanted.removesuffix(".safetensors")  # as A1111's list of models has it
        return titled or [
            one for one in self if bare in (one.bundle.manifest.name.lower(), one.bundle.path.name.lower())
        ]

    def chosen(self, name: str | None) -> Shelved:
        """Return the bundle of a name; None means the default.

        Raises:
            NotFoundError: there is none.
            BadRequestError: there are several.
        """
        if name is None:
            return self.at(self.default)
        if not (found := self.named(name)):
            raise NotFoundError(f"there is no bundle {name[:100]!r}", "GET /api/v1/bundles lists them.")
        if len(found) > 1:
            titles = ", ".join(one.title for one in found)
            raise BadRequestError(f"{len(found)} bundles are named {name[:100]!r}", f"Give the title of one: {titles}.")
        return found[0]

    def of_size(self, width: int, height: int) -> Shelved:
        """Return the bundle that draws pictures of a size, or the default."""
        return next((one for one in self if one.bundle.manifest.image_size == (height, width)), self.at(self.default))

    @property
    def loaded(self) -> Shelved | None:
        """The bundle whose graphs are in memory, or on their way there."""
        return next((one for one in self if one.state != "idle"), None)


def ambiguous(name: str, found: Sequence[Shelved]) -> str | None:
    """Return a note on a name that several bundles have, of which the first draws; None for one."""
    if len(found) == 1:
        return None
    return f"{len(found)} bundles are named {name[:100]!r}; {found[0].title} drew"


def _begins(digest: str, text: str) -> bool:
    """Return whether a text is a digest's beginning, long enough to be no name."""
    return len(text) >= _LEAST_DIGITS and digest.startswith(text)
