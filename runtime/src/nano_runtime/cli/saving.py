"""Writes each picture as soon as it is finished, and finds those that the same command finished before it was ended.

Whatever ends a command (Ctrl-C, SIGTERM, SIGKILL, a full disk), pictures that were finished are there, and whole. The
same command with the same ``-o`` compares what it finds with what it would draw, and draws the rest. The places of a
sheet are kept in a folder beside it, until the sheet is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nano_runtime.errors import NoParametersError, OutputExistsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from nano_runtime.cli.desk import Desk
    from nano_runtime.cli.output import Output
    from nano_runtime.drawing.events import Result
    from nano_runtime.drawing.plan import Plan
    from nano_runtime.options import DrawOptions
    from nano_runtime.pictures.parameters import Parameters
    from nano_runtime.pipeline import Pipeline
    from nano_runtime.system.timing import Timings

__all__ = [
    "Cells",
    "Draw",
    "Finished",
    "Place",
    "draw_places",
    "image_of",
    "mark_finished",
    "places_of",
    "seed_of",
    "with_seeds_of",
]

Draw = Callable[["Plan", bool], "Result"]
"""Draws a plan; the second argument says whether another one follows."""


@dataclass
class Place:
    """One picture to draw, and where it goes.

    Attributes:
        plan: that draws it.
        index: of the picture in the plan.
        parameters: of the picture.
        path: returns its file, which no other picture has by then; None for standard output.
        file: the file that has the picture; None until it is there.
        row: id of its row in a list; None for no list.
    """

    plan: Plan
    index: int
    parameters: Parameters
    path: Callable[[], Path] | None
    file: Path | None = None
    row: str | None = None


@dataclass(frozen=True)
class Finished:
    """Some pictures that shared UNet calls are in their files.

    Attributes:
        places: of the pictures.
        images: the pictures.
        timings: of the call.
    """

    places: Sequence[Place]
    images: Sequence[Image]
    timings: Timings


@dataclass(frozen=True)
class Cells:
    """The folder with the places of a sheet that are finished.

    Attributes:
        folder: beside the sheet.
        count: number of places.
    """

    folder: Path
    count: int

    @classmethod
    def of(cls, sheet: Path, count: int) -> Cells:
        """Return the folder for a sheet of so many places."""
        return cls(sheet.with_name(f"{sheet.stem}-cells"), count)

    @property
    def paths(self) -> list[Path]:
        """One file for each place."""
        return [self.folder / f"{number}.png" for number in range(1, self.count + 1)]


def with_seeds_of(options: DrawOptions, paths: Sequence[Path], desk: Desk, *, counting: bool) -> DrawOptions:
    """Return options with the seeds of the first picture that is there, where the command names none.

    Args:
        options: of the call.
        paths: of its pictures.
        desk: reads them.
        counting: whether seeds count up from picture to picture; otherwise all have the same.
    """
    varied = options.variation_strength is not None
    if options.seed is not None and not (varied and options.variation_seed is None):
        return options
    for index, path in enumerate(paths):
        if (found := _parameters(path, desk)) is None:
            continue
        seed, variation = found.options.seed, found.options.variation_seed
        if options.seed is None and isinstance(seed, int):  # of one picture
            options = replace(options, seed=max(0, seed - (index if counting and variation is None else 0)))
        if varied and options.variation_seed is None and variation is not None:
            options = replace(options, variation_seed=max(0, variation - (index if counting else 0)))
        break
    return options


def seed_of(path: Path, desk: Desk) -> int | None:
    """Return the seed of a picture that is there; None where there is none that says so."""
    found = _parameters(path, desk)
    return None if found is None or not isinstance(found.options.seed, int) else found.options.seed


def places_of(pipe: Pipeline, pictures: Sequence[tuple[Plan, int]], output: Output, desk: Desk) -> list[Place]:
    """Return the places of pictures; where there are several, some may be in their files already.

    Files that are named by their seeds are of the same command only if its first picture is there: others drew some of
    the same seeds.

    Args:
        pipe: that draws them.
        pictures: the plan of each, and its index there.
        output: their names.
        desk: reads what is there.

    Raises:
        OutputExistsError: a named file is there that is another picture.
    """
    places: list[Place] = []
    taken: set[Path] = set()
    for number, (plan, index) in enumerate(pictures):
        seed = plan.seeds[index]
        place = Place(plan, index, pipe.parameters_of(plan, index), None)
        if output.folder is not None:
            place.path = partial(output.path, number, seed)
            begun = output.names is not None or number == 0 or places[0].file is not None
            if len(pictures) > 1 and not output.force and begun:
                present = list(output.present(number, seed, taken))
                place.file = next((path for path in present if _has(path, place, desk)), None)
                if place.file is not None:
                    taken.add(place.file)
                elif output.names is not None and present:
                    raise OutputExistsError(present[0])
        places.append(place)
    return places


def mark_finished(places: Sequence[Place], paths: Sequence[Path], desk: Desk, *, force: bool) -> None:
    """Give the places of a sheet their files, and mark those that are there already.

    Raises:
        OutputExistsError: a file is there that is another picture.
    """
    for place, path in zip(places, paths, strict=True):
        place.path = partial(Path, path)
        if not force and os.path.lexists(path):
            if not _has(path, place, desk):
                raise OutputExistsError(path)
            place.file = path


def draw_places(
    places: Sequence[Place], draw: Draw, desk: Desk, *, metadata: bool, files: bool = True
) -> Iterator[Finished]:
    """Draw what is missing, group by group, and write each picture as soon as it is finished.

    Args:
        places: all of them; those that have a file are passed over.
        draw: draws a plan.
        desk: writes the pictures.
        metadata: whether files say how their pictures were drawn.
        files: whether pictures are written at all.

    Raises:
        NanoError: those of drawing; ``OutputError`` where a file cannot be written.
    """
    parts = list(_parts([place for place in places if place.file is None]))
    for number, (plan, group) in enumerate(parts, 1):
        result = draw(plan, number < len(parts))
        images = cast("list[Image]", result.images)
        for place, image in zip(group, images, strict=True) if files else ():
            _write(place, image, desk, metadata=metadata)
        yield Finished(group, images, result.timings)


def image_of(place: Place, desk: Desk) -> Image:
    """Return the picture of a place that has a file, from it.

    Raises:
        NoParametersError: it was removed meanwhile.
    """
    from PIL import Image

    assert place.file is not None  # noqa: S101 - see above
    content = desk.read(place.file)
    if content is None:
        raise NoParametersError(place.file, "it can no longer be read")
    with Image.open(BytesIO(content), formats=("PNG",)) as image:
        return image.convert("RGB")


def _parts(places: Sequence[Place]) -> Iterator[tuple[Plan, list[Place]]]:
    """Yield plans of pictures that share UNet calls, each with its places."""
    plans = {id(place.plan): place.plan for place in places}
    for key, plan in plans.items():
        of = {place.index: place for place in places if id(place.plan) == key}
        for group in plan.grouped(of, plan.at_once):
            yield plan.only(group), [of[i] for i in group]


def _write(place: Place, image: Image, desk: Desk, *, metadata: bool) -> None:
    """Put a picture into its file, or on standard output."""
    from nano_runtime.pictures.picture_files import picture_bytes

    path = None if place.path is None else place.path()
    named = Path("picture.png") if path is None else path
    desk.write(path, picture_bytes(image, named, place.parameters if metadata else None))
    place.file = path


def _has(path: Path, place: Place, desk: Desk) -> bool:
    """Return whether a file has the picture of a place; pictures that it started from are compared by their digest."""
    found = _parameters(path, desk)
    return found is not None and found.as_dict() == place.parameters.as_dict()


def _parameters(path: Path, desk: Desk) -> Parameters | None:
    """Return how a picture was drawn; None where there is none that says so."""
    from nano_runtime.pictures.png import parameters_in

    if (content := desk.read(path)) is None:
        return None
    try:
        return parameters_in(content, path)
    except NoParametersError:
        return None
