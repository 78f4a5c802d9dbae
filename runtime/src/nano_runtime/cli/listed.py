"""``--prompts FILE``: the rows of a list as plans; rows that differ in prompts and seeds alone share UNet calls."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nano_runtime.errors import RowsError, RowsFileError, UsageError
from nano_runtime.errors.wording import shown
from nano_runtime.options import MOST_PICTURES, DrawOptions
from nano_runtime.rows.reading import place_of, read_rows
from nano_runtime.values import checked_seed

if TYPE_CHECKING:
    from PIL.Image import Image

    from nano_runtime.cli.desk import Desk
    from nano_runtime.cli.output import Output
    from nano_runtime.drawing.plan import Plan
    from nano_runtime.pipeline import Pipeline
    from nano_runtime.rows.row import Row

__all__ = ["Entry", "Listed", "first_seed", "plans_of", "read_list", "unused_columns"]

_MOST_NAMED: Final = 10
_OF_PICTURES: Final = ("prompt", "negative_prompt", "seed")  # of which a call takes one for each picture
_SHARED: Final = tuple(
    option.name
    for option in fields(DrawOptions)
    if option.name not in {*_OF_PICTURES, "num_images_per_prompt", "latents", "image", "mask_image"}
)


@dataclass(frozen=True)
class Entry:
    """A row, and where its pictures stand.

    Attributes:
        row: it.
        place: of its first picture among all pictures of the list.
    """

    row: Row
    place: int

    @property
    def count(self) -> int:
        """Number of its pictures."""
        return self.row.options.num_images_per_prompt


@dataclass(frozen=True)
class Listed:
    """A list of pictures to draw.

    Attributes:
        path: of the file.
        entries: its rows.
        count: number of all pictures.
        given: picture to start from and mask of rows that name none, as the command line has them.
        seed: of the first picture; None for a random one. A picture whose row names no seed is drawn from this one plus
            its place, as the pictures of one prompt are.
    """

    path: Path
    entries: tuple[Entry, ...]
    count: int
    given: tuple[Path | None, Path | None]
    seed: int | None

    @property
    def seeded(self) -> bool:
        """Whether the same command draws the same pictures again."""
        options = [entry.row.options for entry in self.entries]
        return self.seed is not None or not any(one.seed is None or _open_variation(one) for one in options)

    @property
    def rows(self) -> list[Row]:
        """The row of each picture."""
        return [entry.row for entry in self.entries for _ in range(entry.count)]

    @property
    def pictures(self) -> list[Path]:
        """The files that pictures start from, each once."""
        rows = [entry.row for entry in self.entries]
        files = (file for row in rows for file in (row.image, row.mask_image) if file is not None)
        return list(dict.fromkeys(files))


def read_list(path: Path, defaults: DrawOptions, image: Path | None, mask_image: Path | None) -> Listed:
    """Read and check the rows of a file, before anything is loaded.

    Args:
        path: of the file; - for standard input.
        defaults: of the command line.
        image: to start from, for rows that name none.
        mask_image: its mask.

    Raises:
        RowsFileError: it cannot be read, has no rows, or asks for more pictures than a call draws.
        RowsError: rows cannot be drawn.
        SeedError: the seeds of the pictures do not fit into 64 bits.
    """
    entries: list[Entry] = []
    count = 0
    for row in read_rows(path, replace(defaults, seed=None), image=image, mask_image=mask_image):
        entries.append(Entry(row, count))
        count += row.options.num_images_per_prompt
    if count > MOST_PICTURES:
        why = f"it asks for {count} pictures, more than {MOST_PICTURES} at once"
        raise RowsFileError(path, why, "Divide it, or draw it with nano-batch.")
    seed = checked_seed(defaults.seed, 2 * count) if isinstance(defaults.seed, int) else None
    return Listed(path, tuple(entries), count, (image, mask_image), seed)


def unused_columns(rows: Iterable[Row]) -> str | None:
    """Return a line about the columns that change no picture; None where there are none.

    One of them may be meant as an option that this program has not, or under another name.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.extra))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"columns that change no picture: {', '.join(map(shown, names[:_MOST_NAMED]))}{more}" if names else None


def first_seed(listed: Listed, output: Output, desk: Desk) -> int:
    """Return the seed of the first picture: the command's, what a picture that is there tells, or a random one.

    Args:
        listed: the rows.
        output: names of the pictures.
        desk: reads those that are there.
    """
    from nano_runtime.cli.saving import seed_of
    from nano_runtime.drawing.arguments import random_seed

    if listed.seed is not None:
        return listed.seed
    for entry in listed.entries if output.names is not None and not output.force else ():
        found = None if entry.row.options.seed is not None else seed_of(output.path(entry.place, 0), desk)
        if found is not None:
            return max(0, found - entry.place)
    return random_seed()


