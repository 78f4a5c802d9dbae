"""From rows to pictures: complete options, seeds, keys and names. All that is wrong with rows is found here."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unicodedata import normalize

from blake3 import blake3

from nano_batch.naming import FIELDS, Naming
from nano_batch.wanted import Source, Wanted, changed_options, digest_of_file, key_of, readable
from nano_runtime import DrawOptions, Pipeline, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from nano_runtime import Row

__all__ = ["Place", "list_pictures", "wanted_of"]

_log = logging.getLogger(__name__)

_VARIED: Final = frozenset({"prompt", "negative_prompt", "seed", "variation_seed"})
"""Options of which each picture has its own."""

_NO_COLUMNS: Final = frozenset({"latents", "output_type", "image", "mask_image", "num_images_per_prompt", "quality"})
_COLUMNS: Final = tuple(name for name in DrawOptions.__dataclass_fields__ if name not in _NO_COLUMNS)
_NOT_SHARED: Final = _VARIED | {"num_images_per_prompt", "guidance_interval", "latents", "image", "mask_image"}
_shared: Final = attrgetter(*(name for name in DrawOptions.__dataclass_fields__ if name not in _NOT_SHARED))
_SEED_BYTES: Final = 4  # torch's generator takes no more of a seed


@dataclass(frozen=True)
class Place:
    """One picture that a row asks for; several places may be one picture.

    Attributes:
        row: number of the row, as ``Row.number``.
        number: of the row among all rows, from 0.
        wanted: the picture, under this place's name.
        record: what ``metadata.jsonl`` has of it, but for what drew it and the row's own columns.
        extra: the row's own columns.
    """

    row: int
    number: int
    wanted: Wanted
    record: Mapping[str, Any]
    extra: Mapping[str, Any]

    def line(self) -> dict[str, Any]:
        """Return the place's line in ``pictures.jsonl``."""
        return {"row": self.row, "place": self.number, "record": self.record, "extra": self.extra}


def list_pictures(
    rows: Sequence[Row], pipeline: Pipeline, seed: int, naming: Naming, unit: str = "line"
) -> tuple[list[Place], list[str]]:
    """Return the pictures that rows ask for, in their order, and a line for each row that cannot be drawn.

    A row without a seed gets one that depends on the job's seed and on its id or, in files without ids, on its prompt
    and on how many equal rows come before it; where it stands in the file does not matter. Further pictures of a row
    count up from its seed, or its variation's, as those of ``nano-generate -n`` do. Rows with a seed or an id do not
    count among the equal ones.

    Args:
        rows: checked.
        pipeline: of the bundle; it completes options, nothing is drawn.
        seed: of the job.
        naming: of the files.
        unit: what the rows' numbers count, in words.

    Raises:
        UsageError: the bundle cannot draw what rows leave out, as the command line has it.
    """
    if naming.has("id") and not all(row.has_id for row in rows):
        _log.warning(
            "rows without an id are called by their place among all rows: a row that is put in front renames the "
            "pictures of those behind it. Add a column id, or put {key} or {seed} in --name instead"
        )
    completed, digests = _Completed(pipeline), _Digests()
    faults: list[str] = []
    places: list[Place] = []
    equal: Counter[tuple[object, ...]] = Counter()
    for number, row in enumerate(rows):
        try:
            image, mask = digests.of(row.image), digests.of(row.mask_image)
            whole = completed.of(row)
        except UsageError as error:
            if completed.is_usual(row, error):
                raise
            faults.append(f"{unit} {row.number}: {error.what}. {error.hint}")
            continue
        except OSError as error:
            faults.append(f"{unit} {row.number}: {error.filename} cannot be read: {error.strerror}. Check it.")
            continue
        alike = whole, row.options.prompt, row.options.negative_prompt, image, mask
        first = _seed_of(row, seed, equal[alike])
        equal[alike] += row.options.seed is None and not row.has_id
        for i in range(row.options.num_images_per_prompt):
            varied = whole.varied(row, first, i)
            given = {**whole.given, **varied}
            key = key_of(given, pipeline.bundle.digest, _digest(image), _digest(mask))
            name = naming.name({"id": row.id, "i": i, "key": key, **varied})
            wanted = Wanted(key, given, (name,), image, mask)
            begins = {"file_name": name, "text": row.options.prompt, "id": row.id, "i": i, "key": key}
            starts = {"start_image": _shown(row.image), "start_mask": _shown(row.mask_image)}
            record = {**begins, **whole.columns, **varied, **starts}
            del record["prompt"]  # it is the text
            places.append(Place(row.number, number, wanted, record, row.extra))
    return places, [*faults, *_unwritable(places, unit), *_collisions(places, unit)]


