"""All pictures of a command: planned, drawn as far as they are not there yet, and put on a sheet if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nano_runtime.cli.grid import Axis, cells
from nano_runtime.cli.listed import Listed, first_seed, plans_of
from nano_runtime.cli.saving import (
    Cells,
    Draw,
    Finished,
    Place,
    draw_places,
    image_of,
    mark_finished,
    places_of,
    with_seeds_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from nano_runtime.cli.desk import Desk
    from nano_runtime.cli.output import Output
    from nano_runtime.drawing.plan import Plan
    from nano_runtime.options import DrawOptions
    from nano_runtime.pipeline import Pipeline

__all__ = ["Work"]


@dataclass
class Work:
    """The pictures of a command.

    Attributes:
        places: of the pictures, in order.
        desk: reads and writes them.
        seeded: whether the same command draws the same pictures again.
        seed: that the command draws the same pictures with.
        axes: of the sheet; empty for none.
        sheet: the file of the sheet; None for none, and for one on standard output.
        cells: keep the places of a sheet until its file is there.
    """

    places: list[Place]
    desk: Desk
    seeded: bool
    seed: int
    axes: Sequence[Axis] = ()
    sheet: Path | None = None
    cells: Cells | None = None
    _images: dict[int, Image] = field(default_factory=dict)

    @classmethod
    def of(cls, pipe: Pipeline, options: DrawOptions, output: Output, desk: Desk) -> Work:
        """Plan pictures in files of their own.

        Raises:
            UsageError: an option is out of range.
            OutputExistsError: a named file is there that is another picture.
        """
        seeded = options.seed is not None or output.names is not None
        if output.names is not None and len(output.names) > 1 and not output.force:
            paths = [output.path(i, 0) for i in range(len(output.names))]
            options = with_seeds_of(options, paths, desk, counting=True)
        plan = pipe.plan(options)
        pictures = [(plan, index) for index in range(len(plan.seeds))]
        return cls(places_of(pipe, pictures, output, desk), desk, seeded, plan.seeds[0])

    @classmethod
    def of_list(cls, pipe: Pipeline, listed: Listed, output: Output, desk: Desk) -> Work:
        """Plan the pictures of a list in files of their own.

        Raises:
            RowsError: the bundle cannot draw some of the rows.
            OutputExistsError: a named file is there that is another picture.
        """
        seed = first_seed(listed, output, desk)
        places = places_of(pipe, plans_of(pipe, listed, seed), output, desk)
        for place, row in zip(places, listed.rows, strict=True):
            place.row = row.id
        return cls(places, desk, listed.seeded or output.names is not None, seed)

    @classmethod
    def of_sheet(cls, pipe: Pipeline, options: DrawOptions, output: Output, axes: Sequence[Axis], desk: Desk) -> Work:
        """Plan the places of a sheet; raises the errors of ``of``."""
        seeded, count = options.seed is not None or output.names is not None, len(list(cells(options, axes)))
        if output.names is not None and not output.force:
            options = with_seeds_of(options, Cells.of(output.path(0, 0), count).paths, desk, counting=False)
        plans = [pipe.plan(one) for one in cells(options, axes)]
        places = [Place(plan, 0, pipe.parameters_of(plan, 0), None) for plan in plans]
        if output.folder is None:
            return cls(places, desk, seeded, plans[0].seeds[0], axes)
        sheet = output.path(0, plans[0].seeds[0])
        kept = Cells.of(sheet, count)
        mark_finished(places, kept.paths, desk, force=output.force)
        return cls(places, desk, seeded, plans[0].seeds[0], axes, sheet, kept)

    @property
    def plans(self) -> list[Plan]:
        """The plans behind the places, each once."""
        return list({id(place.plan): place.plan for place in self.places}.values())

    @property
    def missing(self) -> list[Place]:
        """The places without a file."""
        return [place for place in self.places if place.file is None]

    @property
    def unet_calls(self) -> int:
        """Number of UNet calls that are left, if memory suffices for the groups."""
        left = [(plan, [place for place in self.missing if place.plan is plan]) for plan in self.plans]
        return sum(plan.only([place.index for place in of]).unet_calls for plan, of in left if of)

    def draw(self, draw: Draw, *, metadata: bool) -> Iterator[Finished]:
        """Draw what is missing and write each picture; see ``draw_places``."""
        for finished in draw_places(
            self.places, draw, self.desk, metadata=metadata, files=not self.axes or self.sheet is not None
        ):
            if self.axes:
                self._images.update(zip(map(id, finished.places), finished.images, strict=True))
            yield finished

    def finish(self) -> None:
        """Write the sheet, if there is one, and remove its places.

        Raises:
            OutputError: it cannot be written.
        """
        from nano_runtime.pictures.picture_files import picture_bytes
        from nano_runtime.pictures.sheet import labelled_sheet

        if not self.axes:
            return
        images = [self._images.get(id(place)) or image_of(place, self.desk) for place in self.places]
        sheet = labelled_sheet(images, self.axes[0].labels, self.axes[1].labels if len(self.axes) > 1 else [])
        self.desk.write(self.sheet, picture_bytes(sheet, Path("sheet.png") if self.sheet is None else self.sheet, None))
        if self.cells is not None:
            self.desk.remove(self.cells.paths)

    def how_to_go_on(self, *, metadata: bool) -> str | None:
        """Say what is finished and how to draw the rest, after a command was ended; None if nothing is finished."""
        done, left = len(self.places) - len(self.missing), self.missing
        if done == 0 or not left:
            return None
        said = f"{done} of {len(self.places)} pictures are finished; "
        if not metadata and left[0].row is not None:
            return said + "without metadata they cannot be found again: remove their rows, or draw all anew"
        if not metadata:
            seed = left[0].parameters.options.seed
            return said + f"without metadata they cannot be found again: --seed {seed} draws from the next one on"
        if self.seeded:
            return said + "the same command (without --force) draws the rest"
        return said + f"the same command with --seed {self.seed} draws the rest"