def plans_of(pipe: Pipeline, listed: Listed, first: int) -> list[tuple[Plan, int]]:
    """Return the plan of each picture, and its index there.

    Args:
        pipe: that draws them.
        listed: the rows.
        first: seed of the first picture.

    Raises:
        RowsError: the bundle cannot draw some of the rows.
        UsageError: it cannot draw what rows leave out, as the command line has it.
    """
    groups: dict[Hashable, list[Entry]] = {}
    faults = list(_bad_prompts(pipe, listed))
    for entry in listed.entries:
        groups.setdefault(_shared(entry), []).append(entry)
    found: list[tuple[Plan, int] | None] = [None] * listed.count
    for entries in groups.values() if not faults else ():
        try:
            plan = pipe.plan(_options(entries, first, listed.count))
        except UsageError as error:
            if _is_usual(pipe, listed, entries[0].row, error):
                raise
            faults.append(_told(listed, entries[0], error))
            continue
        places = [entry.place + i for entry in entries for i in range(entry.count)]
        for index, place in enumerate(places):
            found[place] = plan, index
    if faults:
        raise RowsError(listed.path, faults)
    return [one for one in found if one is not None]


def _is_usual(pipe: Pipeline, listed: Listed, row: Row, error: UsageError) -> bool:
    """Return whether the error of a row is that of all rows which name no options of their own."""
    try:
        image, mask = _opened(row)
    except UsageError:
        return (row.image, row.mask_image) == listed.given
    try:
        pipe.plan(replace(row.usual, image=image, mask_image=mask))
    except UsageError as usual:
        return str(usual) == str(error)
    return False


def _bad_prompts(pipe: Pipeline, listed: Listed) -> Iterator[str]:
    """Say which prompts the bundle cannot read; drawing would find that out in the middle."""
    for entry in listed.entries:
        try:
            _tokenize(pipe, entry.row.options)
        except UsageError as error:  # noqa: PERF203 - each row has its own
            yield _told(listed, entry, error)


def _tokenize(pipe: Pipeline, options: DrawOptions) -> None:
    """Tokenize both prompts of a row, or raise ``UsageError``."""
    for text in (options.prompt, options.negative_prompt):
        if isinstance(text, str):
            pipe.tokenize(text, prompt_weighting=options.prompt_weighting, long_prompts=options.long_prompts)


def _told(listed: Listed, entry: Entry, error: UsageError) -> str:
    """Return what is wrong with a row, as a line."""
    return f"{place_of(listed.path, entry.row)}: {error.what}. {error.hint}"


def _shared(entry: Entry) -> Hashable:
    """Return all that the rows of a call must have in common; rows that vary have seeds that others would shift."""
    row = entry.row
    options = tuple(_hashable(getattr(row.options, name)) for name in _SHARED)
    alone = entry.place if row.options.variation_strength is not None else None
    return *options, row.image, row.mask_image, alone


def _hashable(value: Any) -> Hashable:  # noqa: ANN401 - an option's
    return tuple(value) if isinstance(value, list) else value


def _options(entries: Sequence[Entry], first: int, count: int) -> DrawOptions:
    """Return the options of one call that draws some rows.

    Args:
        entries: the rows.
        first: seed of the list's first picture.
        count: number of the list's pictures.

    Raises:
        ImageError: a picture cannot be read.
    """
    row = entries[0].row
    image, mask = _opened(row)
    options = replace(row.options, image=image, mask_image=mask)
    if options.variation_strength is not None:  # a row of its own
        seed = first + entries[0].place if options.seed is None else options.seed
        towards = first + count + entries[0].place if options.variation_seed is None else options.variation_seed
        return replace(options, seed=seed, variation_seed=towards)
    each = [(entry, i) for entry in entries for i in range(entry.count)]
    texts = [entry.row.options for entry, _ in each]
    return replace(
        options,
        prompt=[str(one.prompt) for one in texts],
        negative_prompt=["" if one.negative_prompt is None else str(one.negative_prompt) for one in texts],
        seed=[_seed(entry, first) + i for entry, i in each],
        num_images_per_prompt=1,
    )


def _opened(row: Row) -> tuple[Image | None, Image | None]:
    """Return the picture that a row starts from, and its mask.

    Raises:
        ImageError: one cannot be read.
    """
    from nano_runtime.pictures.source import open_picture

    image, mask = (None if file is None else open_picture(file) for file in (row.image, row.mask_image))
    return image, mask


def _seed(entry: Entry, first: int) -> int:
    """Return the seed of a row's first picture."""
    own = entry.row.options.seed
    return own if isinstance(own, int) else first + entry.place


def _open_variation(options: DrawOptions) -> bool:
    """Return whether a row varies towards a seed that it does not name."""
    return options.variation_strength is not None and options.variation_seed is None