def wanted_of(places: Sequence[Place]) -> dict[str, Wanted]:
    """Return each picture once, by its key, with all names that its places give it."""
    found: dict[str, Wanted] = {}
    for place in places:
        one = place.wanted
        if (before := found.get(one.key)) is not None and one.files[0] not in before.files:
            one = replace(one, files=(*before.files, *one.files))
        elif before is not None:
            continue
        found[one.key] = one
    return found


def _digest(source: Source | None) -> str | None:
    """Return the digest of a file that may not be."""
    return None if source is None else source.digest


class _Digests:
    """The files that rows start from; each is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, Source] = {}

    def of(self, path: Path | None) -> Source | None:
        """Return a file with its digest, or raise ``OSError``."""
        if path is None:
            return None
        if path not in self._known:
            self._known[path] = Source(str(path.absolute()), digest_of_file(path))
        return self._known[path]


@dataclass(frozen=True, eq=False)
class _Whole:
    """The complete options of rows that differ in prompts and seeds only.

    Attributes:
        given: of a picture among them, as ``Wanted.given`` has them, but for prompts and seeds.
        columns: all of them, for ``metadata.jsonl``.
        varies: whether they have a seed to vary towards.
    """

    given: Mapping[str, Any]
    columns: Mapping[str, Any]
    varies: bool

    @classmethod
    def of(cls, options: DrawOptions) -> _Whole:
        """Take them from the complete options of one."""
        given = {name: value for name, value in changed_options(options).items() if name not in _VARIED}
        values = {name: getattr(options, name) for name in _COLUMNS}
        columns = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return cls(given, columns, options.variation_seed is not None)

    def varied(self, row: Row, seed: int, i: int) -> dict[str, Any]:
        """Return prompts and seeds of one picture; ``seed`` is the row's."""
        found = {"prompt": row.options.prompt, "negative_prompt": row.options.negative_prompt or ""}
        if not self.varies:
            return {**found, "seed": seed + i}
        given = row.options.variation_seed
        other = _hashed(seed, "variation") if given is None else given
        return {**found, "seed": seed, "variation_seed": other + i}


class _Completed:
    """Completes options: once for all rows that differ in prompts and seeds only."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[tuple[object, ...], _Whole | UsageError] = {}
        self._usual: dict[tuple[bool, bool], str | None] = {}

    def of(self, row: Row) -> _Whole:
        """Return the complete options of a row and those like it.

        Raises:
            UsageError: the bundle cannot draw it.
        """
        between = row.options.guidance_interval
        pictures = row.image is not None, row.mask_image is not None
        like = (*_shared(row.options), None if between is None else tuple(between), *pictures)
        if like not in self._known:
            try:
                self._known[like] = self._completed(row.options, *pictures)
            except UsageError as error:
                self._known[like] = error
        found = self._known[like]
        if isinstance(found, UsageError):
            raise found
        return found

    def is_usual(self, row: Row, error: UsageError) -> bool:
        """Return whether the error of a row is that of all rows which name no options of their own."""
        pictures = row.image is not None, row.mask_image is not None
        if pictures not in self._usual:
            self._usual[pictures] = None
            try:
                self._completed(row.usual, *pictures)
            except UsageError as usual:
                self._usual[pictures] = str(usual)
        return self._usual[pictures] == str(error)

    def _completed(self, options: DrawOptions, image: bool, mask: bool) -> _Whole:  # noqa: FBT001 - see of
        """Have the pipeline complete options."""
        plain = replace(
            options,
            prompt="",
            negative_prompt=None,
            seed=0,
            num_images_per_prompt=1,
            variation_seed=options.variation_seed if options.variation_strength is None else 0,
        )
        plan = self._pipeline.plan(self._with_pictures(plain, image, mask))
        return _Whole.of(replace(plan.options_of(0), image=None, mask_image=None))

    def _with_pictures(self, options: DrawOptions, image: bool, mask: bool) -> DrawOptions:  # noqa: FBT001 - see of
        """Return options with white pictures in place of a row's own, which are opened when they are drawn."""
        if not (image or mask):
            return options
        from PIL import Image as Pillow  # noqa: PLC0415 - most jobs start from no picture

        size = self._pipeline.bundle.manifest.image_size[::-1]

        def white(wanted: bool) -> Image | None:  # noqa: FBT001 - see above
            return Pillow.new("RGB", size, "white") if wanted else None

        return replace(options, image=white(image), mask_image=white(mask))


def _seed_of(row: Row, job_seed: int, before: int) -> int:
    """Return the seed of a row's first picture; ``before`` is the number of equal rows that come before it."""
    if row.options.seed is not None:
        return int(str(row.options.seed))
    if row.has_id:
        return _hashed(job_seed, "id", row.id)
    return _hashed(job_seed, "prompt", row.options.prompt, before)


def _hashed(*parts: object) -> int:
    """Return a seed that depends on all parts."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(blake3(text.encode()).digest(_SEED_BYTES), "little")


def _shown(path: Path | None) -> str | None:
    return None if path is None else readable(path)


def _unwritable(places: Sequence[Place], unit: str) -> Iterator[str]:
    """Yield places whose name has characters that files cannot have in this process, where that is not UTF-8."""
    encoding = sys.getfilesystemencoding()
    for place in places:
        name = place.wanted.files[0]
        try:
            name.encode(encoding)
        except UnicodeEncodeError:
            what = f"its picture would be {name}, and names of files are {encoding} here"
            yield f"{unit} {place.row}: {what}. Set LC_ALL=C.UTF-8, or put {{key}} or {{seed}} alone into --name."


def _collisions(places: Sequence[Place], unit: str) -> Iterator[str]:
    """Yield places whose name another picture has, also on systems to which some spellings of a name are one."""
    taken: dict[str, Place] = {}
    for place in places:
        name = place.wanted.files[0]
        before = taken.setdefault(_folded(name), place)
        if before.wanted.key == place.wanted.key:
            continue
        fields = [f"{{{field}}}" for field in sorted(FIELDS) if _tells_apart(field, before, place)]
        hint = f"Put {', '.join(fields[:-1])} or {fields[-1]}, which are not the same, into --name"
        if before.number == place.number:
            what = f"its pictures {before.record['i']} and {place.record['i']} would both be {name}"
        else:
            what = f"its picture would be {name}, as that of {unit} {before.row} is"
        yield f"{unit} {place.row}: {what}. {hint}."


def _tells_apart(field: str, one: Place, other: Place) -> bool:
    """Return whether a field of names differs between two places, on every system."""
    names = [Naming(f"{{{field}}}").name({**place.record, "prompt": place.record["text"]}) for place in (one, other)]
    return _folded(names[0]) != _folded(names[1])


def _folded(name: str) -> str:
    """Return what the spellings of a name have in common: capitals, and accents that are characters of their own.

    As Unicode's canonical caseless matching has it (chapter 3.13, D145), by which macOS compares names.
    """
    if name.isascii():
        return name.lower()
    return normalize("NFD", normalize("NFD", name).casefold())
